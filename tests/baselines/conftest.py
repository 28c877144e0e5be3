"""The small world of the evaluation's tests, with the matrix its candidates make."""

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from routerr1.baselines.matrix import Matrix
from routerr1.config import EmbeddedParams, RolloutParams
from routerr1.data.embedded import build_world, questions
from routerr1.evaluate.controls import Policy
from routerr1.pool.profile import profile
from routerr1.prompt import Renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Question

SIZES = EmbeddedParams(countries=20, airports=14, elements=14, test_share=0.3, validation_share=0.1)
PLAIN = Renderer(
    lambda question, cards: (
        f"{' '.join(card.name for card in cards)}\nQuestion: {question.question}\n"
    )
)


@dataclass(frozen=True)
class World:
    train: list[Question]
    test: list[Question]  # of one fact each
    pool: SimulatedPool
    known: dict[str, Any]
    matrix: Matrix
    rows: tuple[Any, ...]

    def reader(self, **changes) -> Policy:
        """A base policy that answers with the last word it has read."""
        generator = ScriptedGenerator(lambda _, inserted: _last_word(inserted))
        return self.policy(generator, **changes)

    def policy(self, generator: ScriptedGenerator, seed: int = 1) -> Policy:
        limits = RolloutParams(max_rounds=4, max_new_tokens=40, temperature=1.0)
        return Policy(seed, generator, PLAIN, limits, 0.0)


def _last_word(inserted) -> str:
    if inserted and "<information>" in inserted[-1]:
        said = inserted[-1].removesuffix("</information>").strip(" .").split()[-1]
        return f"<think> done</think><answer> {said}</answer>"
    return "unknown</answer>"


@pytest.fixture(scope="session")
def world() -> World:
    made = build_world(SIZES)
    rows = [row for row in questions(made, SIZES, seed=42) if row.hops == 1]
    known = known_facts(made)
    pool = SimulatedPool(default_candidates(), known, seed=7)
    train = [row for row in rows if row.split == "train"]
    found = asyncio.run(profile(train, pool, store=None)).rows
    names = tuple(card.name for card in pool.cards)
    by_question = [found[at : at + len(names)] for at in range(0, len(found), len(names))]
    matrix = Matrix(
        tuple(row.question for row in train),
        names,
        np.array([[cell["correct"] for cell in line] for line in by_question]),
        np.array([[cell["cost_usd"] for cell in line] for line in by_question]),
        tuple(tuple(cell["answer"] for cell in line) for line in by_question),
        tuple(line[0]["topic"] for line in by_question),
    )
    return World(train, [row for row in rows if row.split == "test"], pool, known, matrix, found)
