"""Parts of an evaluation in forks: the same rows, and nothing lost when one ends."""

import asyncio
import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import psutil
import pytest

from routerr1.errors import DataError, PoolError
from routerr1.evaluate import controls, processes
from routerr1.evaluate.run import evaluation_jobs, play_all
from routerr1.evaluate.store import RowStore
from routerr1.jobs.rejected import Rejected
from routerr1.pool.base import PoolWrapper
from routerr1.pool.tally import FailureTally
from routerr1.types import Reply

PARENT = os.getpid()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(processes, "_FEWEST_JOBS", 1)


@pytest.fixture
def jobs(stage):
    policies = stage.policies(stage.policy)
    return evaluation_jobs(policies, stage.pool, stage.test, stage.validation, stage.params)


def elsewhere(router, play):
    """The router, which does `play` in place of its own where a fork plays it."""

    async def asked(question, *, player):
        if os.getpid() == PARENT:
            return await router.play(question, player=player)
        return await play(question)

    return replace(router, play=asked)


def test_a_router_is_in_one_part_and_the_policy_in_the_first(jobs):
    parts = processes.parts_of(jobs, 3)
    assert len(parts) == 3
    assert sum(map(len, parts)) == len(jobs)
    assert max(map(len, parts)) < 2 * min(map(len, parts))
    names = [{(router.pool_name, router.name) for router, _ in part} for part in parts]
    assert ("training", controls.POLICY) in names[0]
    assert not names[0] & names[1] | names[1] & names[2] | names[0] & names[2]
    assert processes.parts_of(jobs, 1) == [jobs]


def test_few_jobs_are_not_divided(jobs, monkeypatch):
    monkeypatch.setattr(processes, "_FEWEST_JOBS", 500)
    assert processes.parts_of(jobs[:900], 8) == [jobs[:900]]
    assert processes.parts_of([], 8) == [[]]


async def test_forks_give_the_rows_of_one_process_and_the_parent_keeps_them(jobs, tmp_path):
    done = []
    store = RowStore(tmp_path / "rows.jsonl", "f")
    rows = await play_all(
        jobs,
        concurrency=16,
        store=store,
        progress=lambda n, total: done.append((n, total)),
        processes=3,
    )
    assert rows == await play_all(jobs, concurrency=16)
    assert done[-1] == (len(jobs), len(jobs))
    with store.open() as kept:
        assert len(kept) == len(jobs)


async def test_failed_calls_are_counted_with_those_of_forks(stage):
    class Down(PoolWrapper):
        def __init__(self, inner):
            super().__init__(inner)
            self.tally = FailureTally()

        async def ask(self, call):
            reply = Reply(call.candidate, "", failure="unavailable", note="down")
            self.tally.add(call.candidate, reply)
            return reply

    async def lines(count):
        down = Down(stage.pool)
        down.tally.add("Atlas", Reply("Atlas", "", failure="unavailable", note="before"))
        policies = stage.policies(stage.policy)
        mine = evaluation_jobs(policies, down, stage.test, stage.validation, stage.params)
        await play_all(mine, concurrency=16, processes=count)
        return sorted(down.tally.lines())

    assert await lines(2) == await lines(1)


async def test_an_error_in_a_fork_comes_out_as_itself(jobs):
    async def fails(question):
        raise PoolError(f"no endpoint for {question.id}")

    broken = [(elsewhere(router, fails), question) for router, question in jobs]
    with pytest.raises(PoolError, match="no endpoint for "):
        await play_all(broken, concurrency=4, processes=2)


async def test_a_fork_that_is_killed_stops_the_evaluation_and_finished_rows_are_kept(
    jobs, tmp_path
):
    async def dies(question):  # noqa: ARG001 - as `Play`
        os.kill(os.getpid(), signal.SIGKILL)

    broken = [(elsewhere(router, dies), question) for router, question in jobs]
    store = RowStore(tmp_path / "rows.jsonl", "f")
    with pytest.raises(DataError, match=r"ended with status -9; run the stage again, finished"):
        await play_all(broken, concurrency=1, store=store, processes=2)
    rows = await play_all(jobs, concurrency=16, store=store, processes=2)
    assert len(rows) == len(jobs)


async def test_what_a_fork_puts_aside_counts_here(jobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def glitched(router):
        async def play(question, *, player):
            played = await router.play(question, player=player)
            ledger = replace(played.ledger, cost_usd=math.nan)
            return replace(played, ledger=ledger) if os.getpid() != PARENT else played

        return replace(router, play=play)

    broken = [(glitched(router), question) for router, question in jobs]
    with pytest.raises(DataError, match="numbers_finite"):
        await play_all(broken, concurrency=4, processes=2)
    rejected = Rejected("evaluate", max_share=1.0)
    rows = await play_all(broken, concurrency=4, processes=2, rejected=rejected)
    assert rejected.count == sum(row.rejected for row in rows) > 0


def test_a_fork_whose_parent_is_killed_ends(tmp_path, jobs):
    note = tmp_path / "fork.pid"

    def parent():
        mine = os.getpid()

        def slow(router):
            async def play(question, *, player):
                if os.getpid() == mine:
                    return await asyncio.sleep(60)
                note.write_text(str(os.getpid()))
                return await router.play(question, player=player)

            return replace(router, play=play)

        waiting = [(slow(router), question) for router, question in jobs]
        asyncio.run(play_all(waiting, concurrency=1, processes=2))

    process = multiprocessing.get_context("fork").Process(target=parent)
    process.start()
    while not note.exists() or not note.read_text():
        time.sleep(0.01)
    fork = psutil.Process(int(note.read_text()))
    process.kill()
    process.join()
    _, alive = psutil.wait_procs([fork], timeout=20)
    assert not alive
