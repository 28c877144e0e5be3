"""An event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for callers on any event loop.

    Connections belong to the loop that made them, and training starts a new loop at every step. A
    policy that computes on the CPU also holds up its own loop for seconds: calls that wait on it
    would look slow and time out, although their replies have arrived.

    The thread starts with the first coroutine and does not keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._adopted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run coroutines on `loop` from now on, which belongs to its owner: no thread, no hops.

        Raises: RuntimeError if the thread has started.
        """
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("coroutines run elsewhere already")
        self._loop, self._adopted = loop, True

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in the thread; cancelling this coroutine cancels it."""
        if self._adopted and asyncio.get_running_loop() is self._loop:
            return await work
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
        """Stop the loop and wait for its thread; coroutines that still run are abandoned."""
        if self._adopted:
            self._loop = None
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None
