"""Budgets in PostgreSQL, shared by connections of several machines."""

import threading
from pathlib import Path

import pytest

from routerr1.errors import BudgetExceeded, PoolError
from routerr1.pool.budget import Budget, Grant, Limits, Payer, QuestionBudgetSpent
from routerr1.pool.spending import Spending
from tests.servers import postgresql


@pytest.mark.slow
def test_budgets_of_several_connections_never_pass_a_limit_together(tmp_path: Path) -> None:
    with postgresql(tmp_path) as url:
        budgets = [Budget(url, Limits(run_usd=1.0), run="r") for _ in range(4)]
        paid: list[float] = []

        def spend(budget: Budget) -> None:
            while True:
                try:
                    with budget.reserve(0.02) as reservation:
                        reservation.cost_usd = 0.01
                        paid.append(0.01)
                except BudgetExceeded:
                    return

        threads = [threading.Thread(target=spend, args=(budget,)) for budget in budgets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        # Each thread may stop while others have set something aside.
        assert 0.9 < sum(paid) <= 1.0 + 1e-9
        assert budgets[0].spent_usd()["run r"] == pytest.approx(sum(paid))
        assert budgets[0].under_way_usd() == 0.0
        for budget in budgets:
            budget.close()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@127.0.0.1:9/x?connect_timeout=2",
        "postgresql://127.0.0.1:9/x?user=me&password=secret",
    ],
)
def test_an_address_that_does_not_answer_is_named_without_its_password(address: str) -> None:
    with pytest.raises(PoolError, match="cannot be used as a budget file") as refused:
        Spending(address)
    assert "secret" not in str(refused.value)


def test_a_grant_limits_one_rollout_and_its_payers_all_of_theirs(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "b.sqlite", Limits(), run="r")
    payer = Payer("key a month 2026-11", 0.05)
    first, second = Grant(0.03, (payer,)), Grant(None, (payer,))
    with budget.granted("one", first), budget.granted("two", second):
        with budget.reserve(0.02, "one") as reservation:
            reservation.cost_usd = 0.015
        assert first.spent_usd == pytest.approx(0.015)
        with (
            pytest.raises(QuestionBudgetSpent, match=r"0.015000 of 0.030000"),
            budget.reserve(0.02, "one"),
        ):
            pass
        with budget.reserve(0.03, "two"):
            pass
        with (
            pytest.raises(BudgetExceeded, match="key a month 2026-11"),
            budget.reserve(0.02, "two"),
        ):
            pass
        with budget.reserve(0.02):  # of no rollout
            pass
    with budget.reserve(0.04, "one"):  # nothing is granted any more, and nothing limits
        pass
    assert budget.spent_usd()[payer.name] == pytest.approx(0.045)
    budget.close()
