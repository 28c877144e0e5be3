"""Scripted trajectories on simulated pools: valid format, random routing, no facts.

A scripted policy answers embedded questions through the one rollout loop, on a random pool each. It
quotes the shortlist of the topic, picks from it at random, usually splits a question of several facts,
and mostly continues until the last part has a reply. The pool replies with random entities. A policy can
learn the protocol, the phrasing and order of sub-questions, and to copy figures, names and answers. It
cannot learn that a higher figure is better, or any fact.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from routerr1.config import RolloutParams
from routerr1.data.embedded import TOPICS, World
from routerr1.pool.names import TRAINING_NAMES, UNSEEN_NAMES
from routerr1.prompt import Renderer, shortlist, shortlisted
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout, stream_seed
from routerr1.simulation.candidates import Candidate
from routerr1.simulation.facts import Fact
from routerr1.simulation.pool import UNSURE, SimulatedPool, training_pool
from routerr1.types import Card, Question, Trajectory

DONE = "done"
WHOLE_SHARE = 0.15  # of calls for a question of several facts
CARDS_SHARED = (
    8  # demonstrations in a row with the same cards; the warm start packs them into one row
)


@dataclass(frozen=True, slots=True)
class ScriptedDemonstrations:
    """See `Demonstrations`.

    Attributes:
        questions: of all splits, so that their names occur, in sentences that state no fact.
        known: facts of `world` by question.
        names: that some of the cards carry: those of the pool's candidates, if training calls them.
        seed: decides the cards.
    """

    questions: Sequence[Question]
    world: World
    known: Mapping[str, Fact]
    names: Sequence[str]
    render: Renderer
    rollout: RolloutParams
    stop_probability: float
    seed: int

    def draw(self, seed: int, count: int, *, first: int = 0) -> Iterator[tuple[str, Trajectory]]:
        """See `Demonstrations.draw`."""

        def cards_of(place: int) -> Sequence[Card]:
            return drawn_cards(self.names, self.known, self.seed, first + place)

        return demonstrations(
            self.questions, self.world, self.known, cards_of,
            render=self.render, params=self.rollout, stop_probability=self.stop_probability,
            seed=seed, count=count,
        )  # fmt: skip

    def vocabulary(self) -> Iterator[str]:
        """See `Demonstrations.vocabulary`."""
        for question in self.questions:
            yield f" {question.question}"
        for names in self.world.entities.values():
            yield from (f" {name}" for name in names)
        yield from (f" {name}" for name in (*TRAINING_NAMES, *UNSEEN_NAMES))
        yield from (f" {figure}" for figure in range(0, 101, 5))


def demonstrations(
    questions: Sequence[Question],
    world: World,
    known: Mapping[str, Fact],
    cards_of: Callable[[int], Sequence[Card]],
    *,
    render: Renderer,
    params: RolloutParams,
    stop_probability: float,
    seed: int,
    count: int,
) -> Iterator[tuple[str, Trajectory]]:
    """`count` prompts with the trajectory that follows; equal arguments give equal ones.

    Args:
        cards_of: the cards of the n-th demonstration: names to call, and what the prompt shows.
    """
    rng = Random(f"imitated/{seed}")
    entities = frozenset(name for names in world.entities.values() for name in names)
    for number in range(count):
        question = rng.choice(questions)
        cards = cards_of(number)
        script = _script(
            question, cards, entities, stop_probability, params.max_rounds,
            Random(rng.random()),
        )  # fmt: skip
        guessing = [
            Candidate(card.name, dict.fromkeys(TOPICS, 0.0), 0, 0, 0.0, rng.randrange(3))
            for card in cards
        ]
        pool = SimulatedPool(guessing, known, seed=number, cards=cards)
        trajectory = rollout(
            question, ScriptedGenerator(script), pool, render=render, params=params, seed=0
        )
        yield render(question, cards), asyncio.run(trajectory)


def drawn_cards(
    names: Sequence[str], known: Mapping[str, Fact], seed: int, number: int
) -> Sequence[Card]:
    """Cards of a random pool, equal in each `CARDS_SHARED` demonstrations; every fourth set has `names`.

    The pool's own cards are never shown, since a policy recites what it sees often. A name that it never
    meets is hardly ever written, and training would begin with a preference among its candidates.
    """
    row = number // CARDS_SHARED
    drawn = training_pool(known, stream_seed(seed, row)).cards
    if row % 4:
        return drawn
    rng = Random(f"names/{seed}/{row}")
    count = len(drawn)
    met = rng.sample(names, len(names))[:count]
    # Names that always came first could be recognised by their places.
    places = range(count) if len(met) == count else rng.sample(range(count), len(met))
    given = dict(zip(places, met, strict=True))
    return [
        replace(card, name=given.get(place, card.name))
        for place, card in enumerate(drawn)
        if place in given or card.name not in names
    ]


def _script(
    question: Question,
    cards: Sequence[Card],
    entities: frozenset[str],
    stop_probability: float,
    max_rounds: int,
    rng: Random,
) -> Callable[[str, Sequence[str]], str]:
    """The next generation from what was inserted so far."""
    steps = question.metadata["steps"]
    topics = question.metadata["topics"]
    bridge: str | None = None
    asked = -1  # the part asked last; the number of parts if the question was asked whole
    last = UNSURE

    def say(_: str, inserted: Sequence[str]) -> str:
        nonlocal bridge, asked, last
        finished = False
        if inserted:
            found = _named(inserted[-1], entities)
            last = found or last
            finished = found is not None and asked >= len(steps) - 1
            if asked == 0 and found:
                bridge = found
        stop = stop_probability if finished else 1 - stop_probability
        if len(inserted) >= max_rounds or (inserted and rng.random() < stop):
            return f"<think> {DONE}</think><answer> {_said(last)}</answer>"
        asked = _next_part(len(steps), bridge is not None, rng)
        query = question.question if asked == len(steps) else steps[asked].format(bridge)
        topic = topics[min(asked, len(steps) - 1)]
        name = rng.choice(shortlisted(topic, cards) or cards).name
        return f"<think>{shortlist(topic, cards)}: {name}</think><search> {name}: {query}</search>"

    return say


def _next_part(parts: int, bridged: bool, rng: Random) -> int:
    """The next part to ask for; `parts` itself means the whole question, which candidates rarely know."""
    if parts == 1:
        return 0
    if rng.random() < WHOLE_SHARE:
        return parts
    return 1 if bridged else 0


def _said(last: str) -> str:
    return "unknown" if last == UNSURE else last


def _named(inserted: str, entities: frozenset[str]) -> str | None:
    """The answer in a reply: the last entity that it names, unless the reply is unsure."""
    words = [word.strip(".,?") for word in inserted.strip().removesuffix("</information>").split()]
    if UNSURE in inserted:
        return None
    return next((word for word in reversed(words) if word in entities), None)
