"""From a trajectory to what a client gets: the answer or an error, the usage, and the object `routerr1`."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from routerr1.baselines.likeness import Likeness
from routerr1.pool.pricing import TOKEN_BYTES
from routerr1.rollout.refusal import Refusal, refusal_of
from routerr1.serve.engine import Identity
from routerr1.serve.errors import ApiError, over_budget
from routerr1.types import Ledger, Reply, Trajectory


class PromptDetails(BaseModel):
    """Part of the prompt tokens that candidates read from their caches."""

    cached_tokens: int = 0


class CompletionDetails(BaseModel):
    """Part of the completion tokens that is not the answer of a candidate or the policy."""

    reasoning_tokens: int = 0


class UsageBody(BaseModel):
    """Tokens of the policy and of all candidates together, and what the candidates cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float
    prompt_tokens_details: PromptDetails = PromptDetails()
    completion_tokens_details: CompletionDetails = CompletionDetails()


class CallBody(BaseModel):
    """One call to a candidate.

    Attributes:
        seconds: of all its tries.
        failure: why there is no reply; None if there is one.
    """

    model: str
    cost: float
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    retries: int = 0
    failure: str | None = None
    recorded: bool = False


class AboutBody(BaseModel):
    """The object `routerr1` of a response.

    Attributes:
        version: of the policy: number in the registry, or a digest of its files.
        pool: `http`, `recorded` (replies of real models, made earlier) or `simulated`.
        spend: level that the router heeded; null for a router or a candidate that heeds none.
        cost: what the calls cost, equal to the sum over `calls`.
        topic: of most of the nearest questions that the router learned from; null where they are not known.
        topic_share: share of the nearest that have the topic.
        unlike: none of them is near, so what was measured may not hold for this question.
    """

    version: str
    router: str
    pool: str
    spend: float | None
    cost: float
    calls: list[CallBody]
    policy_tokens: int
    seconds: float
    trace_id: str
    topic: str | None = None
    topic_share: float | None = None
    unlike: bool | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a trajectory comes to.

    Attributes:
        finish: `stop`, or `length` if the answer was cut.
    """

    text: str
    finish: str
    usage: UsageBody
    about: AboutBody


def require_answer(trajectory: Trajectory) -> str:
    """The answer of a trajectory.

    Raises: ApiError if there is none, or if no candidate replied: what a policy says then is a guess.
    """
    refused = refusal_of(trajectory)
    match refused:
        case None:
            assert trajectory.answer is not None
            return trajectory.answer.strip()
        case Refusal(kind="budget"):
            raise over_budget(refused.why)
        case Refusal(kind="no_reply"):
            raise ApiError(503 if refused.asked else 502, refused.why, "no_candidate_replied")
    raise ApiError(502, refused.why, "no_answer", retry=False)


def usage_of(trajectory: Trajectory) -> UsageBody:
    """The tokens of a trajectory."""
    return usage_body(trajectory.ledger, tokens_read(trajectory))


def tokens_read(trajectory: Trajectory) -> int:
    """The tokens that the policy read: its prompt, and every inserted reply once."""
    inserted = sum(len(turn.inserted_ids) for turn in trajectory.turns)
    return len(trajectory.prompt_ids) + inserted


def usage_body(ledger: Ledger, policy_prompt_tokens: int = 0) -> UsageBody:
    """The usage of a ledger."""
    prompt = policy_prompt_tokens + ledger.prompt_tokens
    completion = ledger.policy_tokens + ledger.completion_tokens
    return UsageBody(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cost=ledger.cost_usd,
        prompt_tokens_details=PromptDetails(cached_tokens=ledger.cached_prompt_tokens),
        completion_tokens_details=CompletionDetails(reasoning_tokens=ledger.reasoning_tokens),
    )


def about_of(
    replies: Sequence[Reply],
    identity: Identity,
    *,
    spend: float | None,
    policy_tokens: int,
    seconds: float,
    trace_id: str,
    placed: Likeness | None = None,
) -> AboutBody:
    """What the object `routerr1` says."""
    asked = [reply for reply in replies if reply.model]
    return AboutBody(
        version=identity.version,
        router=identity.router,
        pool=identity.pool,
        spend=spend,
        cost=sum(reply.cost_usd for reply in asked),
        calls=[call_body(reply) for reply in asked],
        policy_tokens=policy_tokens,
        seconds=round(seconds, 6),
        trace_id=trace_id,
        topic=placed.topic if placed is not None else None,
        topic_share=placed.share if placed is not None else None,
        unlike=placed.is_unlike if placed is not None else None,
    )


def call_body(reply: Reply) -> CallBody:
    """One call as clients see it."""
    return CallBody(
        model=reply.model,
        cost=reply.cost_usd,
        seconds=round(reply.latency_s, 6),
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        retries=reply.retries,
        failure=reply.failure,
        recorded=reply.cached,
    )


def stopped_at(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of `stops`."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def first_tokens(text: str, limit: int) -> str:
    """The beginning of `text`, by the estimate of `pool.pricing.tokens_by_length`.

    >>> first_tokens("Paris, in France", 2), first_tokens("é" * 5, 1), first_tokens("Paris", 2)
    ('Paris, i', 'éé', 'Paris')
    """
    return text.encode()[: TOKEN_BYTES * limit].decode(errors="ignore")
