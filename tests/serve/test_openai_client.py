"""The stock client of OpenAI's protocol, sync and async, against a gateway."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import sqlalchemy as sa

from routerr1.baselines.replies import Always
from routerr1.config import Params
from routerr1.pool.base import Call, Pool
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.serve.build import reply_route
from routerr1.serve.engine import Identity, Route
from routerr1.serve.keys import new_key
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Reply
from tests.serve.conftest import FRANCE, Running, Start

ASK: dict[str, Any] = {"model": "routerr1", "messages": [{"role": "user", "content": FRANCE}]}


def client(running: Running, key: str = "none", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, **options)


class Saying(Pool):
    """A pool with one reply to everything."""

    def __init__(self, inner: Pool, text: str) -> None:
        self.cards = inner.cards
        self._text = text
        self.asked: list[str] = []

    async def ask(self, call: Call) -> Reply:
        self.asked.append(call.candidate)
        return Reply(call.candidate, self._text, 1, 1, 1e-6)


def always_atlas(params: Params) -> Route:
    """A router without a policy, which asks Atlas whatever the question."""
    return reply_route(Always("Atlas"), "fixed/Atlas", params)


def asynchronous(running: Running, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)


async def test_a_question_is_answered_and_billed_as_the_ledger_says(
    start: Start, pool: SimulatedPool
) -> None:
    running = start()
    reply = await pool.ask(Call("Atlas", FRANCE))
    with client(running) as openai_client:
        found = openai_client.chat.completions.create(**ASK)
    assert found.choices[0].message.content == reply.text.strip()
    assert (found.model, found.system_fingerprint) == ("routerr1", "routerr1@7")
    assert found.choices[0].finish_reason == "stop"
    about = found.model_extra["routerr1"]
    assert found.usage.cost == about["cost"] == about["calls"][0]["cost"] == reply.cost_usd > 0
    assert (about["version"], about["pool"], about["spend"]) == ("7", "simulated", 10.0)
    assert [call["model"] for call in about["calls"]] == ["Atlas"]
    spent = [usd for scope, usd in running.budget.spent_usd().items() if scope.startswith("run ")]
    assert spent == [pytest.approx(reply.cost_usd, abs=1e-9)]
    usage = found.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > reply.completion_tokens


def test_a_stream_holds_the_same_words_and_the_usage_at_its_end(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        whole = openai_client.chat.completions.create(**ASK)
        options = {"include_usage": True}
        chunks = list(
            openai_client.chat.completions.create(**ASK, stream=True, stream_options=options)
        )
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == whole.choices[0].message.content
    assert len([word for word in said if word]) > 1
    assert not chunks[-1].choices
    assert chunks[-1].usage.cost == whole.usage.cost
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_thoughts_and_calls_are_streamed_if_asked_for(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        chunks = list(
            openai_client.chat.completions.create(
                **ASK, stream=True, extra_body={"include_reasoning": True}
            )
        )
    told = [chunk.model_extra.get("routerr1") or {} for chunk in chunks]
    assert [each["event"] for each in told if "event" in each] == [
        "thought", "call", "reply", "thought",
    ]  # fmt: skip
    reasoning = "".join(
        chunk.choices[0].delta.model_extra.get("reasoning_content") or "" for chunk in chunks
    )
    assert "geography: Atlas" in reasoning
    assert f"Atlas: {FRANCE}" in reasoning
    assert "<think>" not in reasoning


@pytest.mark.slow
async def test_two_hundred_at_once_are_answered_by_the_async_client(start: Start) -> None:
    running = start()
    async with asynchronous(running) as openai_client:
        found = await asyncio.gather(
            *(
                openai_client.chat.completions.create(
                    model="routerr1",
                    messages=[{"role": "user", "content": f"{FRANCE} {number}"}],
                    user=f"u{number}",
                )
                for number in range(200)
            )
        )
    assert len({each.id for each in found}) == 200
    running.gateway.flush()
    kept = {row.id: row for row in running.gateway.store.requests()}
    assert set(kept) == {each.id for each in found}
    assert all(kept[each.id].cost_usd == each.usage.cost for each in found)
    assert {row.question for row in kept.values()} == {None}  # keep: metadata


def test_the_models_are_listed_and_can_be_asked_by_name(start: Start, pool: SimulatedPool) -> None:
    running = start(candidates=["Atlas"])
    with client(running) as openai_client:
        assert [model.id for model in openai_client.models.list()] == ["routerr1", "Atlas"]
        assert openai_client.models.retrieve("Atlas").owned_by == "candidate"
        found = openai_client.chat.completions.create(**{**ASK, "model": "Atlas"})
        chunks = list(
            openai_client.chat.completions.create(**{**ASK, "model": "Atlas"}, stream=True)
        )
        with pytest.raises(openai.NotFoundError, match=r"'Curie' is not in serve\.candidates"):
            openai_client.chat.completions.create(**{**ASK, "model": "Curie"})
        with pytest.raises(openai.NotFoundError):
            openai_client.models.retrieve("../../etc/passwd")
    said = pool.say("Atlas", FRANCE)
    assert found.choices[0].message.content == said
    assert found.usage.cost > 0
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said


def test_the_responses_endpoint_answers_text(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        found = openai_client.responses.create(model="routerr1", input=FRANCE)
        chat = openai_client.chat.completions.create(**ASK)
        events = list(openai_client.responses.create(model="routerr1", input=FRANCE, stream=True))
    assert found.output_text == chat.choices[0].message.content
    assert found.usage.total_tokens == chat.usage.total_tokens
    assert events[-1].type == "response.completed"
    said = "".join(each.delta for each in events if each.type == "response.output_text.delta")
    assert said == found.output_text


def test_an_answer_is_cut_at_the_limit_and_at_a_stop(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        cut = openai_client.chat.completions.create(**ASK, max_tokens=5)
        stopped = openai_client.chat.completions.create(**ASK, stop=["capital"])
    assert (len(cut.choices[0].message.content), cut.choices[0].finish_reason) == (5, "length")
    assert "capital" not in stopped.choices[0].message.content


def test_a_reply_that_is_the_answer_is_cut_at_the_limit(
    start: Start, pool: SimulatedPool, params: Params
) -> None:
    running = start(asked=Saying(pool, "Paris, " * 9), route=always_atlas(params))
    with client(running) as openai_client:
        cut = openai_client.chat.completions.create(**ASK, max_tokens=2).choices[0]
        whole = openai_client.chat.completions.create(**ASK, max_tokens=20).choices[0]
        found = openai_client.responses.create(model="routerr1", input=FRANCE, max_output_tokens=2)
        chunks = list(openai_client.chat.completions.create(**ASK, stream=True, max_tokens=2))
    assert (cut.message.content, cut.finish_reason) == ("Paris, P", "length")
    assert (len(whole.message.content), whole.finish_reason) == (62, "stop")
    assert (found.output_text, found.status) == ("Paris, P", "incomplete")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris, P"
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("change", "error", "code", "param"),
    [
        ({"messages": []}, openai.BadRequestError, "invalid_value", "messages"),
        (
            {"messages": [{"role": "user", "content": "  "}]},
            openai.BadRequestError, "empty_question", "messages",
        ),
        (
            {"messages": [{"role": "system", "content": "Be brief."}]},
            openai.BadRequestError, "empty_question", "messages",
        ),
        (
            {"messages": [{"role": "user", "content": " \u200b\ufeff"}]},
            openai.BadRequestError, "empty_question", "messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
            openai.BadRequestError, "empty_question", "messages",
        ),
        (
            {"response_format": {"type": "json_object"}},
            openai.BadRequestError, "unsupported_parameter", "response_format",
        ),
        ({"top_logprobs": 3}, openai.BadRequestError, "unsupported_parameter", "top_logprobs"),
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": "../../etc/passwd"}, openai.NotFoundError, "model_not_found", "model"),
        ({"n": 2}, openai.BadRequestError, "unsupported_parameter", "n"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
            openai.BadRequestError, "unsupported_parameter", "tools",
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]},
            openai.BadRequestError, "unsupported_content", "messages",
        ),
        ({"extra_body": {"spend": 11}}, openai.BadRequestError, "invalid_value", "spend"),
        ({"extra_body": {"spend": -1}}, openai.BadRequestError, "invalid_value", "spend"),
        (
            {"messages": [{"role": "user", "content": "x" * 20_000}]},
            openai.BadRequestError, "context_length_exceeded", "messages",
        ),
        (
            {"extra_headers": {"X-Budget-USD": "much"}},
            openai.BadRequestError, "invalid_value", "X-Budget-USD",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_in_the_protocols_own_form(
    start: Start,
    change: dict[str, object],
    error: type[openai.APIStatusError],
    code: str,
    param: str,
) -> None:
    running = start()
    with client(running) as openai_client, pytest.raises(error) as refused:
        openai_client.chat.completions.create(**{**ASK, **change})
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("previous_response_id", "resp_1", "previous_response_id"),
        ("conversation", "conv_1", "conversation"),
        ("prompt", {"id": "p"}, "prompt"),
        ("background", True, "background"),
        ("top_logprobs", 2, "top_logprobs"),
        ("text", {"format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_response_that_would_miss_what_it_is_asked_for_is_refused(
    start: Start, field: str, value: object, param: str
) -> None:
    with client(start()) as openai_client, pytest.raises(openai.BadRequestError) as refused:
        openai_client.responses.create(model="routerr1", input=FRANCE, **{field: value})
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", param)


def test_thoughts_that_a_client_sends_back_are_passed_over(start: Start) -> None:
    said = [
        {"role": "user", "content": FRANCE},
        {"type": "reasoning", "id": "rs_1", "summary": []},
    ]
    with client(start()) as openai_client:
        found = openai_client.responses.create(model="routerr1", input=said)
        plain = openai_client.responses.create(model="routerr1", input=FRANCE)
        with pytest.raises(openai.BadRequestError):
            openai_client.responses.create(model="routerr1", input=said[1:])
    assert found.output_text == plain.output_text


def test_a_response_that_is_cut_ends_as_incomplete(start: Start) -> None:
    with client(start()) as openai_client:
        events = list(
            openai_client.responses.create(
                model="routerr1", input=FRANCE, stream=True, max_output_tokens=1,
                text={"format": {"type": "text"}},
            )
        )  # fmt: skip
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"


def test_a_trace_id_of_zeros_and_a_null_option_count_as_none(start: Start) -> None:
    none = f"00-{'0' * 32}-{'1' * 16}-01"
    body = {**ASK, "stream": True, "stream_options": {"include_usage": None}}
    with client(start()) as openai_client:
        found = openai_client.chat.completions.with_raw_response.create(
            **body, extra_headers={"traceparent": none}
        )
    assert found.headers["traceparent"].split("-")[1] != "0" * 32


async def test_a_database_that_fails_is_an_error_that_may_pass(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        number = openai_client.chat.completions.create(**ASK).id
    running.gateway.flush()
    said = {"request_id": number, "score": 1}
    with running.gateway.store._engine.begin() as db:
        db.execute(sa.text("DROP TABLE serve_feedback"))
    failed = httpx2.post(f"{running.url}/v1/feedback", json=said, timeout=30)
    assert (failed.status_code, failed.headers["x-should-retry"]) == (503, "true")
    assert failed.json()["error"]["code"] == "database_unavailable"
    secret, key = new_key("often", rate_per_minute=4)
    running.gateway.store.add_key(key)
    with running.gateway.store._engine.begin() as db:
        db.execute(sa.text("DROP TABLE serve_rates"))
    await asyncio.sleep(2.1)  # until the gateway reads the keys again
    with (
        client(running, secret) as openai_client,
        pytest.raises(openai.InternalServerError) as down,
    ):
        openai_client.models.list()
    assert down.value.code == "database_unavailable"


@pytest.mark.parametrize("stream", [True, False])
def test_a_budget_that_cannot_be_kept_lets_no_call_be_made(
    start: Start, tmp_path: Path, stream: bool
) -> None:
    running = start()
    with closing(sqlite3.connect(tmp_path / "budget.sqlite")) as other:
        other.execute("ALTER TABLE spent RENAME TO gone")
        with client(running) as openai_client, pytest.raises(openai.InternalServerError) as down:
            openai_client.chat.completions.create(**ASK, stream=stream)
        assert (down.value.status_code, down.value.code) == (503, "database_unavailable")
        assert "sqlite" not in str(down.value)
        other.execute("ALTER TABLE gone RENAME TO spent")
    with client(running) as openai_client:
        assert openai_client.chat.completions.create(**ASK).usage.cost > 0


def test_spend_is_taken_and_named(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        found = openai_client.chat.completions.create(**ASK, extra_body={"spend": 9})
    assert found.model_extra["routerr1"]["spend"] == 9


def test_a_router_without_spend_levels_names_none(start: Start) -> None:
    knn = Identity("routerr1", "7", "baseline/knn", "simulated", reads_spend=False)
    running = start(identity=knn)
    with client(running) as openai_client:
        found = openai_client.chat.completions.create(**ASK, extra_body={"spend": 9})
    assert found.model_extra["routerr1"]["spend"] is None
    assert httpx2.get(f"{running.url}/readyz").json()["reads_spend"] is False
    counted = httpx2.get(f"{running.url}/metrics").text
    assert 'model="routerr1",spend="none",status="200"' in counted


def test_a_budget_header_stops_calls_before_they_are_made(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        with pytest.raises(openai.RateLimitError) as refused:
            openai_client.chat.completions.create(**ASK, extra_headers={"X-Budget-USD": "0"})
        found = openai_client.chat.completions.create(**ASK, extra_headers={"X-Budget-USD": "0.1"})
    assert (refused.value.code, refused.value.type) == ("budget_exceeded", "insufficient_quota")
    assert "of 0.000000 USD are spent or set aside" in str(refused.value)
    assert found.usage.cost > 0


class Down(Pool):
    """A pool whose candidates do not answer."""

    def __init__(self, inner: Pool, failure: str = "unavailable") -> None:
        self.cards = inner.cards
        self._failure = failure

    async def ask(self, call: Call) -> Reply:
        return Reply(call.candidate, "", failure=self._failure, note="status 500 on purpose")


def test_a_pool_that_is_down_is_an_error_and_never_an_answer(
    start: Start, pool: SimulatedPool
) -> None:
    running = start(asked=Down(pool))
    with client(running) as openai_client:
        with pytest.raises(openai.InternalServerError) as failed:
            openai_client.chat.completions.create(**ASK)
        with pytest.raises(openai.APIStatusError, match="no candidate replied"):
            list(openai_client.chat.completions.create(**ASK, stream=True))
    assert failed.value.status_code == 503
    assert failed.value.code == "no_candidate_replied"
    assert "Atlas: status 500 on purpose" in str(failed.value)


def test_a_policy_without_an_answer_is_an_error(start: Start) -> None:
    running = start(ScriptedGenerator(["<think> hm"]))
    with client(running) as openai_client, pytest.raises(openai.InternalServerError) as failed:
        openai_client.chat.completions.create(**ASK)
    assert (failed.value.status_code, failed.value.code) == (502, "no_answer")


class Slow(Pool):
    """A pool that takes its time, and counts calls that were broken off."""

    def __init__(self, inner: Pool) -> None:
        self.cards = inner.cards
        self.started = self.cancelled = 0

    async def ask(self, call: Call) -> Reply:
        self.started += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Reply(call.candidate, "late")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_call_which_is_booked(
    start: Start, pool: SimulatedPool, tmp_path, *, stream: bool
) -> None:
    slow = Slow(pool)
    budget = Budget(tmp_path / "slow.sqlite", Limits(), run="slow")
    running = start(asked=BudgetedPool(slow, budget, max_reply_tokens=100), budget=budget)
    async with asynchronous(running) as openai_client:
        asking = asyncio.ensure_future(
            openai_client.chat.completions.create(**ASK, stream=stream, timeout=30)
        )
        await until(lambda: slow.started == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await until(lambda: slow.cancelled == 1)
    await until(lambda: running.gateway.engine.under_way == 0)
    running.gateway.flush()
    (row,) = running.gateway.store.requests()
    assert (row.status, row.code) == (499, "cancelled")
    assert row.cost_usd > 0
    assert row.cost_usd == pytest.approx(budget.spent_usd()["run slow"])


async def until(holds: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_keys_decide_who_may_ask_how_often_and_for_how_much(start: Start) -> None:
    running = start(candidates="all")
    store = running.gateway.store
    free, poor, limited = (
        new_key("free"),
        new_key("poor", month_usd=0.0),
        new_key("limited", rate_per_minute=2, max_spend=3, candidates=frozenset({"Atlas"})),
    )
    for _, key in (free, poor, limited):
        store.add_key(key)
    with client(running, free[0]) as openai_client:
        assert openai_client.chat.completions.create(**ASK).usage.cost > 0
    for wrong in ("wrong", free[0][:-1], f"{free[0]}x", "x" * 4000, "rr1-"):
        with (
            client(running, wrong) as openai_client,
            pytest.raises(openai.AuthenticationError) as no,
        ):
            openai_client.models.list()
        assert no.value.code == "invalid_api_key"
    with client(running, poor[0]) as openai_client, pytest.raises(openai.RateLimitError) as spent:
        openai_client.chat.completions.create(**ASK)
    assert (spent.value.code, spent.value.type) == ("insufficient_quota", "insufficient_quota")
    with client(running, limited[0]) as openai_client:
        names = [model.id for model in openai_client.models.list()]
        assert names == ["routerr1", "Atlas"]
        with pytest.raises(openai.PermissionDeniedError, match="3 at most"):
            openai_client.chat.completions.create(**ASK, extra_body={"spend": 4})
        with pytest.raises(openai.RateLimitError, match="2 requests a minute"):
            openai_client.models.list()


def test_a_key_reaches_only_its_candidates(start: Start) -> None:
    running = start()
    secret, key = new_key("penny", candidates=frozenset({"Penny"}))
    running.gateway.store.add_key(key)
    with client(running, secret) as openai_client, pytest.raises(openai.APIStatusError) as refused:
        openai_client.chat.completions.create(**ASK)  # the policy asks Atlas whatever it reads
    assert refused.value.status_code == 502


@pytest.mark.parametrize("stream", [True, False])
def test_a_router_that_chooses_what_a_key_may_not_ask_is_refused_for_good(
    start: Start, pool: SimulatedPool, params: Params, *, stream: bool
) -> None:
    saying = Saying(pool, "Paris")
    running = start(asked=saying, route=always_atlas(params))
    secret, key = new_key("penny", candidates=frozenset({"Penny"}))
    running.gateway.store.add_key(key)
    with (
        client(running, secret) as openai_client,
        pytest.raises(openai.PermissionDeniedError, match="the router chose Atlas") as refused,
    ):
        openai_client.chat.completions.create(**ASK, stream=stream)
    assert refused.value.code == "candidate_not_allowed"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert saying.asked == []


async def test_more_requests_than_are_taken_at_once_are_sent_away(
    start: Start, pool: SimulatedPool
) -> None:
    slow = Slow(pool)
    running = start(asked=slow, max_requests=3)
    async with asynchronous(running) as openai_client:
        waiting = [
            asyncio.ensure_future(openai_client.chat.completions.create(**ASK)) for _ in range(3)
        ]
        await until(lambda: slow.started == 3)
        with pytest.raises(openai.InternalServerError) as refused:
            await openai_client.chat.completions.create(**ASK)
        assert (refused.value.status_code, refused.value.code) == (503, "overloaded")
        assert httpx2.get(f"{running.url}/healthz").status_code == 200
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: running.gateway.engine.under_way == 0)
        assert len([model async for model in openai_client.models.list()]) == 1
