"""Learning comes from the rewards: the same training with shuffled rewards learns nothing."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from routerr1.config import Params
from routerr1.data.embedded import TOPICS, World
from routerr1.prompt import renderer
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.train.context import Task, TrainingContext
from routerr1.types import Question
from tests.train.scorers import shuffled

pytestmark = pytest.mark.slow


@pytest.fixture
def context(
    params: Params, world: World, pool: SimulatedPool, rows: list[Question]
) -> TrainingContext:
    """Candidates that know everything: to ask one and to refer to its reply is all there is to learn."""
    able = [replace(each, skill=dict.fromkeys(TOPICS, 1.0)) for each in default_candidates()]
    cards = [replace(card, performance=dict.fromkeys(TOPICS, 1.0)) for card in pool.cards]
    knowing = SimulatedPool(able, known_facts(world), seed=7, cards=cards)
    tasks = [Task(row, knowing) for row in rows if row.hops == 1]
    changed = {
        "steps": 20, "questions_per_step": 6, "rollouts_per_question": 8, "learning_rate": 4e-3,
        "validate_every": 20, "checkpoint_every": 100,
    }  # fmt: skip
    return TrainingContext(
        tasks=[task for task in tasks if task.question.split == "train"],
        validation=[task for task in tasks if task.question.split == "validation"][:16],
        names=[],
        render=renderer("compact", params.rollout.max_rounds),
        rollout=params.rollout.model_copy(update={"temperature": 0.7, "max_new_tokens": 24}),
        reward=params.reward,
        train=params.train.model_copy(update=changed),
        seed=1,
    )


def test_em_rises_by_the_rewards_alone(
    calling_policy: Path, context: TrainingContext, tmp_path: Path
) -> None:
    """Rewards dealt out at random unlearn what the warm start taught."""
    before, after, greedy = trained(calling_policy, context, tmp_path / "true")
    assert (after > before + 0.05, greedy > 0.8) == (True, True)
    for dealing in (1, 2):
        dealt = replace(context, scorer=shuffled(dealing))
        before, after, greedy = trained(calling_policy, dealt, tmp_path / f"dealt-{dealing}")
        assert (after < before - 0.15, greedy < 0.6) == (True, True)


def trained(start: Path, context: TrainingContext, folder: Path) -> tuple[float, float, float]:
    """Sampled EM of the first and of the last four steps, and greedy EM at the end."""
    rows = grpo.train(start, context, folder, progress=lambda _: None).rows
    first, last = (fmean(row["em"] for row in part) for part in (rows[:4], rows[-4:]))
    return first, last, rows[-1]["validation/em"]
