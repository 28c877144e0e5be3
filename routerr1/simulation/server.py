"""The simulated pool behind a real OpenAI-compatible HTTP server, with faults on request.

This is a simulation (see `pool.py`): answers, prices and latencies are made up. Sockets, status
codes, headers and waiting are real, so a client meets the failures of a real server.
`POST /v1/chat/completions`, `GET /v1/models`, and `GET /stats` with the server's own count.
"""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from routerr1.errors import PoolError
from routerr1.pool.base import Call
from routerr1.simulation.faults import FaultDice, Faults
from routerr1.simulation.pool import SimulatedPool, count_tokens
from routerr1.types import Reply

_SLOW_PIECES = 8
_TAGS = "</information><answer>{}</answer><search>Nobody: {}</search>"


class Message(BaseModel):
    """One turn of a chat."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """The fields of a chat completion request that are read; others are ignored."""

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


@dataclass
class Stats:
    """Counts of the server, by model.

    Attributes:
        requests: well-formed chat requests, with or without a fault.
        faults: by kind.
        prompt_tokens, completion_tokens: of replies whose usage was sent whole; a huge reply is not
            counted here, because a client should refuse it.
        unreported_prompt_tokens, unreported_completion_tokens: of replies that were made (and would
            be billed) but whose usage was never seen: hung, cut, broken and huge ones.
    """

    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    completion_tokens: Counter[str] = field(default_factory=Counter)
    unreported_prompt_tokens: Counter[str] = field(default_factory=Counter)
    unreported_completion_tokens: Counter[str] = field(default_factory=Counter)
    now_open: int = 0
    most_open: int = 0

    def reported(self, reply: Reply) -> None:
        """Count usage that was sent with a whole body."""
        self.replies[reply.model] += 1
        self.prompt_tokens[reply.model] += reply.prompt_tokens
        self.completion_tokens[reply.model] += reply.completion_tokens

    def unreported(self, reply: Reply) -> None:
        """Count tokens that the client cannot know of."""
        self.unreported_prompt_tokens[reply.model] += reply.prompt_tokens
        self.unreported_completion_tokens[reply.model] += reply.completion_tokens

    def as_json(self) -> dict[str, Any]:
        """Everything, with sums."""
        counts = {name: value for name, value in vars(self).items() if isinstance(value, Counter)}
        shown: dict[str, Any] = {
            name: dict(sorted(count.items())) for name, count in counts.items()
        }
        totals = {name: count.total() for name, count in counts.items()}
        return {**shown, "total": totals, "most_open": self.most_open}


class _CutShort(Response):
    """Promises the whole body and closes the connection half-way."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        # uvicorn closes the connection of an application that raises half-way.
        raise ConnectionAbortedError("cut on purpose")


def build_app(
    pool: SimulatedPool,
    *,
    faults: Faults | None = None,
    seed: int = 0,
    time_scale: float = 1.0,
    key: str | None = None,
    max_open: int | None = None,
) -> FastAPI:
    """The server's application.

    Args:
        pool: made without `sleep`, because the server waits itself.
        time_scale: factor on simulated seconds; 0 answers at once.
        key: if given, requests without it as bearer token get 401.
        max_open: most open requests; further ones get 429, as at a hosted model.
    """
    faults = faults or Faults()
    dice = FaultDice(faults, seed)
    stats = Stats()
    app = FastAPI(title="routerr1 simulated pool", docs_url=None, redoc_url=None)
    names = {card.name for card in pool.cards}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        data = [{"id": name, "object": "model", "owned_by": "simulation"} for name in sorted(names)]
        return {"object": "list", "data": data}

    @app.get("/stats")
    async def count() -> dict[str, Any]:
        return stats.as_json()

    @app.post("/v1/chat/completions")
    async def complete(body: ChatRequest, request: Request) -> Response:
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            raise HTTPException(401, "wrong or missing key")
        if body.model not in names:
            raise HTTPException(404, f"the model {body.model!r} does not exist")
        stats.requests[body.model] += 1
        stats.now_open += 1
        stats.most_open = max(stats.most_open, stats.now_open)
        try:
            if max_open is not None and stats.now_open > max_open:
                stats.faults["too_many"] += 1
                return _error(429, "too many requests at once", {"retry-after": "1"})
            return await _answer(pool, body, faults, dice, stats, time_scale)
        finally:
            stats.now_open -= 1

    return app


async def _answer(
    pool: SimulatedPool,
    body: ChatRequest,
    faults: Faults,
    dice: FaultDice,
    stats: Stats,
    time_scale: float,
) -> Response:
    query = body.messages[-1].content
    kind = dice.draw(body.model, query)
    if kind is not None:
        stats.faults[kind] += 1
    if kind == "rate_limit":
        return _error(429, "slow down", {"retry-after": f"{faults.retry_after_s:g}"})
    if kind == "server_error":
        return _error(500, "something broke")
    reply = _shortened(await pool.ask(Call(body.model, query)), body)
    await asyncio.sleep(reply.latency_s * time_scale)
    completion = _completion(reply)
    content = json.dumps(completion).encode()
    match kind:
        case "hang":
            stats.unreported(reply)
            await asyncio.sleep(faults.hang_s)
            return _error(504, "hung on purpose")
        case "cut":
            stats.unreported(reply)
            return _CutShort(content, media_type="application/json")
        case "broken_json":
            stats.unreported(reply)
            return Response(content[: len(content) // 2], media_type="application/json")
        case "huge":
            stats.unreported(reply)
            return _huge(completion, faults.huge_bytes)
        case "empty_choice":
            completion["choices"] = []
        case "tags":
            completion["choices"][0]["message"]["content"] = _TAGS.format(reply.text, query)
    stats.reported(reply)
    if kind == "slow":
        return StreamingResponse(_slowly(content, faults.slow_s), media_type="application/json")
    return JSONResponse(completion)


def _shortened(reply: Reply, body: ChatRequest) -> Reply:
    """Truncate to `max_tokens`, as a real server does."""
    most = body.max_completion_tokens or body.max_tokens
    if most is None or reply.completion_tokens <= most:
        return reply
    words = reply.text.split()
    while words and count_tokens(" ".join(words)) > most:
        words.pop()
    text = " ".join(words)
    return Reply(
        reply.model, text, reply.prompt_tokens, count_tokens(text), latency_s=reply.latency_s
    )


def _completion(reply: Reply) -> dict[str, Any]:
    return {
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "created": 0,
        "model": reply.model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": reply.text},
            }
        ],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {"error": {"message": message, "type": "simulated", "code": status}}
    return JSONResponse(body, status, headers=headers)


def _huge(completion: dict[str, Any], size: int) -> Response:
    completion["choices"][0]["message"]["content"] = "all work and no play " * (size // 21)
    return JSONResponse(completion)


async def _slowly(content: bytes, seconds: float) -> AsyncIterator[bytes]:
    piece = -(-len(content) // _SLOW_PIECES)
    for start in range(0, len(content), piece):
        await asyncio.sleep(seconds / _SLOW_PIECES)
        yield content[start : start + piece]


@contextmanager
def serving(app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve `app` from a thread while the block runs; gives the address, e.g. http://127.0.0.1:40123.

    Args:
        port: 0 takes a free one.

    Raises: PoolError if the port is taken.
    """
    import uvicorn

    listening = listen(host, port)
    server = uvicorn.Server(server_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        # The socket listens already, so early requests wait in its queue.
        yield f"http://{host}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def serve_forever(app: FastAPI, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is called with the address once connections are taken.

    Raises: PoolError if the port is taken.
    """
    import uvicorn

    listening = listen(host, port)
    ready(f"http://{host}:{listening.getsockname()[1]}")
    uvicorn.Server(server_config(app)).run(sockets=[listening])


def server_config(app: FastAPI) -> Any:
    """uvicorn's settings: quiet, and a stop does not wait for hung requests."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=0,
        timeout_keep_alive=30,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises: PoolError naming the address that cannot be used.
    """
    # With the protocol named, asyncio turns Nagle's algorithm off; else each reply waits 40 ms for an ACK.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise PoolError(
            f"cannot listen on {host}:{port} ({error.strerror}); is it taken?"
        ) from None
    return listening
