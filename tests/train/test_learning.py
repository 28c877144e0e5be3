"""What is learnt comes from the rewards: the same training with rewards dealt out at random learns nothing."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.pool.simulated import SimulatedPool
from routerr1.prompt import renderer
from routerr1.train import grpo
from routerr1.train.setting import Setting, Task
from routerr1.types import Question


@pytest.fixture
def setting(params: Params, world: World, pool: SimulatedPool, rows: list[Question]) -> Setting:
    """Every second entity counts as right for every question: a few steps suffice to learn such names."""
    names = sorted(name for names in world.entities.values() for name in names)
    tasks = [Task(replace(row, golden_answers=tuple(names[::2])), pool) for row in rows]
    changed = {
        "steps": 14, "questions_per_step": 6, "rollouts_per_question": 8, "learning_rate": 4e-3,
        "validate_every": 14, "checkpoint_every": 100,
    }  # fmt: skip
    return Setting(
        tasks=[task for task in tasks if task.question.split == "train"],
        validation=[task for task in tasks if task.question.split == "validation"][:16],
        names=[],
        render=renderer("compact", params.rollout.max_rounds),
        rollout=params.rollout.model_copy(update={"temperature": 0.7}),
        reward=params.reward,
        train=params.train.model_copy(update=changed),
        seed=1,
    )


@pytest.mark.parametrize("dealing", [None, 1, 2], ids=["true", "dealt-1", "dealt-2"])
def test_em_rises_by_the_rewards_alone(
    dealing: int | None,
    asking_policy: Path,
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if dealing is not None:
        rng = Random(dealing)

        def deal(prompts: list[str], reward: list[float], **_: Any) -> list[float]:
            assert len(reward) == len(prompts)
            return rng.sample(reward, len(reward))

        monkeypatch.setattr(grpo, "_reward", deal)
    rows = grpo.train(asking_policy, setting, tmp_path, progress=lambda _: None).rows
    before, after = (sum(row["em"] for row in part) / 4 for part in (rows[:4], rows[-4:]))
    greedy = rows[-1]["validation/em"]
    assert before < 0.2
    if dealing is None:
        assert (after > 0.5, greedy > 0.9) == (True, True)
    else:  # sampled EM drifts up and down; naming any entity at all is right half of the time
        assert (after < 0.4, greedy < 0.1) == (True, True)
