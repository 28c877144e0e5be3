"""A router that chooses before it asks: the words of the candidate are passed on while it writes them."""

import json
import time
from pathlib import Path

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.baselines.replies import Always
from routerr1.config import Params
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.thoughts import without_thoughts
from routerr1.protocol import escape
from routerr1.serve.build import reply_route
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.words import Words
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.server import serving
from tests.serve.conftest import Running, Start
from tests.serve.stub import USAGE, WORDS, build_stub
from tests.serve.test_openai_client import ASK, client, until
from tests.servers import write_pool_file

TEXT = "".join(WORDS)


def event(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


async def routed(start: Start, folder: Path, params: Params, address: str) -> Running:
    """A gateway whose router asks Atlas, whatever the question."""
    path = write_pool_file(folder / "pools/stub.yaml", address, default_candidates())
    budget = Budget(folder / "b.sqlite", Limits(), run="r")
    pool = HttpPool(read_pool_file(path), {"here": ""}, max_concurrency=8, budget=budget)
    route = reply_route(Always("Atlas"), "fixed/Atlas", params)
    identity = Identity("routerr1", "8", "fixed/Atlas", "http")
    engine = Engine(identity, route, pool, budget, decides_first=True)
    running = start()
    await until(lambda: running.gateway.loop is not None)
    running.server.call(lambda: running.gateway.take_over(engine))
    await until(lambda: running.gateway.engine is engine)
    return running


async def test_words_arrive_while_the_candidate_writes_them(
    start: Start, params: Params, tmp_path: Path
) -> None:
    word_s = 0.15
    with serving(build_stub(word_s=word_s)) as address:
        running = await routed(start, tmp_path, params, address)
        with client(running) as openai_client:
            arrived: list[tuple[float, str]] = []
            usage = None
            options = {"include_usage": True}
            for chunk in openai_client.chat.completions.create(
                **ASK, stream=True, stream_options=options
            ):
                usage = chunk.usage or usage
                if chunk.choices and chunk.choices[0].delta.content:
                    arrived.append((time.perf_counter(), chunk.choices[0].delta.content))
            whole = openai_client.chat.completions.create(**ASK)
    assert "".join(word for _, word in arrived) == TEXT == whole.choices[0].message.content
    assert arrived[-1][0] - arrived[0][0] > 3 * word_s
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == tuple(USAGE.values())[:2]
    running.gateway.flush()
    costs = [row.cost_usd for row in running.gateway.store.requests()]
    assert costs == [usage.cost, whole.usage.cost]
    assert costs[0] == costs[1] > 0


async def test_a_stop_or_a_limit_waits_for_the_whole_reply(
    start: Start, params: Params, tmp_path: Path
) -> None:
    with serving(build_stub()) as address:
        running = await routed(start, tmp_path, params, address)
        with client(running) as openai_client:
            chunks = openai_client.chat.completions.create(**ASK, stream=True, stop=["the"])
            said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said.strip() == "Paris is"


async def test_a_stream_that_breaks_off_ends_in_an_error(
    start: Start, params: Params, tmp_path: Path
) -> None:
    with serving(build_stub(word_s=0.05, break_after=3)) as address:
        running = await routed(start, tmp_path, params, address)
        with client(running) as openai_client:
            stream = openai_client.chat.completions.create(**ASK, stream=True)
            said = [next(stream).choices[0].delta.content for _ in range(4)]
            with pytest.raises(openai.APIError, match="no candidate replied"):
                next(stream)
    assert said == ["", "Paris", " is", " the"]


@given(st.lists(st.text() | st.sampled_from(["Paris", " ", "<think>", "</answer>", "&lt;", "[T"])))
def test_certain_words_begin_the_answer_whatever_follows(pieces: list[str]) -> None:
    text, words = "".join(pieces), Words()
    shown = "".join(words.more(event(piece)) for piece in pieces)
    if "</think>" not in text.lower():  # an end of thoughts without a beginning
        assert escape(without_thoughts(text)).strip().startswith(shown)


def test_what_is_no_event_of_words_adds_none() -> None:
    words = Words()
    for odd in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"choices": [{"delta": {"content": 7}}]}',
        b'{"choices": []}',
    ):
        assert words.more(odd) == ""
    assert (words.more(event("Paris ")), words.more(event("is"))) == ("Paris", " is")
    assert (words.more(event(" <b")), words.more(event("old"))) == ("", "")
