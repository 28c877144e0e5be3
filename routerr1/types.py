"""The values that travel between the parts: frozen, no behaviour.

Costs are US dollars, prices US dollars per million tokens, times seconds. Token ids that the policy
sampled are carried as sampled: text turned back into tokens is not what the policy was scored on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from routerr1.matching import Rule

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Failure = Literal[
    "unknown_model", "malformed_call", "unavailable", "budget", "not_recorded", "repeated"
]
Stopped = Literal["answered", "max_rounds", "no_action", "length", "rejected"]
Finish = Literal["stop", "eos", "length"]
BreakerState = Literal["closed", "open", "half-open"]
Kept = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Question:
    """One row of data/questions/*.parquet.

    Attributes:
        golden_answers: reference answers; any one of them counts as right.
        hops: facts the question needs; None where the source does not say.
        metadata: whatever the source knows; `topic`, `group`, `task` and `matching` are read where present.
            `messages` are those of a conversation, which `question` holds as one text. Rows of
            one `group` ask the same thing in other words, so intervals resample groups, not rows.
    """

    id: str
    dataset: str
    question: str
    golden_answers: tuple[str, ...]
    split: Split
    hops: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def matching(self) -> Rule:
        """The rule by which answers to this question are compared; `squad` where the metadata names none."""
        return "text" if self.metadata.get("matching") == "text" else "squad"


@dataclass(frozen=True, slots=True)
class Card:
    """One candidate as the policy sees it, and the prices of its tokens.

    Attributes:
        aliases: other names it answers to; unique over the pool, like names, ignoring case.
        prompt_usd_per_mtok: price of a million prompt tokens.
        completion_usd_per_mtok: price of a million reply tokens.
        latency_s: median seconds to a whole reply; None before profiling.
        performance: share of probe questions answered right, by topic or data set, in [0, 1].
        prompt_tokens: mean length of a probe's prompt; None before profiling.
        completion_tokens: mean reply length; None before profiling.
        size_b: billions of parameters, all experts counted; None if unknown. Never shown to the policy.
        cached_prompt_usd_per_mtok: price of a million cached prompt tokens; None: as any other.
        reasoning_usd_per_mtok: price of a million reasoning tokens; None: as any other of a reply.
        request_usd: price of a call beside its tokens.
        reply: which tokens of a long reply are kept for the policy, the first or the last.
        unsure: share of probe questions to which it said that it is not sure, by topic; empty: not measured.
    """

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    prompt_usd_per_mtok: float = 0.0
    completion_usd_per_mtok: float = 0.0
    latency_s: float | None = None
    latency_p95_s: float | None = None
    performance: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    size_b: float | None = None
    cached_prompt_usd_per_mtok: float | None = None
    reasoning_usd_per_mtok: float | None = None
    request_usd: float = 0.0
    reply: Kept = "first"
    unsure: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ask:
    """A call the policy wants: `name` is the candidate's canonical name.

    Attributes:
        written: the call as the policy wrote it, if it holds a handle or a reference; None if it reads as sent.
    """

    name: str
    query: str
    written: str | None = None


@dataclass(frozen=True, slots=True)
class LookUp:
    """A free look at what the cards say of a topic."""

    topic: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The policy's final word.

    Attributes:
        written: the reference that the policy wrote, e.g. `@2`; None if it wrote the answer out.
    """

    text: str
    written: str | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """No usable action; `why` is shown to the policy and to people."""

    why: str
    failure: Failure = "malformed_call"


Action = Ask | LookUp | Answer | Malformed


@dataclass(frozen=True, slots=True)
class Generation:
    """One stretch the policy sampled.

    Attributes:
        token_ids: exactly the ids sampled, the stop included.
        logprobs: log-probability of each id under the sampling distribution; same length.
        finish: "stop" (a closing tag), "eos", or "length".
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Finish = "stop"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a call is billed for.

    Attributes:
        prompt_tokens: cached ones included.
        completion_tokens: reasoning included.
        cached_prompt_tokens: the part of the prompt that the server read from its cache.
        reasoning_tokens: the part of the completion that the model thought and did not say.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_prompt_tokens + other.cached_prompt_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from a candidate, untrusted.

    Attributes:
        model: canonical name of the candidate asked (its fallback's, if that one answered).
        text: the raw reply; empty if `failure` is set.
        prompt_tokens: prompt tokens billed, cached ones and failed tries included.
        completion_tokens: reply tokens billed, reasoning and failed tries included.
        cost_usd: what the call cost in all, failed tries included.
        retries: tries beyond the first.
        cached: answered from a store, not paid now; `cost_usd` is still its first cost.
        failure: why there is no reply; None if there is one.
        breaker_state: state of the candidate's circuit breaker before the first try; None for pools
            without breakers and where no candidate was asked.
        note: anything a reader of the record must know, e.g. that a fallback answered.
        cached_prompt_tokens: part of `prompt_tokens` that the server read from its cache.
        reasoning_tokens: part of `completion_tokens` that the candidate thought.
        thoughts: what the candidate thought, where the server says it; not part of `text`.
    """

    model: str
    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    latency_s: float = 0.0
    retries: int = 0
    cached: bool = False
    failure: Failure | None = None
    breaker_state: BreakerState | None = None
    note: str | None = None
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0
    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One generation, what it asked for, and what was inserted after it (mask 0)."""

    generation: Generation
    action: Action
    reply: Reply | None = None
    inserted: str = ""
    inserted_ids: tuple[int, ...] = ()
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one trajectory used. Sums over its replies, plus the policy's own tokens.

    Attributes:
        breaker_states: `Reply.breaker_state` of every call, in order.
        cached_prompt_tokens: part of `prompt_tokens`.
        reasoning_tokens: part of `completion_tokens`.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    retries: int = 0
    failures: int = 0
    cache_hits: int = 0
    cost_usd: float = 0.0
    breaker_states: tuple[BreakerState | None, ...] = ()
    policy_tokens: int = 0
    round_wall_s: tuple[float, ...] = ()
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One question played to its end.

    Attributes:
        prompt_ids: the prompt as the policy read it; empty for routers that hold no tokens.
        text: everything after the prompt: generations and inserted replies, in order.
        stopped: why it ended; `rejected`: it broke a contract, and nothing else of it is kept.
        answer: the content of the final answer tag, its reference resolved; None without one.
        handles: short names that the policy met in this trajectory, to names of candidates.
        grade: of the answer, in [0, 1], for tasks that are graded after the rollout; None for the others.
    """

    question: Question
    turns: tuple[Turn, ...]
    stopped: Stopped
    answer: str | None
    text: str
    ledger: Ledger
    prompt_ids: tuple[int, ...] = ()
    handles: Mapping[str, str] = field(default_factory=dict)
    grade: float | None = None
