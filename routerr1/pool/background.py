"""An event loop of its own in a thread."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for callers on any event loop, one after another or at once.

    Connections belong to the loop they were made on, and training starts a new one at every step. And a
    policy that computes on the CPU holds its loop up for seconds: calls that waited on that loop would
    seem slow, and would be timed out, though their replies had long come.

    The thread starts with the first coroutine; it does not keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` there; context variables go with it, and cancelling this cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def stop(self) -> None:
        """Stop the loop and wait for its thread; what still runs there is abandoned."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None
