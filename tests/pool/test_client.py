"""The HTTP pool against the simulated server, over real sockets."""

import asyncio
import json
import logging
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from routerr1.config import RewardParams, RolloutParams
from routerr1.errors import BudgetExceeded, BudgetUnavailable
from routerr1.evaluate.rows import read_rows, row_of, write_rows
from routerr1.pool.base import Call, Pool
from routerr1.pool.breaker import Breaker
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.failures import TryError, retry_after_s
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.recording import Recorder, open_replay
from routerr1.pool.records import RecordStore, read_records
from routerr1.pool.repricing import reprice_rows
from routerr1.prompt import Renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.rollout.record import from_row, to_row
from routerr1.simulation.faults import Faults, parse_faults
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.types import Question, Reply, Trajectory

WritePool = Callable[..., Path]
QUICK = {"backoff_s": 0.005, "max_wait_s": 5.0, "breaker_failures": 10_000}


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/stats") as answer:
        return json.load(answer)


def open_http(path: Path, **options: Any) -> HttpPool:
    file = read_pool_file(path)
    return HttpPool(file, file.keys({}), **{"max_concurrency": 64, **options})


async def test_a_reply_over_http_is_the_one_of_the_pool_behind_it(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool
):
    with serving(build_app(simulated, time_scale=0)) as url:
        pool = open_http(pool_file(url))
        got = [await pool.ask(Call("Curie", question.question)) for question in asked[:5]]
        await pool.aclose()
    for reply, question in zip(got, asked, strict=False):
        direct = await simulated.ask(Call("Curie", question.question))
        assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == (
            direct.text,
            direct.prompt_tokens,
            direct.completion_tokens,
        )
        assert reply.cost_usd == pytest.approx(direct.cost_usd)
        assert (reply.failure, reply.retries, reply.cached, reply.note) == (None, 0, False, None)


@pytest.mark.slow
async def test_two_thousand_calls_with_thirty_percent_faults(
    simulated: SimulatedPool,
    asked: list[Question],
    pool_file: WritePool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    faults = Faults(
        rate_limit=0.06, server_error=0.07, hang=0.01, cut=0.04, broken_json=0.03, empty_choice=0.02,
        huge=0.01, tags=0.03, slow=0.03, retry_after_s=0.02, hang_s=60, slow_s=0.08,
        huge_bytes=2_000_000,
    )  # fmt: skip
    assert faults.total == pytest.approx(0.3)
    names = [card.name for card in simulated.cards]
    calls = [
        (names[i % len(names)], f"{asked[i % len(asked)].question} ({i})") for i in range(2000)
    ]
    with serving(build_app(simulated, faults=faults, seed=5, time_scale=0.01)) as url:
        # Long enough for a busy machine: a try that is given up before the server read it is on no count.
        path = pool_file(
            url, endpoint={**QUICK, "read_s": 10.0, "total_s": 20.0, "max_concurrency": 64}
        )
        budget = Budget(tmp_path / "budget.sqlite", Limits(run_usd=50.0), run="r")
        pool = open_http(path, budget=budget)
        memory: list[int] = []

        async def ask(place: int, call: tuple[str, str]) -> Reply:
            reply = await pool.ask(Call(*call))
            if place % 500 == 499:
                memory.append(psutil.Process().memory_info().rss)
            return reply

        replies = await asyncio.gather(*(ask(*item) for item in enumerate(calls)))
        spent = budget.spent_usd()["run r"]
        assert budget.under_way_usd() == 0
        await pool.aclose()
        await asyncio.sleep(0.05)
        count = stats(url)
    assert len(replies) == len(calls)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert all(bool(reply.text) != bool(reply.failure) for reply in replies)
    assert {reply.failure for reply in replies} == {None, "unavailable"}
    # None lost, none counted twice: tries and tokens are the server's own.
    assert sum(1 + reply.retries for reply in replies) == count["total"]["requests"]
    assert sum(reply.prompt_tokens for reply in replies) == count["total"]["prompt_tokens"]
    assert sum(reply.completion_tokens for reply in replies) == count["total"]["completion_tokens"]
    for card in simulated.cards:
        mine = [reply for reply, (name, _) in zip(replies, calls, strict=True) if name == card.name]
        assert sum(1 + reply.retries for reply in mine) == count["requests"][card.name]
        assert sum(reply.cost_usd for reply in mine) == pytest.approx(
            (
                count["prompt_tokens"][card.name] * card.prompt_usd_per_mtok
                + count["completion_tokens"][card.name] * card.completion_usd_per_mtok
            )
            / 1e6
        )
    # The budget also holds calls that may be billed without known usage.
    unseen = sum(
        count["unreported_prompt_tokens"].get(card.name, 0) * card.prompt_usd_per_mtok
        + count["unreported_completion_tokens"].get(card.name, 0) * card.completion_usd_per_mtok
        for card in simulated.cards
    )
    assert spent >= sum(reply.cost_usd for reply in replies) + unseen / 1e6
    assert set(count["faults"]) >= {
        "rate_limit",
        "server_error",
        "hang",
        "cut",
        "broken_json",
        "huge",
    }
    # Steady: 1,500 more calls, 2 MB replies among them, may not cost more than 40 MB.
    assert max(memory) - memory[0] < 40e6


@pytest.mark.parametrize(
    ("fault", "why", "tries"),
    [
        ("server_error", "status 500", 3),
        ("rate_limit", "status 429", 3),
        ("cut", "the connection failed", 3),
        ("hang", "the server took too long", 3),
        ("broken_json", "the body is no chat completion", 1),
        ("empty_choice", "the reply is empty", 1),
        ("huge", "the reply is too large", 1),
    ],
)
async def test_each_fault_is_retried_only_if_worth_it(
    simulated: SimulatedPool, pool_file: WritePool, fault: str, why: str, tries: int
):
    faults = Faults(**{fault: 1.0}, retry_after_s=0.01, hang_s=60)  # type: ignore[arg-type]
    with serving(build_app(simulated, faults=faults, time_scale=0)) as url:
        pool = open_http(
            pool_file(
                url, endpoint={**QUICK, "max_tries": 3, "read_s": 0.3 if fault == "hang" else 30.0}
            )
        )
        reply = await pool.ask(Call("Mint", "What is the currency of Japan?"))
        await pool.aclose()
        assert stats(url)["total"]["requests"] == tries
    assert reply.failure == "unavailable"
    assert reply.text == ""
    assert reply.retries == tries - 1
    assert reply.note is not None
    assert why in reply.note


async def test_slow_tokens_end_at_the_total_time_limit(
    simulated: SimulatedPool, pool_file: WritePool
):
    with serving(build_app(simulated, faults=Faults(slow=1.0, slow_s=4.0), time_scale=0)) as url:
        # Bytes come every 0.5 s, so the read limit never strikes.
        pool = open_http(
            pool_file(url, endpoint={**QUICK, "max_tries": 1, "read_s": 20, "total_s": 0.7})
        )
        started = time.perf_counter()
        reply = await pool.ask(Call("Mint", "What is the currency of Japan?"))
        assert 0.6 < time.perf_counter() - started < 3.5
        await pool.aclose()
    assert reply.failure == "unavailable"
    assert reply.note is not None
    assert "no whole reply within 0.7 s" in reply.note


async def test_retry_after_is_waited_for(simulated: SimulatedPool, pool_file: WritePool):
    faults = Faults(rate_limit=1.0, retry_after_s=0.4)
    with serving(build_app(simulated, faults=faults, time_scale=0)) as url:
        pool = open_http(pool_file(url, endpoint={**QUICK, "max_tries": 2}))
        started = time.perf_counter()
        await pool.ask(Call("Mint", "x"))
        assert time.perf_counter() - started >= 0.4
        await pool.aclose()


async def test_a_pause_longer_than_allowed_is_not_waited_for(
    simulated: SimulatedPool, pool_file: WritePool
):
    faults = Faults(rate_limit=1.0, retry_after_s=60)
    with serving(build_app(simulated, faults=faults, time_scale=0)) as url:
        pool = open_http(pool_file(url, endpoint={**QUICK, "max_wait_s": 1.0}))
        reply = await asyncio.wait_for(pool.ask(Call("Mint", "x")), 30)
        await pool.aclose()
    assert (reply.failure, reply.retries) == ("unavailable", 0)


async def test_a_server_that_is_not_there(pool_file: WritePool):
    pool = open_http(pool_file("http://127.0.0.1:9", endpoint={**QUICK, "max_tries": 2}))
    reply = await pool.ask(Call("Mint", "x"))
    await pool.aclose()
    assert (reply.failure, reply.retries, reply.cost_usd) == ("unavailable", 1, 0.0)


async def test_the_fallback_answers_and_the_record_says_so(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool
):
    with serving(build_app(simulated, time_scale=0)) as url:
        path = pool_file(url, endpoint=QUICK, fallbacks={"Mint": "Curie"})
        text = path.read_text(encoding="utf-8").replace("model: Mint", "model: Gone")
        path.write_text(text, encoding="utf-8")
        pool = open_http(path)
        reply = await pool.ask(Call("Mint", asked[0].question))
        await pool.aclose()
    assert (reply.model, reply.failure) == ("Curie", None)
    assert reply.note == (
        "Mint: status 404 \"the model 'Gone' does not exist\"; answered by Curie, fallback of Mint"
    )


async def test_the_circuit_opens_and_heals(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool
):
    faults = Faults(server_error=1.0)
    endpoint = {**QUICK, "max_tries": 1, "breaker_failures": 3, "breaker_s": 1.0}
    with serving(build_app(simulated, faults=faults, time_scale=0)) as url:
        port = int(url.rpartition(":")[2])
        pool = open_http(pool_file(url, endpoint=endpoint))
        notes = [(await pool.ask(Call("Mint", asked[0].question))).note for _ in range(5)]
        assert (
            notes
            == ['Mint: status 500 "something broke"'] * 3
            + ['Mint: circuit open, not asked; before: status 500 "something broke"'] * 2
        )
        assert stats(url)["total"]["requests"] == 3
    with serving(build_app(simulated, time_scale=0), port=port):
        await asyncio.sleep(1.0)
        healed = await pool.ask(Call("Mint", asked[0].question))
        assert (healed.failure, healed.note, healed.breaker_state) == (None, None, "half-open")
        after = await pool.ask(Call("Mint", asked[1].question))
        assert (after.failure, after.breaker_state) == (None, "closed")
        await pool.aclose()


async def test_a_budget_file_that_breaks_does_not_keep_a_circuit_half_open(
    pool_file: WritePool, tmp_path: Path
):
    path = tmp_path / "budget.sqlite"
    budget = Budget(path, Limits(run_usd=1.0), run="r")
    endpoint = {**QUICK, "max_tries": 1, "breaker_failures": 1, "breaker_s": 0.05}
    pool = open_http(pool_file("http://127.0.0.1:9", endpoint=endpoint), budget=budget)
    await pool.ask(Call("Mint", "x"))
    await asyncio.sleep(0.1)
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE spent RENAME TO gone")
        with pytest.raises(BudgetUnavailable, match=r"budget\.sqlite: .*no such table: spent"):
            await pool.ask(Call("Mint", "x"))
        other.execute("ALTER TABLE gone RENAME TO spent")
    tried = await pool.ask(Call("Mint", "x"))
    await pool.aclose()
    assert tried.breaker_state == "half-open"
    assert "not asked" not in tried.note


async def test_the_ledger_tells_the_circuit_of_every_call_also_when_replayed_and_repriced(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool, tmp_path: Path
):
    """Two failures open Mint's circuit, the third call is not made, Curie's stays closed; then Mint heals."""
    endpoint = {**QUICK, "max_tries": 1, "breaker_failures": 2, "breaker_s": 1.0}
    store = tmp_path / "calls.jsonl"
    calls = [f"<search>{name}: {question.question}</search>"
             for name, question in zip(["Mint"] * 3 + ["Curie"], asked, strict=False)]  # fmt: skip
    limits = RolloutParams(max_rounds=5, max_new_tokens=50, temperature=1.0)

    async def played(pool: Pool, seed: int, script: Sequence[str]) -> Trajectory:
        return await rollout(
            asked[0], ScriptedGenerator([*script, "<answer>x</answer>"]), pool,
            render=Renderer(lambda *_: ""), params=limits, seed=seed,
        )  # fmt: skip

    with serving(build_app(simulated, faults=Faults(server_error=1.0), time_scale=0)) as url:
        port = int(url.rpartition(":")[2])
        file = read_pool_file(pool_file(url, endpoint=endpoint))
        pool = Recorder(HttpPool(file, {"here": ""}, max_concurrency=4), RecordStore(store))
        ill = await played(pool, 1, calls)
    with serving(build_app(simulated, time_scale=0), port=port):
        await asyncio.sleep(1.0)
        healed = await played(pool, 2, [calls[0], calls[0]])
        await pool.aclose()
    assert ill.ledger.breaker_states == ("closed", "closed", "open", "closed")
    assert (ill.ledger.calls, ill.ledger.failures) == (4, 4)
    assert healed.ledger.breaker_states == (
        "half-open",
        "half-open",
    )  # the second is answered from the store
    replay = open_replay(store, file.cards, request=file.request)
    for seed, script, live in ((1, calls, ill), (2, [calls[0], calls[0]], healed)):
        again = await played(replay, seed, script)
        assert again.ledger.breaker_states == live.ledger.breaker_states
        assert from_row(json.loads(json.dumps(to_row(again)))) == again
    row = row_of(ill, pool="p", router="r", seed=1, cards=file.cards)
    write_rows(tmp_path / "rows.parquet", [row])
    prices = {card.name: replace(card, completion_usd_per_mtok=9.0) for card in file.cards}
    reward = RewardParams(answer="em", cost_weight=0.5, cost_basis="all", cost_window=10)
    reprice_rows(tmp_path / "rows.parquet", prices, reward, out=tmp_path / "new.parquet")
    (repriced,) = read_rows(tmp_path / "new.parquet")
    assert json.loads(repriced.trajectory)["ledger"]["breaker_states"] == list(
        ill.ledger.breaker_states
    )


async def test_a_reply_is_written_down_while_whoever_asked_is_busy(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool, tmp_path: Path
):
    """A policy that computes holds its loop up; a process killed meanwhile must not pay again."""
    store = tmp_path / "calls.jsonl"
    with serving(build_app(simulated, time_scale=0)) as url:
        file = read_pool_file(pool_file(url, endpoint=QUICK))
        pool = Recorder(HttpPool(file, {"here": ""}, max_concurrency=4), RecordStore(store))
        asking = asyncio.ensure_future(pool.ask(Call("Mint", asked[0].question)))
        for _ in range(5):
            await asyncio.sleep(0)  # until the call is with the pool
        busy_until = time.monotonic() + 30
        while not store.stat().st_size and time.monotonic() < busy_until:
            time.sleep(0.01)
        assert not asking.done()
        (record,) = read_records(store)
        assert await asking == record.reply
        await pool.aclose()
    assert len(list(read_records(store))) == 1


def test_breaker_lets_one_call_through_when_half_open_and_opens_again():
    clock = [0.0]
    breaker = Breaker(2, 10.0, lambda: clock[0])
    ill, harmless = TryError("status 500"), TryError("status 429", ill=False)

    def attempt(error: BaseException | None) -> None:
        with suppress(TryError, asyncio.CancelledError), breaker.attempt():
            if error is not None:
                raise error

    attempt(ill)
    attempt(harmless)
    attempt(ill)
    assert breaker.state == "open"
    with (
        pytest.raises(TryError, match="circuit open, not asked; before: status 500"),
        breaker.attempt(),
    ):
        raise AssertionError("the call was let through")
    clock[0] = 10.0
    with suppress(TryError), breaker.attempt():
        with pytest.raises(TryError, match="circuit half-open, not asked"), breaker.attempt():
            raise AssertionError("two calls were let through")
        raise ill
    assert breaker.state == "open"
    clock[0] = 20.0
    attempt(asyncio.CancelledError())  # says nothing: the next call is the trial
    assert breaker.state == "half-open"
    attempt(None)
    assert breaker.state == "closed"
    attempt(ill)
    assert breaker.state == "closed"


async def test_concurrency_is_bounded_per_endpoint_and_overall(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool
):
    for limits, expected in (((3, 64), 3), ((64, 5), 5)):
        with serving(build_app(simulated, time_scale=0.2)) as url:
            path = pool_file(url, endpoint={"max_concurrency": limits[0]})
            pool = open_http(path, max_concurrency=limits[1])
            await asyncio.gather(
                *(pool.ask(Call("Mint", question.question)) for question in asked[:25])
            )
            await pool.aclose()
            assert stats(url)["most_open"] == expected


def test_a_pool_works_from_one_event_loop_after_another(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool
):
    with serving(build_app(simulated, time_scale=0)) as url:
        pool = open_http(pool_file(url))
        for question in asked[:3]:
            assert asyncio.run(pool.ask(Call("Mint", question.question))).failure is None
        asyncio.run(pool.aclose())


async def test_a_busy_event_loop_does_not_make_a_call_slow(
    simulated: SimulatedPool, asked: list[Question], pool_file: WritePool
):
    with serving(build_app(simulated, time_scale=0)) as url:
        pool = open_http(pool_file(url, endpoint={**QUICK, "read_s": 1.0, "total_s": 1.0}))
        await pool.ask(Call("Mint", asked[0].question))  # connects
        call = asyncio.create_task(pool.ask(Call("Mint", asked[1].question)))
        await asyncio.sleep(0)
        time.sleep(1.5)  # as a policy that computes
        reply = await call
        await pool.aclose()
    assert (reply.failure, reply.retries) == (None, 0)
    assert reply.latency_s < 1.0


async def test_a_cancelled_call_stays_in_the_budget(
    simulated: SimulatedPool, pool_file: WritePool, tmp_path: Path
):
    with serving(build_app(simulated, faults=Faults(hang=1.0), time_scale=0)) as url:
        budget = Budget(tmp_path / "budget.sqlite", Limits(run_usd=1.0), run="r")
        pool = open_http(pool_file(url), budget=budget)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.ask(Call("Mint", "x")), 1.0)
        await asyncio.sleep(0.1)
        assert budget.under_way_usd() == 0
        assert budget.spent_usd()["run r"] == pytest.approx(518.7e-6)
        await pool.aclose()


async def test_misuse_is_told(pool_file: WritePool):
    pool = open_http(pool_file("http://127.0.0.1:9"))
    assert (await pool.ask(Call("Nobody", "x"))).failure == "unknown_model"
    await pool.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await pool.ask(Call("Mint", "x"))


async def test_the_budget_of_a_question_ends_its_retries_in_a_reply(
    simulated: SimulatedPool, pool_file: WritePool, tmp_path: Path
):
    with serving(build_app(simulated, faults=Faults(cut=1.0), time_scale=0)) as url:
        budget = Budget(tmp_path / "budget.sqlite", Limits(question_usd=1.2e-3), run="r")
        pool = open_http(pool_file(url, endpoint=QUICK), budget=budget)
        reply = await pool.ask(Call("Mint", "x", "q1"))
        other = await pool.ask(Call("Mint", "x", "q2"))
        await pool.aclose()
    assert (reply.failure, reply.retries) == (other.failure, other.retries) == ("budget", 1)
    assert reply.note is not None
    assert "question q1 of run r: the next call could cost" in reply.note


async def test_the_budget_of_a_run_ends_retries_with_an_error(
    simulated: SimulatedPool, pool_file: WritePool, tmp_path: Path
):
    with serving(build_app(simulated, faults=Faults(cut=1.0), time_scale=0)) as url:
        path = pool_file(url, endpoint=QUICK)
        # Worst case of one try: (128 + 1) prompt tokens at 0.3 and 600 at 0.8 = 518.7 micro-dollars.
        budget = Budget(tmp_path / "budget.sqlite", Limits(run_usd=1.2e-3), run="r")
        pool = open_http(path, budget=budget)
        with pytest.raises(BudgetExceeded, match="run r: the next call could cost"):
            await pool.ask(Call("Mint", "x"))
        assert budget.spent_usd()["run r"] == pytest.approx(2 * 518.7e-6)
        await pool.aclose()
        assert stats(url)["total"]["requests"] == 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("soon", None),
        ("nan", None),
        (None, None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_retry_after_header(header: str | None, seconds: float | None):
    assert retry_after_s(header) == seconds


def test_retry_after_may_be_a_date():
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    later = retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT")
    assert later is not None
    assert later > 1e9


def test_faults_from_the_command_line():
    assert parse_faults("0.18").hang == pytest.approx(0.02)
    assert parse_faults("hang=0.1, slow=0.2,hang_s=9") == Faults(hang=0.1, slow=0.2, hang_s=9)
    for text, problem in (("hung=1", "hung"), ("hang=x", "hang=x"), ("hang=0.9,cut=0.9", "1.8")):
        with pytest.raises(Exception, match=problem):
            parse_faults(text)


MARKED_KEY = "sk-MARKED-0123456789abcdef"


async def test_a_key_sent_back_by_the_server_is_not_handed_on(
    simulated: SimulatedPool, pool_file: WritePool, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)

    class Echo(SimulatedPool):
        def say(self, name: str, query: str) -> str:  # noqa: ARG002
            return f"Your key is {MARKED_KEY}."

    echo = Echo(simulated.candidates, {}, seed=1)
    with serving(build_app(echo, time_scale=0, key=MARKED_KEY)) as url:
        path = pool_file(url, endpoint={"key_env": "TEST_POOL_KEY"})
        file = read_pool_file(path)
        pool = HttpPool(file, file.keys({"TEST_POOL_KEY": MARKED_KEY}), max_concurrency=2)
        reply = await pool.ask(Call("Mint", "x"))
        await pool.aclose()
        wrong = HttpPool(file, {"here": "sk-WRONG-0123456789"}, max_concurrency=2)
        refused = await wrong.ask(Call("Mint", "x"))
        await wrong.aclose()
    assert reply.text == "Your key is [key]."
    assert refused.failure == "unavailable"
    assert MARKED_KEY not in caplog.text + repr(reply)
    assert "sk-WRONG" not in caplog.text + repr(refused)
