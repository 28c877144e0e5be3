"""HTTP transport over `httpx2`, with a size limit for replies and a connection pool that scales."""

import ssl
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Protocol

import httpx2

# uvicorn, and so vLLM, closes a connection after 5 s without a request; a call must not use it then.
_KEPT_S = 4.0
_MOST_REDIRECTS = 3
_GZIP = b"\x1f\x8b"  # its first bytes


class ReplyTooLarge(httpx2.TransportError):
    """The server sent more than it may; reading was stopped."""


class UnaskedEncoding(httpx2.TransportError):
    """The server compressed its reply in a way that was not asked for and that is not read."""


class LaneTransport(httpx2.AsyncBaseTransport):
    """One connection per call under way, kept for the next call to the same server.

    httpx2's own pool checks every connection at the start and end of every request. With 256 of
    them a call takes 4.0 ms of CPU time, and 1.8 ms here, where a free connection is the top of a
    stack. The caller (`client.HttpPool`) limits the number of connections.

    A redirect that keeps the method (307, 308) is followed to the same server, or to its TLS side,
    a few times. Any other redirect is returned: a key must not travel to another server.

    Args:
        max_reply_bytes: a body that is longer, on the wire or unpacked, ends in `ReplyTooLarge`; at
            most this much of it is held.
        proxy: address of the proxy to go through; None connects directly.
        verify: what a server's certificate is checked against; the system's authorities if None.
    """

    def __init__(
        self,
        max_reply_bytes: int,
        *,
        proxy: str | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._proxy = proxy
        self._context = verify if verify is not None else httpx2.create_ssl_context()
        self._idle: dict[tuple[str, str, int | None], list[httpx2.AsyncHTTPTransport]] = (
            defaultdict(list)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send over a free connection, or a new one; follow redirects within the server."""
        response = await self._sent(request)
        for _ in range(_MOST_REDIRECTS):
            target = _same_server(request, response)
            if target is None:
                break
            await response.aclose()
            headers = {**request.headers, "host": target.netloc.decode("ascii")}
            request = httpx2.Request(
                request.method,
                target,
                headers=headers,
                stream=request.stream,
                extensions=request.extensions,
            )
            response = await self._sent(request)
        return response

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        idle = self._idle[request.url.scheme, request.url.host, request.url.port]
        lane = idle.pop() if idle else self._new_lane()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            await lane.aclose()
            raise
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        try:
            unpacked = _unpacker(response)
        except UnaskedEncoding:
            await stream.aclose()
            await lane.aclose()
            raise
        response.stream = _Bounded(stream, unpacked, self._max_reply_bytes, lane, idle)
        return response

    def _new_lane(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEPT_S
        )
        return httpx2.AsyncHTTPTransport(verify=self._context, limits=limits, proxy=self._proxy)

    async def aclose(self) -> None:
        """Close the idle connections; those in use close with their response."""
        for lanes in self._idle.values():
            while lanes:
                await lanes.pop().aclose()


def _same_server(request: httpx2.Request, response: httpx2.Response) -> httpx2.URL | None:
    """Where a redirect leads, if a request with a key and a body may follow it."""
    if response.status_code not in (307, 308) or "location" not in response.headers:
        return None
    try:
        target = request.url.join(response.headers["location"])
    except httpx2.InvalidURL:
        return None
    old, new = _origin(request.url), _origin(target)
    upgraded = old[:2] == ("http", new[1]) and new[0] == "https" and (old[2], new[2]) == (80, 443)
    return target if new == old or upgraded else None


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


class _Unpacker(Protocol):
    """The part of zlib's decompressors that is used."""

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _unpacker(response: httpx2.Response) -> "_Unpacker | None":
    """What unpacks the body; the response then no longer says that it is packed.

    httpx2 would unpack it too, but as a whole: a kilobyte could become a gigabyte.

    Raises: UnaskedEncoding if the body is packed in another way than gzip or deflate.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing in ("", "identity"):
        return None
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise UnaskedEncoding(
            f"the reply is compressed as {packing[:20]!r}, which was not asked for"
        )
    del response.headers["content-encoding"]
    return _new_unpacker()


def _new_unpacker() -> "_Unpacker":
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: finds out which of the two by itself


class _Bounded(httpx2.AsyncByteStream):
    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        unpacker: _Unpacker | None,
        most: int,
        lane: httpx2.AsyncHTTPTransport,
        idle: list[httpx2.AsyncHTTPTransport],
    ) -> None:
        self._stream = stream
        self._unpacker = unpacker
        self._most = most
        self._lane = lane
        self._idle = idle
        self._whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, left_unpacked = self._most, self._most
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise ReplyTooLarge("the reply is too large")
            if self._unpacker is not None:
                piece = self._unpack(piece, left_unpacked)
                left_unpacked -= len(piece)
            yield piece
        self._whole = True

    def _unpack(self, piece: bytes, left: int) -> bytes:
        assert self._unpacker is not None
        try:
            # One byte above the limit distinguishes a body that is too long from one that just fits.
            unpacked = self._unpacker.decompress(piece, left + 1)
            while len(unpacked) <= left and (rest := self._unpacker.unused_data).startswith(_GZIP):
                # gzip may be several parts, one after another; anything else behind one is left out.
                self._unpacker = _new_unpacker()
                unpacked += self._unpacker.decompress(rest, left + 1 - len(unpacked))
        except zlib.error:
            raise UnaskedEncoding("the reply is compressed and damaged") from None
        if len(unpacked) > left:
            del unpacked  # or the traceback would hold it as long as the error lives
            raise ReplyTooLarge("the reply is too large")
        return unpacked

    async def aclose(self) -> None:
        await self._stream.aclose()
        if self._whole:
            self._idle.append(self._lane)
        else:
            await self._lane.aclose()
