"""Record every call, answer from the records, and make equal calls once.

`Recorder` wraps any pool. `ReplayPool` needs no network: a recorded run replays with the same replies,
tokens, prices and failures. The order of its rollouts does not matter, because a record names the
rollout that made the call (`Call.scope`).
"""

import asyncio
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from routerr1.errors import PoolError
from routerr1.pool.background import BackgroundLoop
from routerr1.pool.base import Call, Pool, PoolWrapper, plain_request
from routerr1.pool.records import Record, RecordStore, read_records, request_key
from routerr1.pool.tally import FailureTally
from routerr1.types import Card, Reply

_Key = tuple[str, str]
"""Candidate and request hash: two candidates may be one model at two endpoints, with equal requests."""


class Recorder(PoolWrapper):
    """Asks the inner pool and records every reply before it returns.

    A request that was answered before, here or in an earlier run of this store, is answered from the
    store. A request that is under way is made once, and all its callers get the reply. Failures and
    the replies of fallbacks are not reused.

    The calls run in a thread of their own. A policy that computes holds up the caller's event loop for
    seconds, and a process killed in that time would pay for the call again. A cancelled call is still
    recorded, because it is billed.

    Args:
        repeats: also record what is answered from the store, with its scope. A replay needs this to
            tell rollouts apart; a store that only saves calls does not.
        max_rejected: see `read_records`.
    """

    def __init__(
        self,
        inner: Pool,
        store: RecordStore,
        *,
        repeats: bool = True,
        max_rejected: float = 0.0,
    ) -> None:
        super().__init__(inner)
        self._store = store
        self._repeats = repeats
        self._known: dict[_Key, Reply] = {
            (record.reply.model, record.key): record.reply
            for record in read_records(store.path, max_rejected)
            if record.reply.failure is None
        }
        self._under_way: dict[_Key, asyncio.Task[Reply]] = {}
        self._background = BackgroundLoop("routerr1-recorder")

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`; the record is on disk when this returns."""
        return await self._background.run(self._ask(call))

    async def _ask(self, call: Call) -> Reply:
        request = self.inner.request(call)
        key = (call.candidate, request_key(request))
        found = self._known.get(key)
        while found is None and key in self._under_way:
            # Shielded: a caller that is cancelled must not cancel the call for the others.
            waited = await asyncio.shield(self._under_way[key])
            if waited.failure != "budget":
                found = waited
            else:  # the budget of another question says nothing about this one's
                await asyncio.sleep(0)  # the ended task leaves `_under_way` in the loop's next turn
                found = self._known.get(key)
        if found is None:
            task = asyncio.ensure_future(self._call(request, call))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
            return await asyncio.shield(task)
        reply = dataclasses.replace(found, cached=True)
        if self._repeats:
            await self._record(request, reply, call)
        return reply

    async def _call(self, request: dict[str, Any], call: Call) -> Reply:
        reply = await self.inner.ask(call)
        if reply.failure is None:
            self._known[reply.model, request_key(request)] = reply
        await self._record(request, reply, call)
        return reply

    async def _record(self, request: dict[str, Any], reply: Reply, call: Call) -> None:
        """Write at once, so that a killed process loses nothing, then wait for the disk in a thread."""
        self._store.write(Record(request, reply, call.scope))
        await asyncio.to_thread(self._store.flush)

    def _ended(self, key: _Key, task: asyncio.Task[Reply]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # retrieved here, because all of its callers may be cancelled

    async def finish(self) -> None:
        """Wait for the calls under way and close the store; the inner pool stays open."""
        await self._background.run(self._all_ended())
        self._background.stop()
        self._store.close()

    async def _all_ended(self) -> None:
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def aclose(self) -> None:
        """Wait for the calls under way, then close the store and the inner pool."""
        await self.finish()
        await self.inner.aclose()


class ReplayPool(Pool):
    """Answers from recorded calls; uses no network.

    A call is looked up first among the records of its scope, in their order, then by its request alone,
    the latest answer first. A call without a scope looks among its like first: that a rollout later got an
    answer does not change what the profile got. The recorded reply comes back unchanged but for `cached`. A call without a
    record is a reply with failure `not_recorded`.

    Args:
        request: `Pool.request` of the pool that was recorded.
        path: of the store, for messages.

    When it is closed it logs which calls failed and why.
    """

    def __init__(
        self,
        records: Iterable[Record],
        cards: Sequence[Card],
        *,
        request: Callable[[Call], dict[str, Any]] = plain_request,
        path: Path | None = None,
    ) -> None:
        self.cards = tuple(cards)
        self._path = path
        self._tally = FailureTally()
        self._request = request
        self._by_scope: dict[tuple[str, str], list[Reply]] = defaultdict(list)
        self._by_key: dict[str, Reply] = {}
        self._without_scope: dict[str, Reply] = {}
        self._asked: Counter[tuple[str, str]] = Counter()
        for record in records:
            self._index(record)

    def _index(self, record: Record) -> None:
        key, reply = record.key, record.reply
        if record.scope is not None:
            self._by_scope[record.scope, key].append(reply)
        for answers in (self._by_key, *([self._without_scope] if record.scope is None else [])):
            if reply.failure is None or answers.get(key, reply).failure is not None:
                answers[key] = reply

    def request(self, call: Call) -> dict[str, Any]:
        """The request of the pool that was recorded."""
        return self._request(call)

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        if all(card.name != call.candidate for card in self.cards):
            return Reply(call.candidate, "", failure="unknown_model")
        found = self._recorded(request_key(self._request(call)), call.scope)
        if found is None:
            found = Reply(call.candidate, "", failure="not_recorded")
        else:
            found = dataclasses.replace(found, cached=True)
        self._tally.add(call.candidate, found)
        return found

    async def aclose(self) -> None:
        """Log which calls failed and why."""
        self._tally.log_once(self._path or "recorded calls")

    def _recorded(self, key: str, scope: str | None) -> Reply | None:
        if scope is not None and (replies := self._by_scope.get((scope, key))):
            number = self._asked[scope, key]
            self._asked[scope, key] += 1
            # A rollout that is replayed once more starts again at its first call.
            return replies[number % len(replies)]
        found = self._without_scope.get(key) if scope is None else None
        return found or self._by_key.get(key)


def open_replay(
    path: Path,
    cards: Sequence[Card],
    *,
    request: Callable[[Call], dict[str, Any]] = plain_request,
    max_rejected: float = 0.0,
) -> ReplayPool:
    """A `ReplayPool` over the store at `path`.

    Args:
        max_rejected: see `read_records`.

    Raises: PoolError if the store is missing, damaged or empty.
    """
    records = list(read_records(path, max_rejected))
    if not records:
        raise PoolError(f"{path}: holds no recorded call; record some, or name another store")
    return ReplayPool(records, cards, request=request, path=path)
