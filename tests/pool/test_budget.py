"""Limits on spending hold over processes, kills and months."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from routerr1.config import BudgetParams
from routerr1.errors import BudgetExceeded, PoolError
from routerr1.pool.base import Call, Pool
from routerr1.pool.budget import Budget, BudgetedPool, Limits, QuestionBudgetSpent
from routerr1.pool.build import open_budget
from routerr1.pool.pricing import worst_case_usd
from routerr1.types import Card, Reply


def purse(tmp_path: Path, run: str = "r", **limits: float) -> Budget:
    return Budget(tmp_path / "budget.sqlite", Limits(**limits), run=run)


def pay(budget: Budget, usd: float, scope: str | None = None) -> None:
    """A call that costs its worst case."""
    with budget.reserve(usd, scope):
        pass


def test_what_is_set_aside_counts_until_the_real_price_takes_its_place(tmp_path: Path):
    budget = purse(tmp_path, run_usd=1.0)
    why = r"run r: the next call could cost 0\.500000 USD.*\(pool\.budget\.run_usd\)"
    refused = pytest.raises(BudgetExceeded, match=why)
    with budget.reserve(0.6) as first:
        with refused, budget.reserve(0.5):
            raise AssertionError("the call was allowed")
        first.cost_usd = 0.1
    pay(budget, 0.9)  # 0.1 + 0.9: the limit itself may be reached
    with pytest.raises(BudgetExceeded):
        pay(budget, 1e-9)
    assert budget.spent_usd()["run r"] == pytest.approx(1.0)


def test_a_call_that_breaks_off_costs_its_worst_case(tmp_path: Path):
    budget = purse(tmp_path, run_usd=1.0)
    with pytest.raises(ConnectionError), budget.reserve(0.6):
        raise ConnectionError("gone")
    assert budget.spent_usd()["run r"] == pytest.approx(0.6)
    assert budget.under_way_usd() == 0


def test_each_scope_has_its_own_limit(tmp_path: Path):
    now = [datetime(2026, 1, 31, 23, 59, tzinfo=UTC)]
    limits = Limits(question_usd=0.3, run_usd=10, month_usd=1.0)
    budget = Budget(tmp_path / "b.sqlite", limits, run="r", now=lambda: now[0])
    pay(budget, 0.3, "q1")
    with pytest.raises(QuestionBudgetSpent, match="question q1 of run r"):
        pay(budget, 0.1, "q1")
    pay(budget, 0.3, "q2")  # another question can still be asked
    pay(budget, 0.4)  # of no question
    with pytest.raises(BudgetExceeded, match="month 2026-01"):
        pay(budget, 0.1, "q3")
    now[0] = datetime(2026, 2, 1, tzinfo=UTC)
    pay(budget, 0.1)
    assert budget.spent_usd()["run r"] == pytest.approx(1.1)


def test_another_run_has_its_own_sum_but_shares_the_month(tmp_path: Path):
    one, two = (purse(tmp_path, run, run_usd=1.0, month_usd=1.5) for run in ("one", "two"))
    pay(one, 1.0)
    pay(two, 0.5)
    with pytest.raises(BudgetExceeded, match="month"):
        pay(two, 0.1)


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_amounts_that_are_none_are_refused(tmp_path: Path, amount: float):
    with pytest.raises(ValueError, match="amount"):
        pay(purse(tmp_path), amount)


def test_a_file_that_is_no_budget_is_named(tmp_path: Path):
    (tmp_path / "budget.sqlite").write_text("not a database, and long enough to tell" * 9)
    with pytest.raises(PoolError, match=r"budget\.sqlite: cannot be used as a budget file"):
        purse(tmp_path)


def test_no_limit_needs_no_file(tmp_path: Path):
    path = tmp_path / "budget.sqlite"
    assert open_budget(BudgetParams(), {}, path) is None
    assert not path.exists()
    budget = open_budget(BudgetParams(run_usd=1.0), {"ROUTERR1_RUN": "sweep-7"}, path)
    assert budget is not None
    pay(budget, 0.5)
    assert budget.spent_usd()["run sweep-7"] == 0.5


class Dear(Pool):
    """Costs nearly its worst case at every call."""

    cards = (Card("A", prompt_usd_per_mtok=1.0, completion_usd_per_mtok=1000.0),)
    calls = 0

    async def ask(self, call: Call) -> Reply:
        self.calls += 1
        await asyncio.sleep(0.001)
        if call.query == "broken":
            raise ConnectionError("gone")
        cost = worst_case_usd(self.cards[0], call.query, 90)
        return Reply(call.candidate, "yes", 100, 90, cost, cached=call.query == "known")


async def test_a_budgeted_pool_stops_before_the_limit(tmp_path: Path):
    dear = Dear()
    pool = BudgetedPool(dear, purse(tmp_path, run_usd=1.0), max_reply_tokens=100)
    calls = [pool.ask(Call("A", "q", f"q{n}")) for n in range(50)]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    refused = [reply for reply in replies if isinstance(reply, BudgetExceeded)]
    # At worst 0.1 USD and 129 micro-dollars a call, so nine fit; each really costs about 0.09.
    assert (dear.calls, len(refused)) == (9, 41)
    assert "run r: the next call could cost" in str(refused[0])
    await pool.aclose()


async def test_a_spent_question_is_a_reply_and_others_can_still_be_asked(tmp_path: Path):
    pool = BudgetedPool(Dear(), purse(tmp_path, question_usd=0.15), max_reply_tokens=100)
    first, second, other = [await pool.ask(Call("A", "q", scope)) for scope in ("1", "1", "2")]
    assert (first.failure, second.failure, other.failure) == (None, "budget", None)
    assert second.note is not None
    assert "question 1 of run r: the next call could cost" in second.note
    await pool.aclose()


async def test_a_reply_from_a_store_costs_nothing_and_a_broken_call_its_worst(tmp_path: Path):
    budget = purse(tmp_path, run_usd=1.0)
    pool = BudgetedPool(Dear(), budget, max_reply_tokens=100)
    await pool.ask(Call("A", "known"))
    assert budget.spent_usd()["run r"] == 0.0
    with pytest.raises(ConnectionError):
        await pool.ask(Call("A", "broken"))
    assert budget.spent_usd()["run r"] == pytest.approx(0.1 + 134e-6)
    assert (await pool.ask(Call("B", "q"))).failure == "unknown_model"
    await pool.aclose()


WORKER = """
import random, sys, time
from pathlib import Path
from routerr1.errors import BudgetExceeded
from routerr1.pool.budget import Budget, Limits
budget = Budget(Path(sys.argv[1]), Limits(run_usd=1.0), run="r")
draw = random.Random(int(sys.argv[2]))
worst = 0.004
while True:
    try:
        with budget.reserve(worst) as reservation:
            price = worst * draw.uniform(0.5, 1)
            # The "provider" bills: an append-only list of what was really paid, written before we settle.
            with open(sys.argv[3], "a") as bill:
                bill.write(f"{price!r}\\n")
            time.sleep(0.002)
            reservation.cost_usd = price
    except BudgetExceeded:
        break
"""


@pytest.mark.slow
def test_twenty_parallel_processes_never_spend_more_than_the_limit_even_when_killed(tmp_path: Path):
    path, bill = tmp_path / "budget.sqlite", tmp_path / "bill.txt"

    def start(seed: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(seed), str(bill)])

    def billed() -> float:
        return sum(map(float, bill.read_text().split())) if bill.exists() else 0.0

    workers = [start(seed) for seed in range(20)]
    while billed() < 0.3:
        time.sleep(0.01)
    for worker in workers[:10]:
        os.kill(worker.pid, signal.SIGKILL)
    for worker in workers[:10]:
        worker.wait()
    workers[:10] = [start(100 + seed) for seed in range(10)]
    assert [worker.wait() for worker in workers] == [0] * 20
    budget = Budget(path, Limits(run_usd=1.0), run="r")
    counted = budget.spent_usd()["run r"]
    assert 0.9 < billed() <= counted + 1e-6
    assert counted <= 1.0
    with pytest.raises(BudgetExceeded):
        pay(budget, 0.004)
    # What is still set aside is what killed workers left, at most one call each.
    assert budget.under_way_usd() <= 10 * 0.004 + 1e-9
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
