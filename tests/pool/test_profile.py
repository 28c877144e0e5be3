"""The profile stage on the simulated pool."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from routerr1.errors import BudgetExceeded, DataError, PoolError
from routerr1.files import digest
from routerr1.pool.base import Call, Pool
from routerr1.pool.cards import read_cards
from routerr1.pool.profile import (
    asked_in,
    contains_gold,
    profile,
    read_probes,
    sample_probes,
    wilson,
    write_profile,
)
from routerr1.pool.records import read_records
from routerr1.types import Card, Question, Reply


class CountingPool(Pool):
    """Answers at once, counts what it is asked, and fails on request."""

    def __init__(self, fails: Sequence[tuple[str, str]] = ()) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fails = set(fails)
        self.cards = (Card("Fast", completion_usd_per_mtok=1.0), Card("Slow"))

    async def ask(self, call: Call) -> Reply:
        name, query = call.candidate, call.query
        self.asked.append((name, query))
        await asyncio.sleep(0)
        if (name, query) in self.fails:
            return Reply(name, "", failure="unavailable")
        place = int(query.removeprefix("q"))
        text = f"It is surely a{place}." if name == "Fast" else "I do not know."
        return Reply(name, text, 10, 4, 4e-6, latency_s=1.0 + place)


def ask(place: int, topic: str, hops: int | None = 1) -> Question:
    return Question(
        f"id{place}", "set", f"q{place}", (f"a{place}",), "train", hops, {"topic": topic}
    )


QUESTIONS = [ask(0, "x"), ask(1, "x"), ask(2, "y"), ask(3, "y")]


async def test_every_question_goes_to_every_candidate_and_the_card_tells_the_outcome():
    pool, seen = CountingPool(), []
    found = await profile(
        QUESTIONS, pool, store=None, progress=lambda done, total: seen.append((done, total))
    )
    assert [(row["question_id"], row["candidate"]) for row in found.rows] == [
        (question.id, name) for question in QUESTIONS for name in ("Fast", "Slow")
    ]
    fast, slow = found.cards
    assert fast.performance == {"x": 1.0, "y": 1.0}
    assert slow.performance == {"x": 0.0, "y": 0.0}
    assert (fast.unsure, slow.unsure) == ({"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 1.0})
    # Latencies 1, 2, 3, 4: median 2.5; 95th percentile 3 + 0.85 * (4 - 3).
    assert (fast.latency_s, fast.latency_p95_s) == (2.5, 3.85)
    assert fast.completion_tokens == 4.0
    assert found.summary["Fast"]["total_cost_usd"] == pytest.approx(4 * 4e-6)
    assert found.summary["Slow"]["topics"]["x"]["probes"] == 2
    assert seen[-1] == (8, 8)


async def test_a_failed_call_counts_as_wrong_and_is_asked_again_on_the_next_run(tmp_path: Path):
    failing = CountingPool(fails=[("Fast", "q0")])
    first = await profile(QUESTIONS, failing, store=tmp_path / "calls.jsonl")
    assert first.cards[0].performance == {"x": 0.5, "y": 1.0}
    assert first.cards[0].unsure == {"x": 0.0, "y": 0.0}  # no reply says nothing of who was asked
    assert first.summary["Fast"]["failures"] == 1
    healthy = CountingPool()
    second = await profile(QUESTIONS, healthy, store=tmp_path / "calls.jsonl")
    assert healthy.asked == [("Fast", "q0")]
    assert second.cards[0].performance == {"x": 1.0, "y": 1.0}


async def test_a_candidate_that_never_answers_gets_no_card():
    pool = CountingPool(fails=[("Slow", question.question) for question in QUESTIONS])
    with pytest.raises(PoolError, match="candidate 'Slow' answered none of 4 probes"):
        await profile(QUESTIONS, pool, store=None)


async def test_what_a_fallback_answers_is_no_skill_of_the_candidate_asked():
    class Propped(CountingPool):
        async def ask(self, call: Call) -> Reply:
            name = "Fast" if call.query in ("q0", "q2") else call.candidate
            return await super().ask(Call(name, call.query))

    found = await profile(QUESTIONS, Propped(), store=None)
    assert found.summary["Fast"]["failures"] == 0
    assert found.summary["Slow"]["failures"] == 2
    assert found.cards[1].performance == {"x": 0.0, "y": 0.0}
    assert [row["cost_usd"] for row in found.rows] == [4e-6] * 8


async def test_a_reached_budget_stops_the_stage():
    class Purse(CountingPool):
        async def ask(self, call: Call) -> Reply:
            if (call.candidate, call.query) == ("Slow", "q1"):
                raise BudgetExceeded("run r: nothing is left")
            return await super().ask(call)

    with pytest.raises(
        BudgetExceeded, match=r"of 8 calls: run r: nothing is left; raise pool\.budget"
    ):
        await profile(QUESTIONS, Purse(), store=None)


async def test_equal_runs_write_equal_bytes_whether_asked_or_from_the_store(tmp_path: Path):
    for name in ("asked", "stored"):
        found = await profile(QUESTIONS, CountingPool(), store=tmp_path / "calls.jsonl")
        write_profile(tmp_path / name, found)
    assert digest(tmp_path / "asked") == digest(tmp_path / "stored")
    assert read_cards(tmp_path / "asked" / "cards.json") == list(found.cards)
    rows = read_probes(tmp_path / "asked" / "matrix.parquet")
    assert rows == list(found.rows)
    again = await profile(asked_in(rows), CountingPool(), store=None)  # no other file is needed
    assert again.rows == found.rows
    summary = json.loads((tmp_path / "asked" / "profile.json").read_text())
    assert summary["Fast"]["overall"]["accuracy"] == 1.0


def test_a_matrix_that_cannot_be_read_is_one_line(tmp_path: Path):
    file = tmp_path / "matrix.parquet"
    pq.write_table(
        pa.table({"question_id": ["q1"]}), file
    )  # as it was before questions stood in it
    with pytest.raises(DataError, match=r"as a matrix .*; run the profile stage again") as told:
        read_probes(file)
    assert "\n" not in str(told.value)


SLOW_STAGE = """
import asyncio, sys
from pathlib import Path
from routerr1.pool.base import Pool
from routerr1.pool.profile import profile
from routerr1.types import Card, Question, Reply

class Slow(Pool):
    cards = (Card("A"), Card("B"))
    async def ask(self, call):
        await asyncio.sleep(0.02 * int(call.query))
        return Reply(call.candidate, "yes", 1, 1)

asked = [Question(str(i), "s", str(i), ("yes",), "train") for i in range(200)]
asyncio.run(profile(asked, Slow(), store=Path(sys.argv[1])))
"""


async def test_a_killed_run_is_not_paid_twice(tmp_path: Path):
    store = tmp_path / "calls.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SLOW_STAGE, str(store)])
    while not store.exists() or store.stat().st_size < 4000:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    paid = {(r.request["model"], r.request["messages"][0]["content"]) for r in read_records(store)}
    assert 0 < len(paid) < 400

    asked: list[tuple[str, str]] = []

    class Rest(Pool):
        cards = (Card("A"), Card("B"))

        async def ask(self, call: Call) -> Reply:
            asked.append((call.candidate, call.query))
            return Reply(call.candidate, "yes", 1, 1)

    questions = [Question(str(i), "s", str(i), ("yes",), "train") for i in range(200)]
    found = await profile(questions, Rest(), store=store)
    assert len(found.rows) == 400
    assert paid.isdisjoint(asked)
    assert len(paid) + len(asked) == 400


def test_probes_are_spread_over_topics_and_ask_for_one_fact():
    rows = [ask(i, "x") for i in range(10)] + [ask(10 + i, "y") for i in range(2)]
    rows += [ask(20 + i, "y", hops=2) for i in range(10)]
    chosen = sample_probes(rows, 6, seed=1)
    topics = [question.metadata["topic"] for question in chosen]
    assert topics.count("y") == 2
    assert topics.count("x") == 4
    assert all(question.hops == 1 for question in chosen)
    assert chosen == sample_probes(rows, 6, seed=1)
    assert chosen != sample_probes(rows, 6, seed=2)


@pytest.mark.parametrize(
    ("reply", "golds", "expected"),
    [
        ("The capital of France is Paris.", ("Paris",), 1.0),
        ("It is Parisian.", ("Paris",), 0.0),
        ("It lies in the United States.", ("united states", "USA"), 1.0),
        ("Anything at all.", ("the",), 0.0),  # normalises to nothing, so it is in no reply
        ("", ("Paris",), 0.0),
        ("<think>Is it Paris? I say Lyon.</think>\nLyon.", ("Paris",), 0.0),
        ("<think>easy</think>Paris.", ("Paris",), 1.0),
        ("It is easy.</think>Paris.", ("Paris",), 1.0),
    ],
)
def test_gold_contained(reply: str, golds: tuple[str, ...], expected: float):
    assert contains_gold(reply, golds) == expected


def test_wilson_of_all_right_is_not_certain():
    low, high = wilson(10, 10)
    # n / (n + z^2) = 10 / 13.8415
    assert low == pytest.approx(0.7225, abs=1e-4)
    assert high == pytest.approx(1.0)
