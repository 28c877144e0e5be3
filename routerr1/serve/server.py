"""The process: a socket, uvicorn, and an end that waits for the requests under way."""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from routerr1.config import ServeParams
from routerr1.errors import ConfigError
from routerr1.serve.app import build_app
from routerr1.serve.champion import Watch
from routerr1.serve.gateway import Gateway
from routerr1.serve.keys import is_loopback

_log = logging.getLogger(__name__)
_SHOWN_S = 5.0  # a load balancer that looks every few seconds sees in it that the gateway ends
_SWITCH_S = (
    0.0005  # a policy that computes in another thread must not keep the server's thread waiting
)


def require_keys(host: str, *, keys: bool) -> None:
    """Refuse to listen to other machines without keys.

    Raises: ConfigError.
    """
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"serve: {host} can be reached from other machines, and there is no key; make one with "
            "`routerr1 keys add NAME`, or listen on 127.0.0.1"
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises: ConfigError naming the address that cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; else each reply waits 40 ms for an ACK.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"serve: cannot listen on {host}:{port} ({error.strerror}); is it taken?"
        ) from None
    return listening


def raise_file_limit() -> None:
    """Let the process hold as many connections as the system allows it; where it cannot, nothing changes."""
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS names no limit, and takes none
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server(uvicorn.Server):
    """uvicorn, which lets requests under way end before it does."""

    def __init__(
        self, gateway: Gateway, watches: Sequence[Watch] = (), *, page: bool = True
    ) -> None:
        self.gateway = gateway
        self._watches = watches
        self._watching: set[asyncio.Task[None]] = set()
        self._shows_end = False
        super().__init__(_config(gateway, watches, page=page))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and begin to watch champion, shadow and canary."""
        self.gateway.loop = asyncio.get_running_loop()
        for engine in (self.gateway.engine, *self.gateway.beside):
            engine.run_calls_on(self.gateway.loop)
        await super().startup(sockets)
        self._watching = {asyncio.ensure_future(watch.run()) for watch in self._watches}

    def call(self, change: Callable[[], None]) -> None:
        """Do something on the server's event loop; may be called from any thread."""
        assert self.gateway.loop is not None
        self.gateway.loop.call_soon_threadsafe(change)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take no new requests; a second signal ends at once."""
        self.gateway.draining = True
        self._shows_end = sig == signal.SIGTERM
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the requests under way, then close everything.

        After SIGTERM, load balancers have a part of `drain_s` to see the end at /readyz.
        """
        if self._shows_end:
            await self._show_end()
        for watching in self._watching:
            watching.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await super().shutdown(sockets)
        await self.gateway.aclose()

    async def _show_end(self) -> None:
        """Keep the socket open; new requests for an answer meet status 503."""
        drain_s = self.gateway.params.drain_s
        seconds = min(_SHOWN_S, drain_s / 2)
        self.config.timeout_graceful_shutdown = max(int(drain_s - seconds), 1)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.1)


def serve_forever(
    gateway: Gateway,
    host: str,
    port: int,
    ready: Callable[[str], None],
    watches: Sequence[Watch] = (),
    *,
    page: bool = True,
) -> None:
    """Serve until a signal; `ready` is called with the address once connections are taken.

    Raises: ConfigError if the address cannot be used.
    """
    listening = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{listening.getsockname()[1]}")
    sys.setswitchinterval(_SWITCH_S)
    raise_file_limit()
    Server(gateway, watches, page=page).run(sockets=[listening])


def _config(gateway: Gateway, watches: Sequence[Watch], *, page: bool) -> uvicorn.Config:
    params = gateway.params
    return uvicorn.Config(
        build_app(gateway, watches, page=page),
        http=_timed(params),
        loop="asyncio",
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(int(params.drain_s), 1),
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=2 * params.max_header_bytes,
    )


def _timed(params: ServeParams) -> type[H11Protocol]:
    """uvicorn's protocol, which closes a connection that sends no whole header in time.

    The time of the first header begins with the connection, that of a later one with its first byte:
    until then uvicorn's own time for idle connections runs, which any byte ends.
    """

    class Timed(H11Protocol):
        _until_header: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrows it too
            super().connection_made(transport)
            self._until_header = self.loop.call_later(params.header_s, self._too_slow)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._awaits_header():
                self._stop_clock()
            elif self._until_header is None:
                self._until_header = self.loop.call_later(params.header_s, self._too_slow)

        def _awaits_header(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _too_slow(self) -> None:
            self._until_header = None
            if self._awaits_header() and not self.transport.is_closing():
                self.transport.close()

        def _stop_clock(self) -> None:
            if self._until_header is not None:
                self._until_header.cancel()
                self._until_header = None

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            super().connection_lost(exc)

    return Timed
