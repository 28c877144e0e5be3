"""Pools drawn from recorded candidates: other names, other prices, cards from a few recorded probes.

What the candidates say is what they said; only what is shown of them is drawn. A policy that plays
on another drawn pool for every question has to read the cards, since no name means the same model
twice.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from routerr1.answers.short_answer import passes
from routerr1.errors import PoolError
from routerr1.pool.base import Pool, PoolWrapper
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import ProbeRow, contains_gold, passed, topic_of
from routerr1.pool.recorded import RecordedPool
from routerr1.pool.thoughts import without_thoughts
from routerr1.types import Card, Question

SIZES = (2, 8)  # fewest and most candidates of a drawn pool; of two, one is left after a first call
OUTAGES = 0.3  # share of drawn pools in which candidates are down
PROBED_OUTAGES = 0.4  # likewise: where one reply is enough, nothing else teaches to ask again
PROBES = (8, 20, 40, 120)
PRICE_FACTORS = (0.3, 3.0)


@dataclass(frozen=True, slots=True)
class Probe:
    """What a card takes of one candidate's reply to one question."""

    topic: str
    right: bool
    unsure: bool
    latency_s: float
    prompt_tokens: int
    completion_tokens: int


Probes = Sequence[Mapping[str, Probe]]
"""For each question the probe of every candidate, by name."""


def stored_probes(pool: RecordedPool, questions: Iterable[Question]) -> Probes:
    """Recorded replies to `questions`; those without a reply of every candidate are left out.

    Raises: PoolError if no question has a reply of every candidate, or `pool` shows fewer than
        two.
    """
    names = [card.name for card in pool.cards]
    if len(names) < SIZES[0]:
        raise PoolError(f"pools are drawn from {SIZES[0]} candidates or more, not {len(names)}")
    probes: list[Mapping[str, Probe]] = []
    for question in questions:
        replies = {name: pool.store.find(name, question.question) for name in names}
        found = {
            name: Probe(
                topic_of(question),
                right := contains_gold(reply.text, question.golden_answers) == 1.0,
                passes(without_thoughts(reply.text), right=right),
                reply.latency_s,
                reply.prompt_tokens,
                reply.completion_tokens,
            )
            for name, reply in replies.items()
            if reply is not None
        }
        if len(found) == len(names):
            probes.append(found)
    if not probes:
        raise PoolError(f"{pool.store.path}: no probe question has a reply of every candidate")
    return probes


def profiled_probes(rows: Iterable[ProbeRow]) -> Probes:
    """What the profile stage measured; a failed call is a wrong reply without latency and tokens."""
    probes: dict[tuple[str, str], dict[str, Probe]] = defaultdict(dict)
    for row in rows:
        probes[row["dataset"], row["question_id"]][row["candidate"]] = Probe(
            row["topic"],
            row["correct"] == 1.0,
            passed(row),
            row["latency_s"],
            row["prompt_tokens"],
            row["completion_tokens"],
        )
    return list(probes.values())


class DrawnPools:
    """Draws pools from the candidates that `pool` shows.

    Args:
        pool: its candidates answer for the drawn ones; it stays open as long as they are called.
        probes: that cards are made from; of every candidate of `pool`.
    """

    def __init__(self, pool: Pool, probes: Probes) -> None:
        self._pool = pool
        self._probes = probes

    def draw(self, names: Sequence[str], seed: int) -> PerturbedPool:
        """The pool of a seed, with candidates under names drawn from `names`; equal seeds draw equal pools."""
        rng = Random(f"recorded/{seed}")
        fewest, most = (min(size, len(self._pool.cards)) for size in SIZES)
        behind = rng.sample(self._pool.cards, rng.randint(fewest, most))
        shown = rng.sample(list(names), len(behind))
        probes = rng.sample(self._probes, min(rng.choice(PROBES), len(self._probes)))
        cards = [
            _card(name, real, [probe[real.name] for probe in probes], rng)
            for name, real in zip(shown, behind, strict=True)
        ]
        return PerturbedPool(
            self._pool,
            cards,
            {card.name: real.name for card, real in zip(cards, behind, strict=True)},
        )


def with_outages(pool: Pool, seed: int, share: float = OUTAGES) -> Pool:
    """`pool`, in `share` of all seeds with one or two candidates that do not answer; one always does.

    Candidates that lead a topic are drawn first: an outage of one that no question would be sent to teaches nothing.
    """
    rng = Random(f"outages/{seed}")
    if rng.random() >= share or len(pool.cards) < 2:
        return pool
    topics = sorted({topic for card in pool.cards for topic in card.performance})
    leaders = {
        max(pool.cards, key=lambda card: card.performance.get(topic, 0.0)).name for topic in topics
    }
    order = [*rng.sample(sorted(leaders), len(leaders))]
    down = order[: min(rng.choice((1, 2)), len(pool.cards) - 1)]
    return PerturbedPool(pool, pool.cards, down=down)


def recorded_pool(pool: Pool) -> RecordedPool:
    """The recorded pool inside its wrappers.

    Raises: PoolError if there is none.
    """
    while isinstance(pool, PoolWrapper):
        pool = pool.inner
    if not isinstance(pool, RecordedPool):
        raise PoolError("pools are drawn from a pool of kind recorded")
    return pool


def _card(name: str, real: Card, probes: Sequence[Probe], rng: Random) -> Card:
    by_topic: dict[str, list[Probe]] = defaultdict(list)
    for probe in probes:
        by_topic[probe.topic].append(probe)
    low, high = PRICE_FACTORS
    factor = low * (high / low) ** rng.random()
    return replace(
        real,
        name=name,
        aliases=(),
        description="",
        size_b=None,
        prompt_usd_per_mtok=float(f"{real.prompt_usd_per_mtok * factor:.3g}"),
        completion_usd_per_mtok=float(f"{real.completion_usd_per_mtok * factor:.3g}"),
        latency_s=statistics.median(probe.latency_s for probe in probes),
        prompt_tokens=round(statistics.fmean(probe.prompt_tokens for probe in probes), 1),
        completion_tokens=round(statistics.fmean(probe.completion_tokens for probe in probes), 1),
        performance={
            topic: round(statistics.fmean(probe.right for probe in mine), 3)
            for topic, mine in sorted(by_topic.items())
        },
        unsure={
            topic: round(statistics.fmean(probe.unsure for probe in mine), 3)
            for topic, mine in sorted(by_topic.items())
        },
    )
