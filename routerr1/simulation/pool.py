"""A simulated pool: candidates that are made up, so that everything runs with no key and no network.

This is a simulation. The questions and their right answers are real; who knows which of them, how fast
and at what price, is decided here by a hash of (seed, candidate, fact). A candidate answers a question
of one fact with the accuracy of its topic and a question of several facts asked whole almost never. As
with a real model at temperature 0, the same question always gets the same reply. Prices and latencies
are of the order that hosted models had in 2025, and mean nothing more.
"""

import asyncio
import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

from routerr1.data.embedded import TOPICS, World
from routerr1.matching import normalise
from routerr1.types import Card, Reply

LATENCY_SIGMA = 0.6  # of the log of seconds
WHOLE_ACCURACY = 0.03  # on a question of several facts
UNSURE = "I am not sure about that."
UNCLEAR = "I do not understand the question."
_OPENINGS = (
    ("",),
    ("Sure.", "Of course."),
    ("Good question, let me recall.", "Let me think about that."),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One made-up model.

    Attributes:
        skill: accuracy by topic, in [0, 1].
        latency_s: median; single calls are lognormal around it.
        verbosity: 0 states the fact, 1 adds an opening, 2 a longer one.
    """

    name: str
    skill: Mapping[str, float]
    prompt_usd_per_mtok: float
    completion_usd_per_mtok: float
    latency_s: float
    verbosity: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a question asks: its topic, the sentence that answers it with `{}` for the answer, and the
    wrong answers a candidate that does not know may give."""

    key: str
    topic: str
    statement: str
    answer: str
    distractors: tuple[str, ...]
    hops: int = 1


def default_candidates() -> tuple[Candidate, ...]:
    """The training pool: three specialists, a dear generalist, a middling one and a cheap one.

    The generalist comes first and nobody is the first of a shortlist everywhere he is best: by place alone,
    which a policy has a liking for before it has learnt anything, calls would not go to the best.
    """
    return (
        Candidate("Goliath", _skill(0.65), 1.0, 3.0, 1.5, 2, "large general model"),
        Candidate("Penny", _skill(0.3, geography=0.6, chemistry=0.6), 0.05, 0.2, 0.2, 0,
                  "smallest and cheapest model"),
        Candidate("Mint", _skill(0.25, money=0.95, telephony=0.95), 0.3, 0.8, 0.5, 0,
                  "finance and communications"),
        Candidate("Scout", _skill(0.3, aviation=0.6, history=0.6), 0.1, 0.4, 0.3, 0,
                  "small model for travel and history"),
        Candidate("Atlas", _skill(0.25, geography=0.95, aviation=0.95), 0.2, 0.6, 0.4, 0,
                  "places, borders and travel"),
        Candidate("Curie", _skill(0.25, chemistry=0.95, history=0.95), 0.3, 0.9, 0.7, 1,
                  "science and its history"),
    )  # fmt: skip


def tiered_candidates() -> tuple[Candidate, ...]:
    """A pool in which skill has its price: for each topic one dear candidate that is good, one at a tenth of
    the price that is nearly as good or much worse, and one that is cheap and weak everywhere."""
    return (
        Candidate("Penny", _skill(0.35), 0.05, 0.1, 0.2, 0, "smallest and cheapest model"),
        Candidate("Scout", _skill(0.25, geography=0.9, aviation=0.8, history=0.65), 0.1, 0.3,
                  0.3, 0, "small model for places and their past"),
        Candidate("Goliath", _skill(0.65), 1.0, 3.0, 1.5, 2, "large general model"),
        Candidate("Mint", _skill(0.25, money=0.95, telephony=0.95, chemistry=0.95), 1.0, 3.0,
                  0.9, 0, "large model for finance, communications and science"),
        Candidate("Atlas", _skill(0.25, geography=0.95, aviation=0.95, history=0.95), 1.0, 3.0,
                  0.9, 0, "large model for places and their past"),
        Candidate("Curie", _skill(0.25, money=0.9, telephony=0.8, chemistry=0.65), 0.1, 0.3,
                  0.3, 0, "small model for finance, communications and science"),
    )  # fmt: skip


def candidates_of(kind: str) -> tuple[Candidate, ...]:
    """The training pool that `pool.candidates` names: `specialists` or `tiers`."""
    return {"specialists": default_candidates, "tiers": tiered_candidates}[kind]()


_FAMILIES = ("Atlas", "Mint", "Curie", "Goliath", "Scout", "Penny", "Basil", "Cobra", "Drake", "Fargo", "Gecko",
             "Hawk", "Iris", "Jasper", "Koala", "Lotus", "Mango", "Nimbus", "Otter", "Piper", "Raven", "Sirius",
             "Tango", "Umbra")  # fmt: skip
_VARIANTS = ("Arc", "Bay", "Cove", "Dune", "Elm", "Fen", "Glen", "Hill", "Isle", "Jade", "Knoll",
             "Lake")  # fmt: skip


def _names(held_out: bool) -> tuple[str, ...]:
    """Family and variant, as real models are named; one pair in six is held out, each part in other pairs."""
    return tuple(
        family + variant
        for i, family in enumerate(_FAMILIES)
        for j, variant in enumerate(_VARIANTS)
        if ((i + j) % 6 == 0) is held_out
    )


TRAINING_NAMES = (*_FAMILIES[:6], *_names(held_out=False))  # the default pool among them
UNSEEN_NAMES = _names(held_out=True)


def training_pool(known: Mapping[str, Fact], seed: int) -> "SimulatedPool":
    """A drawn pool of training names. Half have no generalist: with one in every pool, calling it for
    everything is learnt before anyone's figures are compared."""
    return drawn_pool(known, seed, TRAINING_NAMES, generalist_share=0.5)


def drawn_pool(
    known: Mapping[str, Fact],
    seed: int,
    names: Sequence[str] = UNSEEN_NAMES,
    generalist_share: float = 1.0,
) -> "SimulatedPool":
    """A pool of drawn candidates whose cards say what 20 probes a topic would, by chance, have shown."""
    rng = Random(f"cards/{seed}")
    candidates = drawn_candidates(seed, names, generalist_share=generalist_share)
    cards = [
        replace(
            _card(each),
            latency_s=each.latency_s,
            performance={
                t: sum(rng.random() < a for _ in range(20)) / 20 for t, a in each.skill.items()
            },
        )
        for each in candidates
    ]
    return SimulatedPool(candidates, known, seed=seed, cards=cards)


def drawn_candidates(
    seed: int,
    names: Sequence[str] = UNSEEN_NAMES,
    count: int = 6,
    generalist_share: float = 1.0,
) -> tuple[Candidate, ...]:
    """A random pool in the image of the default one: who is good at what, and the prices, are redrawn.

    Every topic has one candidate at 0.95; one is cheap and weak, and in `generalist_share` of pools one is
    dear and middling everywhere. Names are of different families.
    Raises: ValueError if `count` is under 3 or above the number of families in `names`.
    """
    rng = Random(f"pool/{seed}")
    families = {_family(name): name for name in rng.sample(list(names), len(names))}
    if not 3 <= count <= len(families):
        raise ValueError(
            f"count is {count}, must be from 3 to the {len(families)} families of names"
        )
    chosen = rng.sample(sorted(families.values()), count)
    generalist = rng.random() < generalist_share
    topics = rng.sample(TOPICS, len(TOPICS))
    specialists = chosen[: count - 1 - generalist]
    best: dict[str, list[str]] = {name: [] for name in specialists}
    for place, topic in enumerate(topics):
        best[specialists[place % len(specialists)]].append(topic)
    pool = [
        Candidate(
            name, _skill(0.25, **dict.fromkeys(mine, 0.95)), 0.3, round(rng.uniform(0.4, 1.2), 1),
            round(rng.uniform(0.3, 0.9), 1), rng.randrange(2), f"knows {' and '.join(sorted(mine))}",
        )
        for name, mine in best.items()
    ]  # fmt: skip
    if generalist:
        pool.append(Candidate(chosen[-2], _skill(0.65), 1.0, 3.0, 1.5, 2, "large general model"))
    pool.append(
        Candidate(chosen[-1], _skill(0.35), 0.05, 0.2, 0.2, 0, "smallest and cheapest model")
    )
    rng.shuffle(pool)
    return tuple(pool)


def _family(name: str) -> str:
    return next((family for family in _FAMILIES if name.startswith(family)), name)


def _skill(elsewhere: float, **topics: float) -> dict[str, float]:
    return {topic: topics.get(topic, elsewhere) for topic in TOPICS}


def known_facts(world: World) -> dict[str, Fact]:
    """Every question of the world, in every phrasing and normalised, to what it asks."""
    known: dict[str, Fact] = {}
    for chain in world.chains():
        outer = world.relations[chain[-1].relation]
        described = chain[0].subject
        for inner, _ in pairwise(chain):
            described = world.relations[inner.relation].noun.format(described)
        fact = Fact(
            key="/".join(f"{step.relation}:{step.subject}" for step in chain),
            topic=outer.topic,
            statement=outer.statement.format(described, "{}"),
            answer=world.facts[chain[-1]],
            distractors=world.entities[outer.object],
            hops=len(chain),
        )
        for phrasing in range(len(outer.phrasings)):
            known[normalise(world.phrase(chain, phrasing))] = fact
    return known


def count_tokens(text: str) -> int:
    """A rough count for billing: 4 tokens for every 3 words, as is usual for English."""
    return math.ceil(len(text.split()) * 4 / 3)


class SimulatedPool:
    """The `Pool` interface over made-up candidates.

    Args:
        known: normalised question -> fact, from `known_facts`.
        sleep: wait as long as the latency says (a server does); otherwise it is only reported.
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
        self._cards = tuple(cards) if cards is not None else tuple(map(_card, candidates))

    @property
    def cards(self) -> tuple[Card, ...]:
        """Names, descriptions and prices; what a candidate is good at is for profiling to find out."""
        return self._cards

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The made-up models behind the cards."""
        return tuple(self._candidates.values())

    def fact(self, query: str) -> Fact | None:
        """What `query` asks, if it is a question of this world."""
        return self._known.get(normalise(query))

    def knows(self, name: str, query: str) -> bool:
        """Ground truth for controls: would this candidate answer right?"""
        fact = self.fact(query)
        if fact is None:
            return False
        skill = self._candidates[name].skill.get(fact.topic, 0.0)
        accuracy = skill if fact.hops == 1 else min(skill, WHOLE_ACCURACY)
        return self._uniform("knows", name, fact.key) < accuracy

    def is_best(self, name: str, query: str) -> bool | None:
        """Ground truth: has nobody here a higher accuracy on the query's topic? None: it has no topic."""
        fact = self.fact(query)
        if fact is None:
            return None
        skill = {each.name: each.skill.get(fact.topic, 0.0) for each in self.candidates}
        return skill[name] == max(skill.values())

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
        if self.knows(name, query):
            return fact.statement.format(fact.answer)
        wrong = [other for other in fact.distractors if other != fact.answer]
        if not wrong or self._uniform("unsure", name, fact.key) < 0.5:
            return UNSURE
        return fact.statement.format(
            wrong[int(self._uniform("wrong", name, fact.key) * len(wrong))]
        )

    async def ask(self, name: str, query: str) -> Reply:
        """See `Pool.ask`."""
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

    async def aclose(self) -> None:
        """Nothing to release."""

    def _uniform(self, *key: object) -> float:
        """A number in (0, 1) fixed by the seed and `key`, equal on every machine."""
        text = "|".join(map(str, (self._seed, *key)))
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        return (number + 0.5) / 2**64


def _card(candidate: Candidate) -> Card:
    return Card(
        name=candidate.name,
        description=candidate.description,
        prompt_usd_per_mtok=candidate.prompt_usd_per_mtok,
        completion_usd_per_mtok=candidate.completion_usd_per_mtok,
    )
