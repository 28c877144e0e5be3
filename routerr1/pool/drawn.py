"""Pools drawn from recorded candidates: other names, other prices, cards from a few recorded probes.

What the candidates say is what they said; only what is shown of them is drawn. A policy that plays
on another drawn pool for every question has to read the cards, since no name means the same model
twice.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from routerr1.errors import PoolError
from routerr1.pool.base import Pool, PoolWrapper
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import contains_gold, topic_of
from routerr1.pool.recorded import RecordedPool, StoredReply
from routerr1.types import Card, Question

SIZES = (3, 8)  # fewest and most candidates of a drawn pool
OUTAGES = 0.3  # share of drawn pools in which candidates are down
PROBES = (8, 20, 40, 120)
PRICE_FACTORS = (0.3, 3.0)


@dataclass(frozen=True, slots=True)
class _Probe:
    topic: str
    reply: StoredReply
    right: bool


class DrawnPools:
    """Draws pools from the candidates that `pool` shows.

    Args:
        pool: its candidates answer for the drawn ones; it stays open as long as they are called.
        probes: questions that cards are made from; those without a reply of every candidate are
            left out.

    Raises: PoolError if no question has a reply of every candidate, or `pool` shows fewer than
        three.
    """

    def __init__(self, pool: RecordedPool, probes: Sequence[Question]) -> None:
        self._pool = pool
        names = [card.name for card in pool.cards]
        if len(names) < SIZES[0]:
            raise PoolError(f"pools are drawn from {SIZES[0]} candidates or more, not {len(names)}")
        self._probes: list[Mapping[str, _Probe]] = []
        for question in probes:
            replies = {name: pool.store.find(name, question.question) for name in names}
            found = {
                name: _Probe(
                    topic_of(question),
                    reply,
                    contains_gold(reply.text, question.golden_answers) == 1.0,
                )
                for name, reply in replies.items()
                if reply is not None
            }
            if len(found) == len(names):
                self._probes.append(found)
        if not self._probes:
            raise PoolError(f"{pool.store.path}: no probe question has a reply of every candidate")

    def draw(self, names: Sequence[str], seed: int) -> PerturbedPool:
        """The pool of a seed, with candidates under names drawn from `names`; equal seeds draw equal pools."""
        rng = Random(f"recorded/{seed}")
        behind = rng.sample(
            self._pool.cards, rng.randint(SIZES[0], min(SIZES[1], len(self._pool.cards)))
        )
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


def with_outages(pool: Pool, seed: int) -> Pool:
    """`pool`, in `OUTAGES` of all seeds with one or two candidates that do not answer; one always does.

    Candidates that lead a topic are drawn first: an outage of one that no question would be sent to teaches nothing.
    """
    rng = Random(f"outages/{seed}")
    if rng.random() >= OUTAGES or len(pool.cards) < 2:
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


def _card(name: str, real: Card, probes: Sequence[_Probe], rng: Random) -> Card:
    by_topic: dict[str, list[bool]] = defaultdict(list)
    for probe in probes:
        by_topic[probe.topic].append(probe.right)
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
        latency_s=statistics.median(probe.reply.latency_s for probe in probes),
        prompt_tokens=round(statistics.fmean(probe.reply.prompt_tokens for probe in probes), 1),
        completion_tokens=round(
            statistics.fmean(probe.reply.completion_tokens for probe in probes), 1
        ),
        performance={
            topic: round(statistics.fmean(right), 3) for topic, right in sorted(by_topic.items())
        },
    )
