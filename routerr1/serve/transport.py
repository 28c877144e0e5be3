"""HTTP around the application: limits of headers and bodies, clients that leave, streams of events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from routerr1.serve.errors import ApiError, invalid
from routerr1.serve.requests import refuse_deep

T = TypeVar("T")
_PING_S = 15.0  # a comment, so that proxies keep a stream open
_BODY_S = 60.0  # for a whole body
_ALWAYS = ("/healthz", "/readyz", "/metrics")
_HIDDEN = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Refuses requests whose headers could mean two things or are too large, and those that are too many.

    Args:
        max_requests: under way at once, beside those for health and metrics.
    """

    def __init__(self, app: ASGIApp, *, max_header_bytes: int, max_requests: int) -> None:
        self._app = app
        self._max_header_bytes = max_header_bytes
        self._max_requests = max_requests
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HIDDEN]
            await send(message)

        problem = self._problem(scope)
        if problem is not None:
            await error_response(problem)(scope, receive, with_headers)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, with_headers)
        finally:
            self._under_way -= 1

    def _problem(self, scope: Scope) -> ApiError | None:
        if self._under_way >= self._max_requests and scope["path"] not in _ALWAYS:
            return ApiError(
                503, "too many requests are under way", "overloaded", headers={"retry-after": "1"}
            )
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        size = sum(len(name) + len(value) for name, value in headers)
        if size > self._max_header_bytes:
            return ApiError(
                431,
                f"the headers hold more than {self._max_header_bytes} bytes",
                "headers_too_large",
                headers={"connection": "close"},
            )
        names = [name for name, _ in headers]
        framed = names.count(b"content-length"), names.count(b"transfer-encoding")
        if max(framed) > 1 or min(framed) > 0 or names.count(b"host") > 1:
            return ApiError(
                400,
                "the length or the host of the request is stated twice",
                "ambiguous_headers",
                headers={"connection": "close"},
            )
        return None


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body of a request.

    Raises: ApiError 413 for a long one, 408 for a slow one.
    """
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > max_bytes:
        raise _too_large(max_bytes)
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for piece in request.stream():
                content += piece
                if len(content) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise ApiError(
            408, "the body did not arrive in time", "timeout", headers={"connection": "close"}
        ) from None
    return bytes(content)


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """The JSON object of a request.

    Raises: ApiError 400 for a body that is no JSON object; see `read_body`.
    """
    content = await read_body(request, max_bytes)
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise invalid("the body is no valid JSON", code="invalid_json") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    refuse_deep(value)
    return value


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413, f"the body holds more than {max_bytes} bytes", "body_too_large",
        headers={"connection": "close"},
    )  # fmt: skip


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def error_response(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as a response, with its own headers and these."""
    return JSONResponse(error.body, error.status, headers={**(headers or {}), **error.all_headers})


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Await `work`, and cancel it if the client leaves.

    Raises: ClientGone if it has left.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        await _cancelled(task)
        await _cancelled(left)


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


async def _left(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it has cleaned up."""
    if task.done():
        if not task.cancelled():
            task.exception()  # retrieved
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


class EventStream(Response):
    """Server-sent events from an iterator, which is closed when the client leaves.

    An error before the first event is a response of its own status. A later one is an event.

    A comment is sent while events keep the client waiting.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(None, 200, headers=headers, media_type=self.media_type)
        del self.headers["content-length"]
        self._events = events
        self._more = headers
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._send_all(send))
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return
            try:
                work.result()
            except ApiError as error:
                if not self._started:
                    await error_response(error, self._more)(scope, receive, send)
                    return
                value = json.dumps(error.body, ensure_ascii=False).encode()
                await _body(send, b"data: " + value + b"\n\n")
                await _body(send, b"", more=False)
        finally:
            await _cancelled(work)
            await _cancelled(left)

    async def _send_all(self, send: Send) -> None:
        following: asyncio.Future[bytes] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(self._events))
                done, _ = await asyncio.wait({following}, timeout=_PING_S)
                if not done:
                    await self._send(send, b": waiting\n\n")
                    continue
                try:
                    piece = following.result()
                except StopAsyncIteration:
                    break
                following = None
                await self._send(send, piece)
            await _body(send, b"", more=False)
        finally:
            if following is not None:
                await _cancelled(following)
            close: Callable[[], Awaitable[None]] | None = getattr(self._events, "aclose", None)
            if close is not None:
                await close()

    async def _send(self, send: Send, piece: bytes) -> None:
        if not self._started:
            self._started = True
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
        await _body(send, piece)


async def _body(send: Send, piece: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": more})
