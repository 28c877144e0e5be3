"""Scripted trajectories on simulated pools: valid format, random routing, no facts.

A scripted policy answers embedded questions through the one rollout loop, on a random pool each. It looks
up the topic, draws one of the shown candidates, and names a figure to which that candidate's is the nearest
(`notation.aimed_at`). It usually splits a question of several facts, and mostly continues until the last
part has a reply. The pool replies with random entities, says that it is not sure, or is down. A policy can
learn the protocol, the phrasing and order of sub-questions, to call the candidate nearest to a figure, and
to refer to replies. It cannot learn that a higher figure is better, or any fact.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from routerr1.answers.short_answer import is_unsure
from routerr1.config import RolloutParams
from routerr1.data.embedded import TOPICS, World
from routerr1.data.rewording import as_typed
from routerr1.notation import SPEND_LEVELS, aimed_at, with_spend
from routerr1.pool.base import Pool
from routerr1.pool.names import TRAINING_NAMES
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.understanding import UnderstandingPool
from routerr1.prompt import Renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import FAILED, rollout
from routerr1.simulation.candidates import Candidate
from routerr1.simulation.facts import Fact
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Card, Question, Trajectory

DONE = "done"
WHOLE_SHARE = 0.1  # of calls for a question of several facts
AS_ASKED_SHARE = 0.8  # of calls for a question of one fact: sent as it is
DOWN_SHARE = 0.2  # of demonstrations in which some candidates do not answer


@dataclass(frozen=True, slots=True)
class ScriptedDemonstrations:
    """See `Demonstrations`.

    Attributes:
        questions: of all splits, so that their words occur; no sentence states a fact.
        known: facts of `world` by question.
    """

    questions: Sequence[Question]
    world: World
    known: Mapping[str, Fact]
    render: Renderer
    rollout: RolloutParams
    stop_probability: float

    def draw(self, seed: int, count: int) -> Iterator[tuple[str, Trajectory]]:
        """See `Demonstrations.draw`."""
        return demonstrations(
            self.questions, self.known, render=self.render, params=self.rollout,
            stop_probability=self.stop_probability, seed=seed, count=count,
        )  # fmt: skip

    def vocabulary(self) -> Iterator[str]:
        """See `Demonstrations.vocabulary`."""
        for question in self.questions:
            yield f" {question.question}"
        for names in self.world.entities.values():
            yield from (f" {name}" for name in names)


def demonstrations(
    questions: Sequence[Question],
    known: Mapping[str, Fact],
    *,
    render: Renderer,
    params: RolloutParams,
    stop_probability: float,
    seed: int,
    count: int,
) -> Iterator[tuple[str, Trajectory]]:
    """`count` prompts with the trajectory that follows; equal arguments give equal ones.

    Questions of other sources, such as feedback, do not say by which steps they are answered, and are left out.
    """
    questions = [question for question in questions if "steps" in question.metadata]
    rng = Random(f"imitated/{seed}")
    for number in range(count):
        worded = as_typed(rng.choice(questions), rng)
        question, level = worded.question, rng.randint(0, SPEND_LEVELS)
        pool = UnderstandingPool(_guessing_pool(known, rng, number), worded)
        script = _script(
            question, worded.fixes, stop_probability, params.max_rounds, Random(rng.random())
        )
        trajectory = rollout(
            question, ScriptedGenerator(script), pool, render=render, params=params, seed=number
        )
        # The look-ups show what level 10 shows: of one or two candidates there is little to read.
        yield render(with_spend(question, level), pool.cards), asyncio.run(trajectory)


def _guessing_pool(known: Mapping[str, Fact], rng: Random, seed: int) -> Pool:
    """A pool of candidates that know nothing and whose cards say anything."""
    names = rng.sample(TRAINING_NAMES, rng.randint(2, 6))
    guessing = [
        Candidate(name, dict.fromkeys(TOPICS, 0.0), 0, 0, 0.0, rng.randrange(4),
                  unsure=rng.choice([0.1, 0.1, 0.6]))
        for name in names
    ]  # fmt: skip
    cards = [
        Card(
            name,
            completion_usd_per_mtok=0.01 * 1000 ** rng.random(),
            performance={topic: rng.random() for topic in TOPICS},
        )
        for name in names
    ]
    pool = SimulatedPool(guessing, known, seed=seed, cards=cards)
    if rng.random() >= DOWN_SHARE:
        return pool
    return PerturbedPool(
        pool, cards, down=rng.sample(names, rng.randint(1, min(2, len(names) - 1)))
    )


def _script(
    question: Question,
    fixes: Mapping[str, str],
    stop_probability: float,
    max_rounds: int,
    rng: Random,
) -> Callable[[str, Sequence[str]], str]:
    """The next generation from what was inserted so far; what is misspelt in the question stays so."""
    steps = [_as_spelt(step, fixes) for step in question.metadata["steps"]]
    topics = question.metadata["topics"]
    bridge = 0  # number of the reply to the first part; 0: there is none
    part = -1  # that was asked last; the number of parts if the question was asked whole
    replies, last = 0, 0  # number of replies, and of the one that holds the answer
    looking = False

    def say(_: str, inserted: Sequence[str]) -> str:
        nonlocal bridge, part, replies, last, looking
        if looking:
            looking = False
            aim = aimed_at(inserted[-1], rng)
            assert aim is not None  # a look-up always shows somebody
            percent, handle = aim
            return f"<think> {percent}% {handle}</think><search> {handle}: {_query(part)}</search>"
        finished = False
        if inserted:
            replies += 1
            found = not is_unsure(inserted[-1]) and not _failed(inserted[-1])
            finished = found and part >= len(steps) - 1
            if finished or not last:
                last = replies
            if found and part == 0:
                bridge = replies
        stop = stop_probability if finished else 1 - stop_probability
        if replies >= max_rounds or (inserted and rng.random() < stop):
            return f"<think> {DONE}</think><answer> @{last}</answer>"
        part = _next_part(len(steps), bridge > 0, rng)
        looking = True
        topic = topics[min(part, len(steps) - 1)]
        return f"<think> {topic}</think><search> cards: {topic}</search>"

    def _query(part: int) -> str:
        as_asked = len(steps) == 1 and rng.random() < AS_ASKED_SHARE
        if part == len(steps) or as_asked:
            return "@question"
        return str(steps[part].format(f"@{bridge}"))

    return say


def _as_spelt(step: str, fixes: Mapping[str, str]) -> str:
    """A canonical sub-question with the question's own spelling of the names in it."""
    spelt = {right: wrong for wrong, right in fixes.items()}
    return " ".join(
        word.replace(bare, spelt[bare.lower()])
        if bare.lower() in spelt and bare != bare.lower()
        else word
        for word in step.split(" ")
        for bare in [word.strip(".,?")]
    )


def _failed(inserted: str) -> bool:
    return any(why in inserted for why in FAILED.values())


def _next_part(parts: int, bridged: bool, rng: Random) -> int:
    """The next part to ask for; `parts` itself means the whole question, which candidates rarely know."""
    if parts == 1:
        return 0
    if rng.random() < WHOLE_SHARE:
        return parts
    return 1 if bridged else 0
