"""Made-up models: three pools by hand, and random ones.

Prices and latencies are of the order that hosted models had in 2025, and mean nothing more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from routerr1.data.embedded import TOPICS
from routerr1.pool.names import UNSEEN_NAMES, family_of
from routerr1.types import Card


@dataclass(frozen=True, slots=True)
class Candidate:
    """One made-up model.

    Attributes:
        skill: accuracy by topic, in [0, 1].
        latency_s: median; single calls are lognormal around it.
        verbosity: 0 states the fact, 1 adds an opening, 2 a longer one, 3 says the answer alone.
        unsure: share of the questions it does not know to which it says so; to the others it makes something up.
        hesitant: share of all questions to which it says that it is not sure.
    """

    name: str
    skill: Mapping[str, float]
    prompt_usd_per_mtok: float
    completion_usd_per_mtok: float
    latency_s: float
    verbosity: int = 0
    description: str = ""
    unsure: float = 0.5
    hesitant: float = 0.0


def default_candidates() -> tuple[Candidate, ...]:
    """The pool `specialists`: three specialists, an expensive generalist, a middling and a cheap model.

    The generalist comes first, and no candidate leads every shortlist on which it is best. An untrained
    policy prefers some places in a list, and that preference alone must not find the best candidate.
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
    """The pool `tiers`, in which skill has a price.

    Each topic has a good expensive candidate, and one at a tenth of the price that is nearly as good or
    much worse. One more candidate is cheap and weak everywhere.
    """
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


def middling_candidates() -> tuple[Candidate, ...]:
    """The pool `middling`, in which the best of each topic knows .6 to .8, and asking again pays.

    What one candidate knows does not depend on what another knows. Half of what they do not know they
    say they do not.
    """
    return (
        Candidate("Goliath", _skill(0.55), 1.0, 3.0, 1.5, 2, "large general model"),
        Candidate("Penny", _skill(0.45), 0.05, 0.2, 0.2, 0, "smallest and cheapest model"),
        Candidate("Mint", _skill(0.5, money=0.8, telephony=0.7), 0.3, 0.8, 0.5, 0,
                  "finance and communications"),
        Candidate("Scout", _skill(0.5, aviation=0.6, history=0.65), 0.1, 0.4, 0.3, 0,
                  "small model for travel and history"),
        Candidate("Atlas", _skill(0.5, geography=0.75, aviation=0.7), 0.2, 0.6, 0.4, 0,
                  "places, borders and travel"),
        Candidate("Curie", _skill(0.5, chemistry=0.6, history=0.8), 0.3, 0.9, 0.7, 1,
                  "science and its history"),
    )  # fmt: skip


def candidates_of(kind: str) -> tuple[Candidate, ...]:
    """The training pool of `pool.candidates`: `specialists`, `tiers` or `middling`."""
    pools = {
        "specialists": default_candidates,
        "tiers": tiered_candidates,
        "middling": middling_candidates,
    }
    return pools[kind]()


def measured_candidates(cards: Sequence[Card]) -> tuple[Candidate, ...]:
    """Stand-ins for real candidates, as good as profiling measured them to be."""
    return tuple(
        Candidate(
            card.name, card.performance, card.prompt_usd_per_mtok, card.completion_usd_per_mtok, 0.0
        )
        for card in cards
    )


def drawn_candidates(
    seed: int,
    names: Sequence[str] = UNSEEN_NAMES,
    count: int = 6,
    generalist_share: float = 1.0,
) -> tuple[Candidate, ...]:
    """A random pool like `specialists`: skills and prices are drawn.

    Every topic has one candidate with accuracy 0.95. One candidate is cheap and weak; in
    `generalist_share` of all pools one is expensive and middling everywhere. Names are of different
    families.

    Raises: ValueError if `count` is under 3 or above the number of families in `names`.
    """
    rng = Random(f"pool/{seed}")
    families = {family_of(name): name for name in rng.sample(list(names), len(names))}
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


def extreme_candidates(seed: int, names: Sequence[str] = UNSEEN_NAMES) -> tuple[Candidate, ...]:
    """A model that is better than all others everywhere, and one that is good for nothing."""
    taken = {each.name for each in drawn_candidates(seed, names)}
    better, worse = [name for name in names if name not in taken][:2]
    return (
        Candidate(better, _skill(0.99), 0.5, 1.5, 0.8, 0, "newest model"),
        Candidate(worse, _skill(0.05), 0.02, 0.1, 0.2, 1, "oldest model"),
    )


def wide_candidates(
    seed: int, names: Sequence[str] = UNSEEN_NAMES, count: int | None = None
) -> tuple[Candidate, ...]:
    """A pool of any size and shape, so that only reading the figures helps.

    Sizes are 2 to 25, the best of a topic knows .4 to .98 of its facts, and the next one is at least .02 behind.
    Prices rise with skill in some pools, fall in others, and mean nothing in most; order means nothing.

    Raises: ValueError if there are too few names.
    """
    rng = Random(f"wide/{seed}")
    if count is None:
        count = min(len(names), round(2 * 12.5 ** rng.random()))
    if count > len(names):
        raise ValueError(f"a pool of {count} candidates needs as many names, not {len(names)}")
    skills: list[dict[str, float]] = [{} for _ in range(count)]
    leader = rng.randrange(count) if rng.random() < 0.2 else None  # one is the best at everything
    for topic in TOPICS:
        best = rng.uniform(0.4, 0.98)
        gap = min(best, 0.02 * 25 ** rng.random() if rng.random() < 0.5 else rng.uniform(0.3, 0.7))
        order = rng.sample(range(count), count)
        if leader is not None:
            order.remove(leader)
            order.insert(0, leader)
        floor = rng.uniform(0.0, best - gap) * rng.random()
        for place, which in enumerate(order):
            skills[which][topic] = (
                best if place == 0 else rng.uniform(floor, max(floor, best - gap))
            )
    worth = rng.choice([0.0, 0.0, 1.0, -1.0])
    pool = []
    for name, skill in zip(rng.sample(list(names), count), skills, strict=True):
        mean = sum(skill.values()) / len(skill)
        scale = rng.random() if worth == 0 else 0.5 + worth * (mean - 0.5) + rng.uniform(-0.1, 0.1)
        price = 0.05 * 100 ** min(1.0, max(0.0, scale))
        pool.append(
            Candidate(
                name, skill, float(f"{price / 3:.2g}"), float(f"{price:.2g}"),
                round(rng.uniform(0.2, 1.5), 1), rng.randrange(4), "drawn at random",
                unsure=rng.choice([0.0, 0.5, 1.0]),
                hesitant=rng.choice([0.0] * 9 + [0.5]),
            )
        )  # fmt: skip
    return tuple(pool)


def _skill(elsewhere: float, **topics: float) -> dict[str, float]:
    return {topic: topics.get(topic, elsewhere) for topic in TOPICS}


def card_of(candidate: Candidate) -> Card:
    """The card before profiling: name, description and prices."""
    return Card(
        name=candidate.name,
        description=candidate.description,
        prompt_usd_per_mtok=candidate.prompt_usd_per_mtok,
        completion_usd_per_mtok=candidate.completion_usd_per_mtok,
    )
