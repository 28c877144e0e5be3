"""How bytes travel: as `httpx2` does it, with an upper bound on a reply and a pool that scales."""

from collections import defaultdict
from collections.abc import AsyncIterator

import httpx2

# uvicorn, and with it vLLM, closes a connection that was idle for 5 s: a call must not meet that moment.
_KEPT_S = 4.0


class ReplyTooLarge(httpx2.TransportError):
    """The server sent more than it may; reading was stopped."""


class LaneTransport(httpx2.AsyncBaseTransport):
    """One connection per call under way, kept for the next call to the same server.

    httpx2's own pool looks at every connection it holds at the start and end of every request; with
    256 of them that is more than half of all the work of a call. Here a free connection is taken
    from the top of a stack. How many there are is bounded by who calls (`client.HttpPool`).

    Args:
        max_reply_bytes: a longer body ends in `ReplyTooLarge`; at most this much of it is held.
    """

    def __init__(self, max_reply_bytes: int) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._context = httpx2.create_ssl_context()
        self._idle: dict[tuple[str, str, int | None], list[httpx2.AsyncHTTPTransport]] = (
            defaultdict(list)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send over a free connection, or a new one."""
        idle = self._idle[request.url.scheme, request.url.host, request.url.port]
        lane = idle.pop() if idle else self._new_lane()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            await lane.aclose()
            raise
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(stream, self._max_reply_bytes, lane, idle)
        return response

    def _new_lane(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEPT_S
        )
        return httpx2.AsyncHTTPTransport(verify=self._context, limits=limits)

    async def aclose(self) -> None:
        """Close the idle connections; those in use close with their response."""
        for lanes in self._idle.values():
            while lanes:
                await lanes.pop().aclose()


class _Bounded(httpx2.AsyncByteStream):
    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        most: int,
        lane: httpx2.AsyncHTTPTransport,
        idle: list[httpx2.AsyncHTTPTransport],
    ) -> None:
        self._stream = stream
        self._left = most
        self._lane = lane
        self._idle = idle
        self._whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._left -= len(piece)
            if self._left < 0:
                raise ReplyTooLarge("the reply is larger than max_reply_bytes")
            yield piece
        self._whole = True

    async def aclose(self) -> None:
        await self._stream.aclose()
        if self._whole:
            self._idle.append(self._lane)
        else:
            await self._lane.aclose()
