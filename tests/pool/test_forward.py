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
