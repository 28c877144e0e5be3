"""A router that chooses before it asks: the words of the candidate are passed on while it writes them."""

import json
import time
from pathlib import Path

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.baselines.cascade import Cascade
from routerr1.baselines.replies import Always
from routerr1.config import Params
from routerr1.pool.base import Call
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.failures import without_secrets
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.thoughts import without_thoughts
from routerr1.pool.words import Words
from routerr1.protocol import escape
from routerr1.serve.build import reply_route
from routerr1.serve.engine import Engine, Identity
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.server import serving
from tests.serve.conftest import Running, Start
from tests.serve.stub import USAGE, WORDS, build_stub
from tests.serve.test_allowed import Unsure
from tests.serve.test_openai_client import ASK, client, until
from tests.servers import write_pool_file

TEXT = "".join(WORDS)


def event(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


KEY = "sk-secret-123"


async def routed(
    start: Start, folder: Path, params: Params, address: str, router: Cascade | None = None
) -> Running:
    """A gateway whose router asks Atlas, whatever the question; Atlas has replied once."""
    path = write_pool_file(folder / "pools/stub.yaml", address, default_candidates())
    budget = Budget(folder / "b.sqlite", Limits(), run="r")
    pool = HttpPool(read_pool_file(path), {"here": KEY}, max_concurrency=8, budget=budget)
    route = reply_route(router or Always("Atlas"), "fixed/Atlas", params)
    identity = Identity("routerr1", "8", "fixed/Atlas", "http")
    engine = Engine(identity, route, pool, budget, answers_with_reply=True)
    running = start()
    await until(lambda: running.gateway.loop is not None)
    running.server.call(lambda: running.gateway.take_over(engine))
    await until(lambda: running.gateway.engine is engine)
    await pool.ask(Call("Atlas", "?"))
    return running


def streamed(openai_client: openai.OpenAI) -> list[str]:
    """The pieces of an answer."""
    chunks = openai_client.chat.completions.create(**ASK, stream=True)
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    return [piece for piece in said if piece]


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


async def test_a_cascade_passes_on_the_words_of_its_last_candidate_only(
    start: Start, params: Params, tmp_path: Path
) -> None:
    cascade = Cascade(("Penny", "Atlas"), (0.8, 0.0), Unsure())  # type: ignore[arg-type]
    app = build_stub(word_s=0.05)
    with serving(app) as address:
        running = await routed(start, tmp_path, params, address, cascade)
        await running.gateway.engine.pool.ask(Call("Penny", "?"))
        del app.state.bodies[:]
        with client(running) as openai_client:
            assert "".join(streamed(openai_client)) == TEXT
    assert [(body["model"], bool(body.get("stream"))) for body in app.state.bodies] == [
        ("Penny", False), ("Atlas", True),
    ]  # fmt: skip


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


async def test_a_stream_that_is_tried_again_goes_on_where_it_broke_off(
    start: Start, params: Params, tmp_path: Path
) -> None:
    app = build_stub(break_after=3, breaks=1)
    with serving(app) as address:
        running = await routed(start, tmp_path, params, address)
        with client(running) as openai_client:
            assert "".join(streamed(openai_client)) == TEXT
    assert app.state.broken == 1
    running.gateway.flush()
    (row,) = running.gateway.store.requests()
    assert (row.status, row.calls[0]["retries"]) == (200, 1)


@pytest.mark.parametrize("words", [("It is ", "easy.", "</think>", "Paris."), ("Paris</think>",)])
async def test_a_mark_that_ends_thoughts_is_read_alike_live_and_whole(
    start: Start, params: Params, tmp_path: Path, words: tuple[str, ...]
) -> None:
    with serving(build_stub(words=words)) as address:
        running = await routed(start, tmp_path, params, address)
        with client(running) as openai_client:
            whole = openai_client.chat.completions.create(**ASK).choices[0].message.content
            assert "".join(streamed(openai_client)) == whole == words[-1].removesuffix("</think>")


async def test_words_that_were_sent_stay_in_the_answer_though_a_mark_says_they_were_thoughts(
    start: Start, params: Params, tmp_path: Path
) -> None:
    words = ["Paris."]
    with serving(build_stub(words=words)) as address:
        running = await routed(
            start, tmp_path, params, address
        )  # its first reply holds no thoughts
        words[:] = ["It is ", "easy.", "</think>", "Paris."]
        with client(running) as openai_client:
            assert "".join(streamed(openai_client)) == "It is easy.\n\nParis."
            assert "".join(streamed(openai_client)) == "Paris."  # now it is known to think
    running.gateway.flush()
    assert [row.status for row in running.gateway.store.requests()] == [200, 200]


async def test_a_key_of_the_pool_is_in_no_word_though_it_comes_in_two_pieces(
    start: Start, params: Params, tmp_path: Path
) -> None:
    words = ("Take ", f"it: {KEY[:6]}", f"{KEY[6:]} ", "is all.")
    with serving(build_stub(words=words)) as address:
        running = await routed(start, tmp_path, params, address)
        with client(running) as openai_client:
            said = streamed(openai_client)
    assert said[:2] == ["Take", " it:"]
    assert "".join(said) == "Take it: [key] is all."


@given(st.lists(st.text("skey-01 ", max_size=6)))
def test_no_part_of_a_key_is_ever_shown(pieces: list[str]) -> None:
    key, words = "key-0101", Words(["key-0101"])
    shown = "".join(words.more(event(piece)) for piece in pieces)
    whole = without_secrets("".join(pieces), [key])
    assert whole.strip().startswith(shown)


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
        b"{}",
        b'{"choices": []}',
    ):
        assert words.more(odd) == ""
    assert (words.more(event("Paris ")), words.more(event("is"))) == ("Paris", " is")
    assert (words.more(event(" <b")), words.more(event("old"))) == ("", "")
    split = Words()  # an event on several lines is read at the end
    assert [split.more(each) for each in (b'{"choices":', event("Paris"))] == ["", ""]
