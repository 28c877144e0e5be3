"""A simulated pool: made-up candidates, so that everything runs without a key and a network.

This is a simulation. The questions and their right answers are real. A hash of (seed, candidate, fact)
decides which facts a candidate knows, how fast it is and what it costs. A candidate answers a question of
one fact with the accuracy of its topic, and almost never a question of several facts asked whole. The
same question always gets the same reply, as from a real model at temperature 0.
"""

import asyncio
import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from routerr1.matching import normalise
from routerr1.pool.base import Call, GroundTruth, Pool
from routerr1.pool.names import TRAINING_NAMES, UNSEEN_NAMES
from routerr1.simulation.candidates import Candidate, card_of, wide_candidates
from routerr1.simulation.facts import Fact
from routerr1.types import Card, Reply

LATENCY_SIGMA = 0.6  # of the log of seconds
WHOLE_ACCURACY = 0.03  # on a question of several facts
UNSURE = "I am not sure about that."
UNCLEAR = "I do not understand the question."
_UNSURE = (UNSURE, UNSURE, UNSURE, "I do not know.")
_OPENINGS = (
    ("",),
    ("Sure.", "Of course."),
    ("Good question, let me recall.", "Let me think about that."),
    ("",),
)
_REPLY_TOKENS = (10.0, 12.0, 16.0, 2.0)  # usual length, by verbosity
PROBES = (8, 20, 40, 120)  # for each topic, behind the cards of drawn pools


def training_pool(known: Mapping[str, Fact], seed: int) -> "SimulatedPool":
    """A random pool of training names."""
    return drawn_pool(known, seed, TRAINING_NAMES)


def drawn_pool(
    known: Mapping[str, Fact], seed: int, names: Sequence[str] = UNSEEN_NAMES
) -> "SimulatedPool":
    """A random pool (`wide_candidates`) whose cards show what a few random probes would have measured."""
    return profiled_pool(wide_candidates(seed, names), known, seed)


def profiled_pool(
    candidates: Sequence[Candidate],
    known: Mapping[str, Fact],
    seed: int,
    probes: int | None = None,
) -> "SimulatedPool":
    """Candidates with cards that show what `probes` random questions of each topic would have measured.

    Args:
        probes: drawn from `PROBES` if None.
    """
    rng = Random(f"cards/{seed}")
    count = rng.choice(PROBES) if probes is None else probes

    def measured(candidate: Candidate, skill: float) -> tuple[float, float]:
        """Shares of right replies, and of those that say that it is not sure."""
        knows = skill * (1 - candidate.hesitant)
        unsure = candidate.hesitant + (1 - candidate.hesitant) * (1 - skill) * candidate.unsure
        drawn = [rng.random() for _ in range(count)]
        right = sum(draw < knows for draw in drawn)
        return right / count, sum(draw < knows + unsure for draw in drawn) / count - right / count

    def card(candidate: Candidate) -> Card:
        shares = {topic: measured(candidate, skill) for topic, skill in candidate.skill.items()}
        return replace(
            card_of(candidate),
            latency_s=candidate.latency_s,
            performance={topic: right for topic, (right, _) in shares.items()},
            completion_tokens=_REPLY_TOKENS[candidate.verbosity],
            unsure={topic: unsure for topic, (_, unsure) in shares.items()},
        )

    cards = [card(each) for each in candidates]
    return SimulatedPool(candidates, known, seed=seed, cards=cards)


def count_tokens(text: str) -> int:
    """Approximate token count for billing: 4 tokens for 3 words, as usual in English."""
    return math.ceil(len(text.split()) * 4 / 3)


class SimulatedPool(Pool):
    """A pool of made-up candidates, which knows its own ground truth.

    Args:
        known: normalised question -> fact, from `known_facts`.
        sleep: wait for the latency of each call, as a server does; otherwise latency is only reported.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        known: Mapping[str, Fact],
        *,
        seed: int,
        sleep: bool = False,
        cards: Sequence[Card] | None = None,
    ) -> None:
        self._candidates = {candidate.name: candidate for candidate in candidates}
        self._known = known
        self._seed = seed
        self._sleep = sleep
        self.cards = tuple(cards) if cards is not None else tuple(map(card_of, candidates))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The made-up models behind the cards."""
        return tuple(self._candidates.values())

    def fact(self, query: str) -> Fact | None:
        """What `query` asks, if it is a question of this world."""
        return self._known.get(normalise(query))

    @property
    def ground_truth(self) -> GroundTruth:
        """The pool itself."""
        return self

    def knows(self, candidate: str, query: str) -> bool:
        """See `GroundTruth.knows`."""
        fact = self.fact(query)
        if fact is None:
            return False
        if self._hesitates(self._candidates[candidate], fact):
            return False
        skill = self._candidates[candidate].skill.get(fact.topic, 0.0)
        accuracy = skill if fact.hops == 1 else min(skill, WHOLE_ACCURACY)
        return self._uniform("knows", candidate, fact.key) < accuracy

    def _hesitates(self, candidate: Candidate, fact: Fact) -> bool:
        share = candidate.hesitant
        return share > 0 and self._uniform("hesitant", candidate.name, fact.key) < share

    def accuracy(self, candidate: str, query: str) -> float | None:
        """See `GroundTruth.accuracy`."""
        fact = self.fact(query)
        if fact is None or candidate not in self._candidates:
            return None
        asked = self._candidates[candidate]
        return asked.skill.get(fact.topic, 0.0) * (1 - asked.hesitant)

    def latency_s(self, name: str, query: str) -> float:
        """Seconds this call takes: lognormal around the candidate's median."""
        normal = statistics.NormalDist().inv_cdf(self._uniform("latency", name, query))
        return self._candidates[name].latency_s * math.exp(LATENCY_SIGMA * normal)

    def say(self, name: str, query: str) -> str:
        """The reply's text."""
        fact = self.fact(query)
        if fact is None:
            return UNCLEAR
        openings = _OPENINGS[self._candidates[name].verbosity]
        opening = openings[int(self._uniform("opening", name, fact.key) * len(openings))]
        return f"{opening} {self._claim(name, query, fact)}".strip()

    def _claim(self, name: str, query: str, fact: Fact) -> str:
        candidate = self._candidates[name]
        said = self._answer(candidate, query, fact)
        if said is None:
            return _UNSURE[candidate.verbosity]
        return said if candidate.verbosity == 3 else fact.statement.format(said)

    def _answer(self, candidate: Candidate, query: str, fact: Fact) -> str | None:
        """What it takes for the answer; None if it says that it is not sure."""
        name = candidate.name
        if self._hesitates(candidate, fact):
            return None
        if self.knows(name, query):
            return fact.answer
        wrong = [other for other in fact.distractors if other != fact.answer]
        if not wrong or self._uniform("unsure", name, fact.key) < candidate.unsure:
            return None
        return wrong[int(self._uniform("wrong", name, fact.key) * len(wrong))]

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        name, query = call.candidate, call.query
        candidate = self._candidates.get(name)
        if candidate is None:
            return Reply(name, "", failure="unknown_model")
        latency_s = self.latency_s(name, query)
        if self._sleep:
            await asyncio.sleep(latency_s)
        text = self.say(name, query)
        prompt_tokens, completion_tokens = count_tokens(query), count_tokens(text)
        cost_usd = (
            prompt_tokens * candidate.prompt_usd_per_mtok
            + completion_tokens * candidate.completion_usd_per_mtok
        ) / 1e6
        return Reply(name, text, prompt_tokens, completion_tokens, cost_usd, latency_s)

    def _uniform(self, *key: object) -> float:
        """A number in (0, 1) fixed by the seed and `key`, equal on every machine."""
        text = "|".join(map(str, (self._seed, *key)))
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        return (number + 0.5) / 2**64
