"""Training stops when the money is spent, and goes on from there when there is more."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.errors import BudgetExceeded
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.types import Card, Question, Reply, Trajectory
from tests.train.contexts import context_of


class Purse:
    """A pool whose budget may be declared spent."""

    def __init__(self, pool: SimulatedPool) -> None:
        self.pool = pool
        self.exhausted: str | None = None

    @property
    def cards(self) -> Sequence[Card]:
        return self.pool.cards

    async def ask(self, name: str, query: str) -> Reply:
        return await self.pool.ask(name, query)

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("step", [2, 4])
def test_a_validation_that_a_spent_budget_refused_is_made_up_for(
    small_policy: Path, params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path,
    step: int,
) -> None:  # fmt: skip
    purse = Purse(pool)
    context = context_of(params, purse, rows)
    whole = grpo.train(small_policy, context, tmp_path / "whole", progress=lambda _: None)
    assert [row["step"] for row in whole.rows if "validation/em" in row] == [2, 4]

    def spend(played: int, _: Sequence[Trajectory]) -> None:
        if played == step:  # what follows is its validation
            purse.exhausted = "run r: nothing is left"

    folder = tmp_path / "run"
    for log_rollouts in (spend, lambda *_: None):
        with pytest.raises(BudgetExceeded, match=f"training stopped after step {step} and kept it"):
            grpo.train(
                small_policy, context, folder, progress=lambda _: None, log_rollouts=log_rollouts
            )
    purse.exhausted = None
    seen: list[float] = []
    resumed = grpo.train(
        small_policy, context, folder, progress=lambda row: seen.append(row["step"])
    )
    assert seen == [float(each) for each in range(step, 5)]
    assert resumed.rows == whole.rows
    assert [row["step"] for row in resumed.timing] == [1, 2, 3, 4]
    assert (resumed.best_step, resumed.best_reward) == (whole.best_step, whole.best_reward)
    weights = [path / "model.safetensors" for path in (whole.folder, resumed.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_spent_budget_stops_training_with_a_checkpoint_and_more_money_resumes_it(
    small_policy: Path, params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path
) -> None:
    purse = Purse(pool)
    train = params.train.model_copy(update={"checkpoint_every": 4})
    context = context_of(params, purse, rows, train=train)
    whole = grpo.train(small_policy, context, tmp_path / "whole", progress=lambda _: None)
    assert len(whole.rows) == 4

    def spend(row: dict[str, float]) -> None:
        if row["step"] == 3:
            purse.exhausted = "run r: nothing is left"

    folder = tmp_path / "run"
    with pytest.raises(
        BudgetExceeded, match="nothing is left; training stopped after step 3 and kept it"
    ):
        grpo.train(small_policy, context, folder, progress=spend)
    assert (folder / "checkpoint-3" / "router_state.json").is_file()
    purse.exhausted = None
    resumed = grpo.train(small_policy, replace(context), folder, progress=lambda _: None)
    assert resumed.rows == whole.rows
    weights = [path / "model.safetensors" for path in (whole.folder, resumed.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
