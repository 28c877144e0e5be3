"""A forwarded request: what of a candidate's stream reaches the client."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import Response

from routerr1.pool.base import Call
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.simulation.server import serving


def _event(**choice: object) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, **choice}]})}\n\n"


_WHOLE = _event(delta={"content": "Paris."}) + _event(delta={}, finish_reason="stop")


@pytest.mark.parametrize(
    "error", ["too many requests", '{"code": 429, "message": "slow down"}', "busy\ndata: try later"]
)
async def test_an_error_event_is_no_part_of_the_stream_and_the_call_is_tried_again(
    pool_file: Callable[..., Path], error: str
) -> None:
    bodies = [f"event: error\ndata: {error}\n\n", f"event: message\n{_WHOLE}data: [DONE]\n\n"]
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def answer() -> Response:
        return Response(bodies.pop(0), media_type="text/event-stream")

    emitted: list[bytes] = []
    with serving(app) as url:
        file = read_pool_file(pool_file(url, endpoint={"backoff_s": 0.005}))
        pool = HttpPool(file, {"here": ""}, max_concurrency=4)
        found = await pool.forward(Call("Curie", "?"), {"messages": []}, emitted.append)
        await pool.aclose()
    assert (found.reply.text, found.reply.failure, found.reply.retries) == ("Paris.", None, 1)
    assert [json.loads(event)["choices"][0]["delta"] for event in emitted] == [
        {"content": "Paris."},
        {},
    ]


KEY = "sk-secret-123"


@pytest.mark.parametrize(
    "pieces",
    [("take it: sk-secret-123 now",), ("take it: sk-se", "cret-123", " now"), ("take it: s", "k-secret-123 now")],
)  # fmt: skip
async def test_a_key_of_the_pool_that_a_candidate_sends_back_is_not_passed_on(
    pool_file: Callable[..., Path], pieces: tuple[str, ...]
) -> None:
    events = [_event(delta={"content": piece}) for piece in ("It is", *pieces)]
    end = {"id": KEY, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    stream = "".join([*events, f"data: {json.dumps(end)}\n\n"])
    message = {"role": "assistant", "content": "".join(pieces), KEY: KEY}
    call = {"id": "c", "function": {"name": "f", "arguments": json.dumps({"key": KEY})}}
    message["tool_calls"] = [call]
    whole = json.dumps({"choices": [{"index": 0, "message": message}]})
    whole = whole.replace(KEY, "\\u0073k-secret-123", 1)  # JSON has more than one way to write it
    bodies = [(stream, "text/event-stream"), (whole, "application/json")]
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def answer() -> Response:
        if not bodies:
            return Response(json.dumps({"error": {"message": f"not by {KEY}"}}), 400)
        body, kind = bodies.pop(0)
        return Response(body, media_type=kind)

    emitted: list[bytes] = []
    with serving(app) as url:
        pool = HttpPool(read_pool_file(pool_file(url)), {"here": KEY}, max_concurrency=4)
        await pool.forward(Call("Curie", "?"), {"messages": []}, emitted.append)
        found = await pool.forward(Call("Curie", "?"), {"messages": []})
        failed = await pool.forward(Call("Curie", "?"), {"messages": []})
        await pool.aclose()
    deltas = [json.loads(event)["choices"][0]["delta"] for event in emitted]
    assert "".join(delta.get("content", "") for delta in deltas) == "It istake it: [key] now"
    assert json.loads(emitted[-1])["id"] == "[key]"
    sent = json.loads(found.content)["choices"][0]["message"]
    assert (sent["content"], sent["[key]"]) == ("take it: [key] now", "[key]")
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"key": "[key]"}
    assert failed.reply.note == 'Curie: status 400 "not by [key]"'
    assert "secret" not in b"".join([*emitted, found.content]).decode()


@pytest.mark.parametrize(
    "body", ['data: {"choices": [{"message": {"content": "Paris"}}]}\n\n', '[{"generated_text": "Paris"}]']
)  # fmt: skip
async def test_a_body_in_another_form_than_asked_for_is_not_passed_on(
    pool_file: Callable[..., Path], body: str
) -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def answer() -> Response:
        return Response(body)

    with serving(app) as url:
        pool = HttpPool(read_pool_file(pool_file(url)), {"here": ""}, max_concurrency=4)
        found = await pool.forward(Call("Curie", "?"), {"messages": []})
        await pool.aclose()
    assert (found.reply.text, found.reply.failure, found.content) == ("Paris", None, b"")
