"""A small world, its simulated pool, and a scripted policy that reads its questions perfectly."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from routerr1.config import EmbeddedParams, EvaluateParams, RolloutParams
from routerr1.data.embedded import World, build_world, questions
from routerr1.evaluate.controls import Policy
from routerr1.evaluate.perturbations import Perturbations, with_new_models
from routerr1.evaluate.run import Evaluation, evaluation_jobs, evaluation_of, play_all
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import profile
from routerr1.prompt import Renderer, renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.simulation.candidates import default_candidates, drawn_candidates
from routerr1.simulation.facts import known_facts, topic_in
from routerr1.simulation.pool import SimulatedPool, drawn_pool
from routerr1.types import Question

SIZES = EmbeddedParams(countries=12, airports=10, elements=10, test_share=0.3, validation_share=0.2)


@dataclass(frozen=True)
class Stage:
    """What an evaluation needs."""

    test: list[Question]
    validation: list[Question]
    pool: SimulatedPool
    policy: ScriptedGenerator
    follower: ScriptedGenerator  # asks the first candidate shown
    train: list[Question]
    world: World
    render: Renderer
    rollout: RolloutParams
    params: EvaluateParams

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates."""
        return tuple(card.name for card in self.pool.cards)

    def policies(self, generator: ScriptedGenerator) -> list[Policy]:
        """The policy of training seed 1."""
        return [Policy(1, generator, self.render, self.rollout, self.params.temperature)]


async def evaluated(stage: Stage, **playing) -> Evaluation:
    """The scripted policy with every control."""
    policies = stage.policies(stage.policy)
    jobs = evaluation_jobs(policies, stage.pool, stage.test, stage.validation, stage.params)
    return evaluation_of(await play_all(jobs, concurrency=stage.params.concurrency, **playing))


async def new_models(stage: Stage) -> Perturbations:
    """A drawn pool of its own, and two of its models beside the training pool."""
    drawn, known = drawn_candidates(1007), known_facts(stage.world)
    bare = SimulatedPool(drawn, known, seed=7)
    cards = (*stage.pool.cards, *bare.cards)
    everyone = SimulatedPool((*default_candidates(), *drawn), known, seed=7, cards=cards)
    found = await profile(stage.train[:30], PerturbedPool(everyone, bare.cards), store=None)
    return with_new_models(everyone, stage.pool.cards, found.cards, 2)


FAVOURITE = "Goliath"  # a generalist


def scripted(rows: Sequence[Question], model: str | None = FAVOURITE) -> ScriptedGenerator:
    """Asks `model` each sub-question in turn, and answers with the last word of the last reply.

    Without a `model` it asks the candidate that the prompt shows first.
    """
    steps = {row.question: row.metadata["steps"] for row in rows}

    def script(prompt: str, inserted: Sequence[str]) -> str:
        asked = steps[prompt.rsplit("Question: ", 1)[1].strip()]
        words = re.findall(r"\w+(?=\W*</information>)", inserted[-1]) if inserted else [""]
        if len(inserted) < len(asked):
            query = asked[len(inserted)].format(words[0])
            asks = model or re.findall("^- ([^:]+):", prompt, re.MULTILINE)[0]
            return f"<think> look up </think> <search>{asks}: {query}</search>"
        return f"<think> read </think> <answer>{words[0]}</answer>"

    return ScriptedGenerator(script)


def make_stage() -> Stage:
    world = build_world(SIZES)
    rows = questions(world, SIZES, seed=42)
    return Stage(
        test=[row for row in rows if row.split == "test"],
        validation=[row for row in rows if row.split == "validation"],
        pool=SimulatedPool(default_candidates(), known_facts(world), seed=7),
        policy=scripted(rows),
        follower=scripted(rows, None),
        train=[row for row in rows if row.split == "train"],
        world=world,
        render=renderer("full", 4),
        rollout=RolloutParams(max_rounds=4, max_new_tokens=40, temperature=1.0),
        params=EvaluateParams(
            split="test", max_questions=60, temperature=0.0, bootstrap=200, confidence=0.95,
            seed=5, concurrency=16, executor="local", shards=2,
        ),
    )  # fmt: skip


def drawing(world: World) -> tuple[Callable[[int], SimulatedPool], Callable[[str], str | None]]:
    """The pool of a seed, and the topic of a query."""
    known = known_facts(world)
    return partial(drawn_pool, known), partial(topic_in, known)
