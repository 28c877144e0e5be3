"""What the questions of the embedded benchmark ask, for candidates that are simulated."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from routerr1.data.embedded import World
from routerr1.matching import normalise


@dataclass(frozen=True, slots=True)
class Fact:
    """What a question asks.

    Attributes:
        statement: the sentence that answers the question, with `{}` for the answer.
        distractors: wrong answers of the same kind.
        hops: number of facts that the answer needs.
    """

    key: str
    topic: str
    statement: str
    answer: str
    distractors: tuple[str, ...]
    hops: int = 1


def known_facts(world: World) -> dict[str, Fact]:
    """Fact by normalised question, for every question of `world` in every phrasing."""
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


def statements(known: Mapping[str, Fact]) -> list[str]:
    """One sentence for each single fact, sorted: the embedded world as a corpus."""
    return sorted({f.statement.format(f.answer) for f in known.values() if f.hops == 1})


def topic_in(known: Mapping[str, Fact], query: str) -> str | None:
    """The topic of a query; None if it is no question of `known`."""
    fact = known.get(normalise(query))
    return fact.topic if fact else None
