"""Recording, replay and reuse."""

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import RolloutParams
from routerr1.errors import BudgetExceeded, LockHeld, PoolError
from routerr1.pool.base import Call, Pool, plain_request
from routerr1.pool.recording import Recorder, ReplayPool, open_replay
from routerr1.pool.records import (
    Record,
    RecordStore,
    read_records,
    request_key,
)
from routerr1.prompt import Renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import play
from routerr1.rollout.record import to_row
from routerr1.types import Card, Question, Reply

LIMITS = RolloutParams(max_rounds=4, max_new_tokens=50, temperature=1.0)
CARDS = (Card("A", completion_usd_per_mtok=1.0), Card("B"))


class Moody(Pool):
    """Says something new every time, and fails at one call in three: the hardest pool to replay."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: list[tuple[str, str]] = []
        self.cards: Sequence[Card] = CARDS

    async def ask(self, call: Call) -> Reply:
        name, query = call.candidate, call.query
        self.asked.append((name, query))
        await asyncio.sleep(self.random.random() * 0.01)
        if self.random.random() < 1 / 3:
            return Reply(name, "", latency_s=self.random.random(), failure="unavailable")
        said = f"{query}? {self.random.random()}"
        return Reply(name, said, 3, 5, self.random.random(), self.random.random(), retries=1)


def record(query: str, text: str, *, scope: str | None = None, name: str = "A") -> Record:
    return Record(plain_request(Call(name, query)), Reply(name, text), scope)


def test_equal_requests_have_equal_keys_and_any_change_another():
    base = {"model": "m", "messages": [{"role": "user", "content": "q"}], "temperature": 0.0}
    shuffled = dict(reversed(base.items()))
    assert request_key(base) == request_key(shuffled)
    for change in ({"model": "n"}, {"temperature": 0.1}, {"max_tokens": 5}, {"messages": []}):
        assert request_key({**base, **change}) != request_key(base)


async def test_a_run_replays_as_it_was_in_another_order_and_with_its_failures(tmp_path: Path):
    """30 trajectories of 6 calls over 4 questions, all at once, each asking some question twice."""

    async def trajectory(
        pool: Moody | Recorder | ReplayPool, number: int, slow: random.Random
    ) -> list[Reply]:
        got = []
        for step in range(6):
            await asyncio.sleep(slow.random() * 0.01)
            call = Call("AB"[step % 2], f"q{(number + step) % 4}", f"t{number}")
            got.append(await pool.ask(call))
        return got

    async def run(pool: Recorder | ReplayPool, order_seed: int) -> list[list[Reply]]:
        slow = random.Random(order_seed)
        return await asyncio.gather(*(trajectory(pool, number, slow) for number in range(30)))

    def paid(played: list[list[Reply]]) -> list[list[tuple[object, ...]]]:
        return [
            [(r.text, r.failure, r.cost_usd, r.completion_tokens, r.latency_s) for r in replies]
            for replies in played
        ]

    store = tmp_path / "calls.jsonl"
    recorder = Recorder(Moody(1), RecordStore(store))
    live = await run(recorder, 1)
    await recorder.aclose()
    assert any(reply.failure for replies in live for reply in replies)
    first = await run(open_replay(store, CARDS), 2)
    second = await run(open_replay(store, CARDS), 3)
    assert paid(first) == paid(live)
    assert first == second


async def test_recorded_trajectories_replay_whole(tmp_path: Path):
    """Through the real loop, over a pool that never says the same thing twice and often fails."""
    questions = [Question(f"q{n}", "set", "why?", ("so",), "train") for n in range(40)]

    def script(_: str, heard: Sequence[str]) -> str:
        if len(heard) == 3:
            return f"<answer>{heard[-1][-20:]}</answer>"
        return f"<search>{'AB'[len(heard) % 2]}: q{len(heard) // 2}</search>"

    async def run(pool: Recorder | ReplayPool) -> list[str]:
        played = await play(
            questions,
            ScriptedGenerator(script),
            pool,
            render=Renderer(lambda *_: ""),
            params=LIMITS,
            seed=5,
        )
        await pool.aclose()
        rows = [to_row(trajectory) for trajectory in played]
        for (
            row
        ) in rows:  # times of the clock, and what was saved by the store, are no part of a run
            row["ledger"] |= {"round_wall_s": [], "cache_hits": 0}
            for turn in row["turns"]:
                turn["wall_s"] = 0.0
                if turn["reply"]:
                    turn["reply"]["cached"] = False
        return [json.dumps(row, sort_keys=True) for row in rows]

    store = tmp_path / "calls.jsonl"
    live = await run(Recorder(Moody(3), RecordStore(store)))
    assert len(set(live)) == 40
    assert await run(open_replay(store, CARDS)) == live


async def test_a_repeated_question_is_asked_once_even_at_the_same_time(tmp_path: Path):
    class Steady(Moody):
        async def ask(self, call: Call) -> Reply:
            self.asked.append((call.candidate, call.query))
            await asyncio.sleep(0.01)
            failure = "unavailable" if call.query == "bad" else None
            return Reply(call.candidate, "yes", 3, 5, 0.5, failure=failure)

    steady = Steady(1)
    recorder = Recorder(steady, RecordStore(tmp_path / "calls.jsonl"))
    together = await asyncio.gather(*(recorder.ask(Call("A", "q")) for _ in range(5)))
    later = await recorder.ask(Call("A", "q"))
    assert steady.asked == [("A", "q")]
    assert sorted(reply.cached for reply in together) == [False, True, True, True, True]
    assert (later.text, later.cached, later.cost_usd) == ("yes", True, 0.5)
    await recorder.ask(Call("A", "bad"))
    await recorder.ask(Call("A", "bad"))
    assert steady.asked.count(("A", "bad")) == 2  # a failure is never reused
    await recorder.aclose()
    again = Recorder(steady, RecordStore(tmp_path / "calls.jsonl"))
    assert (await again.ask(Call("A", "q"))).cached
    assert steady.asked.count(("A", "q")) == 1
    await again.aclose()


async def test_a_spent_budget_is_not_shared_with_who_waited_for_the_call(tmp_path: Path):
    """The first fails for a reason of its own: its question's budget is spent, the others' are not."""

    class Purse(Moody):
        async def ask(self, call: Call) -> Reply:
            self.asked.append((str(call.scope), call.query))
            await asyncio.sleep(0.01)
            if call.scope == "poor":
                return Reply(call.candidate, "", failure="budget")
            return Reply(call.candidate, "yes")

    async def ask(scope: str) -> Reply:
        return await recorder.ask(Call("A", "q", scope))

    purse = Purse(1)
    recorder = Recorder(purse, RecordStore(tmp_path / "calls.jsonl"))
    poor, *rich = await asyncio.gather(*(ask(scope) for scope in ("poor", "rich", "richer")))
    assert poor.failure == "budget"
    assert [(reply.text, reply.cached) for reply in rich] == [("yes", False), ("yes", True)]
    assert purse.asked == [("poor", "q"), ("rich", "q")]
    await recorder.aclose()


async def test_a_spent_run_stops_every_caller_and_leaves_no_record(tmp_path: Path):
    class Spent(Moody):
        async def ask(self, call: Call) -> Reply:
            self.asked.append((call.candidate, call.query))
            await asyncio.sleep(0.01)
            raise BudgetExceeded("run r: nothing is left")

    spent, path = Spent(1), tmp_path / "calls.jsonl"
    recorder = Recorder(spent, RecordStore(path))
    asking = [recorder.ask(Call("A", "q", f"t{number}")) for number in range(3)]
    refused = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in refused] == [BudgetExceeded] * 3
    assert spent.asked == [("A", "q")]
    await recorder.aclose()
    assert list(read_records(path)) == []


async def test_what_a_fallback_said_is_not_kept_for_good(tmp_path: Path):
    class Propped(Moody):
        async def ask(self, call: Call) -> Reply:
            self.asked.append((call.candidate, call.query))
            return Reply("B" if len(self.asked) < 3 else call.candidate, "yes")

    propped = Propped(1)
    for _ in range(2):  # in one process, and from the store of an earlier one
        recorder = Recorder(propped, RecordStore(tmp_path / "calls.jsonl"))
        assert [(await recorder.ask(Call("A", "q"))).model for _ in range(2)] in (
            ["B", "B"],
            ["A", "A"],
        )
        await recorder.aclose()
    assert len(propped.asked) == 3


async def test_a_call_that_nobody_waits_for_any_more_is_kept_because_it_is_paid(tmp_path: Path):
    class Slow(Moody):
        async def ask(self, call: Call) -> Reply:
            self.asked.append((call.candidate, call.query))
            await asyncio.sleep(0.05)
            return Reply(call.candidate, "yes")

    slow, path = Slow(1), tmp_path / "calls.jsonl"
    recorder = Recorder(slow, RecordStore(path))
    asking = asyncio.ensure_future(recorder.ask(Call("A", "q")))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.sleep(0)
    await recorder.ask(Call("A", "q"))  # joins the call of the one that broke off
    broken_off = asyncio.ensure_future(recorder.ask(Call("A", "p")))
    await asyncio.sleep(0.01)
    broken_off.cancel()
    await recorder.aclose()
    again = Recorder(slow, RecordStore(path))
    assert [(await again.ask(Call("A", query))).cached for query in "qp"] == [True, True]
    assert slow.asked == [("A", "q"), ("A", "p")]
    await again.aclose()


async def test_a_store_that_only_saves_calls_holds_each_once(tmp_path: Path):
    path = tmp_path / "calls.jsonl"
    recorder = Recorder(Moody(4), RecordStore(path), repeats=False)
    replies = [await recorder.ask(Call("A", "q")) for _ in range(20)]
    await recorder.aclose()
    answered = next(place for place, reply in enumerate(replies) if reply.failure is None)
    kept = list(read_records(path))
    assert len(kept) == answered + 1  # its failures, then the answer that all later ones get
    assert {reply.text for reply in replies[answered:]} == {kept[-1].reply.text}


async def test_a_waiter_that_is_cancelled_leaves_the_call_to_the_others(tmp_path: Path):
    class Slow(Moody):
        async def ask(self, call: Call) -> Reply:
            self.asked.append((call.candidate, call.query))
            await asyncio.sleep(0.1)
            return Reply(call.candidate, "yes")

    recorder = Recorder(Slow(1), RecordStore(tmp_path / "calls.jsonl"))
    first = asyncio.create_task(recorder.ask(Call("A", "q")))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(recorder.ask(Call("A", "q")))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await second).text == "yes"
    await recorder.aclose()


async def test_a_profile_replays_with_its_failure_though_a_rollout_got_an_answer_later():
    failed = Record(plain_request(Call("A", "q")), Reply("A", "", failure="unavailable"))
    answered = record("q", "yes", scope="rollout")
    replay = ReplayPool([failed, answered], CARDS)
    assert (await replay.ask(Call("A", "q"))).failure == "unavailable"
    assert (await replay.ask(Call("A", "q", "rollout"))).text == "yes"
    assert (await replay.ask(Call("A", "q", "another"))).text == "yes"
    # A profile that was repeated and got its answer replays with it; a call that no profile made finds any.
    again = ReplayPool([failed, answered, record("q", "no")], CARDS)
    assert (await again.ask(Call("A", "q"))).text == "no"
    assert (await ReplayPool([answered], CARDS).ask(Call("A", "q"))).text == "yes"


async def test_a_call_without_a_record_is_a_failure():
    alone = ReplayPool([record("q", "yes")], CARDS)
    assert (await alone.ask(Call("A", "q"))).text == "yes"
    miss = await alone.ask(Call("A", "other"))
    assert (miss.text, miss.failure) == ("", "not_recorded")
    assert (await alone.ask(Call("C", "q"))).failure == "unknown_model"


def test_what_is_written_is_read_back(tmp_path: Path):
    records = [
        record("q1\n\u2028 \ud800", "a\n\u2028\x00", scope="s"),
        Record(
            {"model": "m", "messages": []}, Reply("A", "", failure="budget", note="n"), origin="o"
        ),
    ]
    path = tmp_path / "deep" / "calls.jsonl"
    with RecordStore(path) as store:
        for item in records:
            store.append(item)
    assert list(read_records(path)) == records
    assert len(path.read_bytes().splitlines()) == 2


async def test_one_model_at_two_endpoints_is_two_candidates(tmp_path: Path):
    class Hosts(Moody):
        def request(self, call: Call) -> dict[str, Any]:
            return plain_request(Call("the-model", call.query))

        async def ask(self, call: Call) -> Reply:
            self.asked.append((call.candidate, call.query))
            return Reply(call.candidate, f"{call.candidate} says so", 3, 5, 0.1)

    for first in (True, False):
        pool = Hosts(1)
        recorder = Recorder(pool, RecordStore(tmp_path / "calls.jsonl"))
        replies = [await recorder.ask(Call(name, "q")) for name in ("A", "B", "A")]
        await recorder.aclose()
        assert [reply.model for reply in replies] == ["A", "B", "A"]
        assert pool.asked == ([("A", "q"), ("B", "q")] if first else [])


def test_two_writers_do_not_share_a_store(tmp_path: Path):
    path = tmp_path / "calls.jsonl"
    with RecordStore(path), pytest.raises(LockHeld, match="another process is recording"):
        RecordStore(path)
    RecordStore(path).close()


@pytest.mark.parametrize("room", [0, 10])
def test_a_full_disk_leaves_no_half_and_is_one_clear_line(room: int, tmp_path: Path):
    path = tmp_path / "calls.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RecordStore(path) as store:
        store.append(record("q1", "a"))
        whole = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + room, limits[1]))
        try:
            with pytest.raises(PoolError, match=r"calls\.jsonl: a record c"):
                store.append(record("q2", "b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == whole
        store.append(record("q2", "b"))
    assert len(list(read_records(path))) == 2


def test_a_torn_last_line_is_dropped_and_a_damaged_one_is_an_error(tmp_path: Path):
    path = tmp_path / "calls.jsonl"
    with RecordStore(path) as store:
        for number in range(3):
            store.append(record(f"q{number}", "a"))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0]) + len(lines[1]) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(list(read_records(path))) == 2
    with RecordStore(path) as store:
        store.append(record("q2", "a"))
    assert path.read_bytes() == whole
    for damage in (
        lines[0] + b"\x00" + lines[1][1:] + lines[2],
        lines[0] + lines[1].replace(b'"q1"', b'"q9"') + lines[2],
        lines[0] + b"{}\n" + lines[2],
    ):
        path.write_bytes(damage)
        with pytest.raises(PoolError, match=r"calls\.jsonl, line 2: is damaged"):
            list(read_records(path))


def test_a_damaged_line_costs_itself_and_a_damaged_store_names_a_remedy_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "calls.jsonl"
    with RecordStore(path) as store:
        for number in range(200):
            store.append(record(f"q{number}", "a"))
    lines = path.read_bytes().splitlines(keepends=True)
    reply = json.loads(lines[1])
    reply["reply"] |= {"cost_usd": float("nan")}
    odd = [b"\xff\n", json.dumps(reply).encode() + b"\n", b"[" * 100_000 + b"\n"]
    path.write_bytes(b"".join([*odd[:2], *lines[2:]]))
    assert len(list(read_records(path, 0.01))) == 198
    aside = [
        json.loads(line) for line in Path("runs/rejected/calls.jsonl").read_text().splitlines()
    ]
    assert [fault["where"] for fault in aside] == [f"{path}, line 1", f"{path}, line 2"]
    assert aside[1]["why"] == "cost_usd is nan"
    path.write_bytes(b"".join([*odd, *lines[3:]]))
    with pytest.raises(
        PoolError, match=r"3 of 200 .* max_rejected \(0\.01\) allows: delete .*, or raise"
    ):
        list(read_records(path, 0.01))
    assert len(list(read_records(path, 0.02))) == 197
    assert len(open_replay(path, CARDS, max_rejected=0.02).cards) == len(CARDS)


@pytest.mark.parametrize("name", [".", "file/calls.jsonl"])
def test_a_store_that_cannot_be_opened_is_one_line(tmp_path: Path, name: str):
    (tmp_path / "file").touch()
    with pytest.raises(PoolError, match=r"cannot be opened for records \(.*(directory|exists)"):
        RecordStore(tmp_path / name)


def test_a_record_of_a_newer_version_is_read_and_one_of_other_types_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "calls.jsonl"
    with RecordStore(path) as store:
        store.append(record("q", "a"))
    body = json.loads(path.read_text())
    newer = {**body, "reply": {**body["reply"], "energy_j": 3.5}}
    odd = [{**body, "reply": {**body["reply"], **change}} for change in (
        {"prompt_tokens": "many"}, {"prompt_tokens": -5}, {"text": 7}, {"latency_s": float("inf")},
        {"failure": "tired"}, {"model": None},
    )]  # fmt: skip
    lines = [*map(json.dumps, [newer, *odd]), "null", "[]", '"x"']
    path.write_text("\n".join(lines) + "\n")
    assert [each.reply.text for each in read_records(path, 1.0)] == ["a"]
    assert len(Path("runs/rejected/calls.jsonl").read_text().splitlines()) == 9


async def test_a_replay_says_at_its_end_which_calls_failed_without_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path, name = tmp_path / "calls.jsonl", CARDS[0].name
    refused = Reply(
        name, "", failure="unavailable", note=f'{name}: status 401 "no sk-abcdefghijk1"'
    )
    with RecordStore(path) as store:
        store.append(Record(plain_request(Call(name, "q")), refused))
    pool = open_replay(path, CARDS)
    await pool.ask(Call(name, "q"))
    await pool.ask(Call(name, "other"))
    await pool.aclose()
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 1 of 2 calls to {name} failed: not_recorded",
        f'{path}: 1 of 2 calls to {name} failed: status 401 "no [key]"',
    ]


def test_an_empty_or_absent_store_cannot_be_replayed(tmp_path: Path):
    with pytest.raises(PoolError, match="cannot be read"):
        open_replay(tmp_path / "none", CARDS)
    (tmp_path / "empty").touch()
    with pytest.raises(PoolError, match="holds no recorded call"):
        open_replay(tmp_path / "empty", CARDS)


WRITER = """
import sys
from pathlib import Path
from typing import Any
from routerr1.pool.base import Call, plain_request
from routerr1.pool.records import Record, RecordStore
from routerr1.types import Reply
store = RecordStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    store.append(Record(plain_request(Call("A", str(number))), Reply("A", "x" * 3000)))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_a_killed_recorder_loses_at_most_the_call_it_was_writing(tmp_path: Path):
    path, start = tmp_path / "calls.jsonl", 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE, text=True
        )
        while not path.exists() or path.stat().st_size < (start + 20) * 3000:
            time.sleep(0.005)
            assert writer.poll() is None
        os.kill(writer.pid, signal.SIGKILL)
        said = writer.communicate()[0].split()
        kept = [int(r.request["messages"][0]["content"]) for r in read_records(path)]
        assert kept == list(range(len(kept)))
        assert len(kept) > int(said[-1])  # whatever was reported as recorded is there
        start = len(kept)


def test_records_hold_plain_json(tmp_path: Path):
    path = tmp_path / "calls.jsonl"
    with RecordStore(path) as store:
        store.append(record("q", "a", scope="s"))
    body = json.loads(path.read_text())
    assert body["key"] == request_key(plain_request(Call("A", "q")))
    assert (body["reply"]["text"], body["scope"], body["origin"]) == ("a", "s", None)
