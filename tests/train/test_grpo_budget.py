"""Training stops when the budget is spent, and resumes with a larger one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.errors import BudgetExceeded
from routerr1.pool.base import Call, PoolWrapper
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.types import Question, Reply, Trajectory
from tests.train.contexts import context_of

pytestmark = pytest.mark.slow


class Purse(PoolWrapper):
    """A pool whose budget can be declared spent."""

    spent = False

    async def ask(self, call: Call) -> Reply:
        if self.spent:
            raise BudgetExceeded("run r: nothing is left")
        return await self.inner.ask(call)


@pytest.mark.parametrize("step", [2, 4])
def test_a_validation_that_a_spent_budget_refused_is_made_up_for(
    calling_policy: Path, params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path,
    step: int,
) -> None:  # fmt: skip
    purse = Purse(pool)
    context = context_of(params, purse, rows)
    whole = grpo.train(calling_policy, context, tmp_path / "whole", progress=lambda _: None)
    assert [row["step"] for row in whole.rows if "validation/em" in row] == [2, 4]

    def spend(played: int, _: Sequence[Trajectory]) -> None:
        if played == step:  # what follows is its validation
            purse.spent = True

    folder = tmp_path / "run"
    for log_rollouts in (spend, lambda *_: None):
        with pytest.raises(BudgetExceeded, match=f"training stopped after step {step} and kept it"):
            grpo.train(
                calling_policy, context, folder, progress=lambda _: None, log_rollouts=log_rollouts
            )
    purse.spent = False
    seen: list[float] = []
    resumed = grpo.train(
        calling_policy, context, folder, progress=lambda row: seen.append(row["step"])
    )
    assert seen == [float(each) for each in range(step, 5)]
    assert resumed.rows == whole.rows
    assert [row["step"] for row in resumed.timing] == [1, 2, 3, 4]
    assert (resumed.best_step, resumed.best_reward) == (whole.best_step, whole.best_reward)
    weights = [path / "model.safetensors" for path in (whole.folder, resumed.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_spent_budget_stops_training_with_a_checkpoint_and_more_money_resumes_it(
    calling_policy: Path, params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path
) -> None:
    purse = Purse(pool)
    train = params.train.model_copy(update={"checkpoint_every": 4})
    context = context_of(params, purse, rows, train=train)
    whole = grpo.train(calling_policy, context, tmp_path / "whole", progress=lambda _: None)
    assert len(whole.rows) == 4

    def spend(row: dict[str, float]) -> None:
        if row["step"] == 3:
            purse.spent = True

    folder = tmp_path / "run"
    with pytest.raises(
        BudgetExceeded, match="nothing is left; training stopped after step 3 and kept it"
    ):
        grpo.train(calling_policy, context, folder, progress=spend)
    assert (folder / "checkpoint-3" / "router_state.json").is_file()
    purse.spent = False
    resumed = grpo.train(calling_policy, replace(context), folder, progress=lambda _: None)
    assert resumed.rows == whole.rows
    weights = [path / "model.safetensors" for path in (whole.folder, resumed.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
