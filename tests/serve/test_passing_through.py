"""A candidate asked by its name: the client's own request, and the candidate's own reply."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI

from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.server import serving
from tests.serve.conftest import FRANCE, Running, Start
from tests.serve.stub import USAGE, WORDS, build_stub
from tests.serve.test_openai_client import asynchronous, client, until
from tests.servers import write_pool_file

ASK: dict[str, Any] = {"model": "Atlas", "messages": [{"role": "user", "content": FRANCE}]}
TEXT = "".join(WORDS)


@contextmanager
def through(start: Start, folder: Path, stub: FastAPI, **options: object) -> Iterator[Running]:
    """A gateway in front of a stub."""
    with serving(stub) as address:
        path = write_pool_file(folder / "pools/stub.yaml", address, default_candidates())
        file = read_pool_file(path)
        budget = Budget(folder / "b.sqlite", Limits(), run="r")
        pool = HttpPool(file, {"here": ""}, max_concurrency=64, budget=budget)
        yield start(asked=pool, budget=budget, candidates="all", **options)


def price(completion: int = 7, prompt: int = 11) -> float:
    atlas = next(each for each in default_candidates() if each.name == "Atlas")
    usd = prompt * atlas.prompt_usd_per_mtok + completion * atlas.completion_usd_per_mtok
    return usd / 1e6


def test_messages_and_tools_arrive_and_the_price_is_added(start: Start, tmp_path: Path) -> None:
    stub = build_stub()
    messages = [{"role": "system", "content": "Be brief."}, *ASK["messages"]]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with through(start, tmp_path, stub) as running, client(running) as openai_client:
        found = openai_client.chat.completions.create(
            model="Atlas",
            messages=messages,
            temperature=0.5,
            max_tokens=9,
            top_p=0.9,
            extra_body={"spend": 3},
        )
        called = openai_client.chat.completions.create(**ASK, tools=[tool])
        spent = running.budget.spent_usd()["run r"]
    body = stub.state.bodies[0]
    assert body["messages"] == messages
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.5, 9, 0.9)
    assert not {"stream", "spend"} & set(body)
    assert (found.choices[0].message.content, found.model) == (TEXT, "Atlas")
    assert found.usage.cost == pytest.approx(price())
    assert found.usage.total_tokens == USAGE["total_tokens"]
    assert called.choices[0].message.tool_calls[0].function.name == "f"
    assert spent == pytest.approx(2 * price(), abs=1e-8)


def test_a_stream_is_passed_on_word_by_word(start: Start, tmp_path: Path) -> None:
    stub = build_stub()
    with through(start, tmp_path, stub) as running, client(running) as openai_client:
        chunks = list(
            openai_client.chat.completions.create(
                **ASK, stream=True, stream_options={"include_usage": True}
            )
        )
        plain = list(openai_client.chat.completions.create(**ASK, stream=True))
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert [word for word in said if word] == list(WORDS)
    assert chunks[-1].usage.cost == pytest.approx(price())
    assert {chunk.model for chunk in chunks} == {"Atlas"}
    assert plain[-1].choices[0].finish_reason == "stop"
    assert all(body["stream_options"] == {"include_usage": True} for body in stub.state.bodies)


def test_a_stream_that_breaks_off_ends_in_an_error_and_is_not_begun_again(
    start: Start, tmp_path: Path
) -> None:
    stub = build_stub(break_after=2)
    words: list[str] = []
    with through(start, tmp_path, stub) as running, client(running) as openai_client:
        stream = openai_client.chat.completions.create(**ASK, stream=True)
        words.extend(next(stream).choices[0].delta.content or "" for _ in range(2))
        with pytest.raises(openai.APIError, match="Atlas"):
            next(stream)
        assert running.budget.spent_usd()["run r"] > price()  # its worst case, for it may be billed
    assert words == list(WORDS[:2])
    assert len(stub.state.bodies) == 1


async def test_a_client_that_leaves_ends_the_candidates_stream(
    start: Start, tmp_path: Path
) -> None:
    stub = build_stub(word_s=0.3)
    with through(start, tmp_path, stub) as running:
        async with asynchronous(running) as openai_client:
            stream = await openai_client.chat.completions.create(**ASK, stream=True)
            async for _ in stream:
                break
            await stream.close()
        await until(lambda: stub.state.left == 1)
        await until(lambda: running.gateway.engine.under_way == 0)
        assert running.budget.spent_usd()["run r"] > price()
        await asyncio.sleep(0)


def test_half_a_surrogate_pair_is_replaced_wherever_it_is(start: Start, tmp_path: Path) -> None:
    stub = build_stub()
    body = {**ASK, "metadata": {"note": "half \ud83d"}, "user": "\U0001f600"}
    with through(start, tmp_path, stub) as running:
        found = httpx2.post(
            f"{running.url}/v1/chat/completions", content=json.dumps(body), timeout=30
        )
    assert found.json()["choices"][0]["message"]["content"] == TEXT
    assert stub.state.bodies[0]["metadata"] == {"note": "half \ufffd"}
    assert stub.state.bodies[0]["user"] == "\U0001f600"


def test_what_the_candidate_refuses_is_told(start: Start, tmp_path: Path) -> None:
    with (
        through(start, tmp_path, build_stub()) as running,
        client(running) as openai_client,
        pytest.raises(openai.BadRequestError, match="no such thing"),
    ):
        openai_client.chat.completions.create(
            model="Atlas", messages=[{"role": "user", "content": "refuse"}]
        )


def test_several_answers_at_once_are_refused_before_they_cost_several_times(
    start: Start, tmp_path: Path
) -> None:
    stub = build_stub()
    with (
        through(start, tmp_path, stub) as running,
        client(running) as openai_client,
        pytest.raises(openai.BadRequestError, match="n: one answer"),
    ):
        openai_client.chat.completions.create(**ASK, n=3)
    assert stub.state.bodies == []
