"""Trajectories to imitate before reinforcement learning: right form, random routing, no facts.

A scripted policy plays embedded questions through the one rollout loop, each on another drawn pool. It quotes
the shortlist of the topic it asks about, picks uniformly from it, takes a question of several facts apart
more often than not, and mostly goes on until the last part has a reply; the pool answers with random
entities. What can be learnt is the protocol, the phrasing and order of sub-questions, and to copy figures,
names and answers; not that a higher figure is better, nor any fact.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from random import Random

from routerr1.config import RolloutParams
from routerr1.data.embedded import TOPICS, World
from routerr1.prompt import Renderer, shortlist, shortlisted
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.simulation.pool import UNSURE, Candidate, Fact, SimulatedPool
from routerr1.types import Card, Question, Trajectory

DONE = "done"
WHOLE_SHARE = 0.15  # of calls for a question of several facts


def imitated(
    questions: Sequence[Question],
    world: World,
    known: dict[str, Fact],
    cards_of: Callable[[int], Sequence[Card]],
    *,
    render: Renderer,
    params: RolloutParams,
    stop_probability: float,
    seed: int,
    count: int,
) -> Iterator[tuple[str, Trajectory]]:
    """`count` prompts with the trajectory that follows; the same arguments give the same ones.

    Args:
        known: from `simulated.known_facts(world)`.
        cards_of: the cards of the n-th example: the names that may be called, and what the prompt shows.
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
        played = rollout(
            question, ScriptedGenerator(script), pool, render=render, params=params, seed=0
        )
        yield render(question, cards), asyncio.run(played)


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
    """The next part to ask for; `parts` itself asks the whole question, which candidates rarely know."""
    if parts == 1:
        return 0
    if rng.random() < WHOLE_SHARE:
        return parts
    return 1 if bridged else 0


def _said(last: str) -> str:
    return "unknown" if last == UNSURE else last


def _named(inserted: str, entities: frozenset[str]) -> str | None:
    """The answer in a reply: the last entity it names, if it states anything."""
    words = [word.strip(".,?") for word in inserted.strip().removesuffix("</information>").split()]
    if UNSURE in inserted:
        return None
    return next((word for word in reversed(words) if word in entities), None)
