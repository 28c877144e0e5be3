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
from routerr1.pool.budget import Budget, BudgetedPool, Limits, exhausted
from routerr1.pool.build import open_budget
from routerr1.pool.pricing import worst_case_usd
from routerr1.pool.scope import asking_for
from routerr1.types import Card, Reply


def purse(tmp_path: Path, run: str = "r", **limits: float) -> Budget:
    return Budget(tmp_path / "budget.sqlite", Limits(**limits), run=run)


def test_what_is_set_aside_counts_until_the_real_price_takes_its_place(tmp_path: Path):
    budget = purse(tmp_path, run_usd=1.0)
    first = budget.reserve(0.6)
    with pytest.raises(BudgetExceeded, match=r"run r: the next call could cost 0\.500000 USD"):
        budget.reserve(0.5)
    budget.settle(first, 0.1)
    second = budget.reserve(0.9)  # 0.1 + 0.9: the limit itself may be reached
    budget.settle(second, 0.9)
    with pytest.raises(BudgetExceeded):
        budget.reserve(1e-9)
    assert budget.spent_usd()["run r"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="not open"):
        budget.settle(second, 0.0)


def test_each_scope_has_its_own_limit(tmp_path: Path):
    now = [datetime(2026, 1, 31, 23, 59, tzinfo=UTC)]
    limits = Limits(question_usd=0.3, run_usd=10, month_usd=1.0)
    budget = Budget(tmp_path / "b.sqlite", limits, run="r", now=lambda: now[0])
    with asking_for("q1"):
        budget.settle(budget.reserve(0.3), 0.3)
        with pytest.raises(BudgetExceeded, match="question q1 of run r"):
            budget.reserve(0.1)
    assert budget.exhausted is None  # another question may still be asked
    with asking_for("q2"):
        budget.settle(budget.reserve(0.3), 0.3)
    budget.settle(budget.reserve(0.4), 0.4)  # nobody said for which question
    with pytest.raises(BudgetExceeded, match="month 2026-01"):
        budget.reserve(0.1)
    assert budget.exhausted is not None
    now[0] = datetime(2026, 2, 1, tzinfo=UTC)
    budget.reserve(0.1)
    assert budget.spent_usd()["run r"] == pytest.approx(1.1)


def test_another_run_has_its_own_sum_but_shares_the_month(tmp_path: Path):
    one, two = (purse(tmp_path, run, run_usd=1.0, month_usd=1.5) for run in ("one", "two"))
    one.reserve(1.0)
    two.reserve(0.5)
    with pytest.raises(BudgetExceeded, match="month"):
        two.reserve(0.1)


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_amounts_that_are_none_are_refused(tmp_path: Path, amount: float):
    with pytest.raises(ValueError, match="amount"):
        purse(tmp_path).reserve(amount)


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
    budget.reserve(0.5)
    assert budget.spent_usd()["run sweep-7"] == 0.5


class Dear:
    """Costs nearly its worst case at every call."""

    cards = (Card("A", prompt_usd_per_mtok=1.0, completion_usd_per_mtok=1000.0),)
    calls = 0

    async def ask(self, name: str, query: str) -> Reply:
        self.calls += 1
        await asyncio.sleep(0.001)
        if query == "broken":
            raise ConnectionError("gone")
        return Reply(
            name, "yes", 100, 90, worst_case_usd(self.cards[0], query, 90), cached=query == "known"
        )

    async def aclose(self) -> None: ...


async def test_a_budgeted_pool_stops_before_the_limit(tmp_path: Path):
    dear = Dear()
    pool = BudgetedPool(dear, purse(tmp_path, run_usd=1.0), max_reply_tokens=100)
    replies = await asyncio.gather(*(pool.ask("A", "q") for _ in range(50)))
    refused = [reply for reply in replies if reply.failure == "budget"]
    # At worst 0.1 USD and 129 micro-dollars a call, so nine fit; each really costs about 0.09.
    assert (dear.calls, len(refused)) == (9, 41)
    assert refused[0].note is not None
    assert "run r: the next call could cost" in refused[0].note
    assert exhausted(pool) == refused[0].note
    assert exhausted(dear) is None
    await pool.aclose()


async def test_a_reply_from_a_store_costs_nothing_and_a_broken_call_its_worst(tmp_path: Path):
    budget = purse(tmp_path, run_usd=1.0)
    pool = BudgetedPool(Dear(), budget, max_reply_tokens=100)
    await pool.ask("A", "known")
    assert budget.spent_usd()["run r"] == 0.0
    with pytest.raises(ConnectionError):
        await pool.ask("A", "broken")
    assert budget.spent_usd()["run r"] == pytest.approx(0.1 + 134e-6)
    assert (await pool.ask("B", "q")).failure == "unknown_model"
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
        reservation = budget.reserve(worst)
    except BudgetExceeded:
        break
    price = worst * draw.uniform(0.5, 1)
    # The "provider" bills: an append-only list of what was really paid, written before we settle.
    with open(sys.argv[3], "a") as bill:
        bill.write(f"{price!r}\\n")
    time.sleep(0.002)
    budget.settle(reservation, price)
"""


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
        budget.reserve(0.004)
    # What is still set aside is what killed workers left, at most one call each.
    assert budget.under_way_usd() <= 10 * 0.004 + 1e-9
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
