"""A model server of OpenAI's protocol that streams, for candidates that are passed through."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

WORDS = ("Paris ", "is ", "the ", "capital ", "of ", "France.")
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def build_stub(
    *,
    words: Sequence[str] = WORDS,
    word_s: float = 0.0,
    break_after: int | None = None,
    breaks: int | None = None,
) -> FastAPI:
    """The server; `app.state.bodies` holds the requests it had, `app.state.left` how many left early.

    Args:
        words: the reply, in the pieces of a stream.
        word_s: pause before each word of a stream.
        break_after: words after which a stream breaks off.
        breaks: how many streams break off; None for all.
    """
    app = FastAPI()
    app.state.bodies = []
    app.state.left = 0
    app.state.broken = 0

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        app.state.bodies.append(body)
        if body["messages"][-1]["content"] == "refuse":
            return JSONResponse({"error": {"message": "no such thing", "code": 400}}, 400)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
        if body.get("tools"):
            call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return JSONResponse(
                {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                 "choices": [choice], "usage": USAGE}
            )  # fmt: skip
        broken = break_after is not None and (breaks is None or app.state.broken < breaks)
        app.state.broken += broken
        at = break_after if broken else None
        return StreamingResponse(
            _stream(app, body, words, word_s, at), media_type="text/event-stream"
        )

    return app


async def _stream(
    app: FastAPI,
    body: dict[str, Any],
    words: Sequence[str],
    word_s: float,
    break_after: int | None,
) -> AsyncIterator[bytes]:
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    try:
        for number, word in enumerate(words):
            await asyncio.sleep(word_s)
            if number == break_after:
                raise ConnectionAbortedError("broken off on purpose")
            delta = {"content": word, **({"role": "assistant"} if number == 0 else {})}
            yield _event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        yield _event({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield _event({**base, "choices": [], "usage": USAGE})
        yield b"data: [DONE]\n\n"
    except asyncio.CancelledError:
        app.state.left += 1
        raise


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
