"""Record every call, answer from the records, and answer twice-asked questions once.

`Recorder` wraps any pool. `ReplayPool` needs no network: a run that was recorded plays again with the
same replies, tokens, prices and failures, whatever order its trajectories run in, because calls are
told apart by the trajectory they were made for (`scope.asking_for`).
"""

import asyncio
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from routerr1.errors import PoolError
from routerr1.pool.budget import exhausted
from routerr1.pool.interface import Pool, Telling
from routerr1.pool.nearest import QuestionIndex
from routerr1.pool.records import (
    Describe,
    Record,
    RecordStore,
    describe_of,
    plain_request,
    question_of,
    read_records,
    request_key,
)
from routerr1.pool.scope import asked_for
from routerr1.types import Card, Reply


class Recorder:
    """Asks `pool` and writes every call down before its reply is handed on.

    Args:
        reuse: a request that was answered before (here or in an earlier run of this store) is answered
            from the store, and one that is under way is waited for, unless the budget of who asked refuses it.
            Never reused once they have come: a failure, and what a fallback said.
        repeats: what is answered from the store is written down as well, for whom it was. A replay needs
            it to tell trajectories apart; a store that only saves calls does not.

    The pool and the store are closed with the recorder, once the calls under way are written down:
    who broke off may have asked for them no more, but they are paid.
    """

    def __init__(
        self,
        pool: Pool,
        store: RecordStore,
        *,
        reuse: bool = True,
        repeats: bool = True,
    ) -> None:
        self.inner = pool
        self._store = store
        self._describe = describe_of(pool)
        self._reuse = reuse
        self._repeats = repeats
        # By who answered: two candidates may be one model at two endpoints, and their requests alike.
        self._known: dict[tuple[str, str], Reply] = {}
        self._under_way: dict[tuple[str, str], asyncio.Task[Reply]] = {}
        self._told = isinstance(pool, Telling)
        if isinstance(pool, Telling):
            pool.on_reply = self._write
        if reuse:
            self._known = {
                (record.reply.model, record.key): record.reply
                for record in read_records(store.path)
                if record.reply.failure is None
            }

    @property
    def cards(self) -> Sequence[Card]:
        """The wrapped pool's."""
        return self.inner.cards

    @property
    def exhausted(self) -> str | None:
        """See `budget.Budget.exhausted`."""
        return exhausted(self.inner)

    async def ask(self, name: str, query: str) -> Reply:
        """See `Pool.ask`; the record is on disk when this returns."""
        request = self._describe(name, query)
        if not self._reuse:
            return await self._call(request, name, query)
        key = (name, request_key(request))
        found = self._known.get(key)
        while found is None and key in self._under_way:
            # Shielded: one waiter that is cancelled must not cancel the call for the others.
            waited = await asyncio.shield(self._under_way[key])
            if waited.failure != "budget":  # that is the purse of who asked
                found = waited
            else:
                await asyncio.sleep(0)  # what has ended is under way until the loop's next turn
                found = self._known.get(key)
        if found is None:
            task = asyncio.ensure_future(self._call(request, name, query))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
            return await asyncio.shield(task)
        reply = dataclasses.replace(found, cached=True)
        if self._repeats:
            await asyncio.to_thread(self._store.append, Record(request, reply, asked_for()))
        return reply

    async def _call(self, request: dict[str, Any], name: str, query: str) -> Reply:
        reply = await self.inner.ask(name, query)
        if not self._told:
            self._write(name, query, reply)
        if self._reuse and reply.failure is None:
            self._known[reply.model, request_key(request)] = reply
        await asyncio.to_thread(self._store.flush)
        return reply

    def _write(self, name: str, query: str, reply: Reply) -> None:
        """At once, and not only when the disk has time: a process killed in between would pay again."""
        self._store.write(Record(self._describe(name, query), reply, asked_for()))

    async def aclose(self) -> None:
        """Wait for the calls under way, then close the pool and the store."""
        # Those of a loop that has ended are cancelled; there is nothing to wait for.
        ours = asyncio.get_running_loop()
        left = [task for task in self._under_way.values() if task.get_loop() is ours]
        await asyncio.gather(*left, return_exceptions=True)
        await self.inner.aclose()
        self._store.close()


class ReplayPool:
    """Answers from recorded calls; never uses the network by itself.

    A call is looked up first among those of its trajectory, in their order, then by request alone, the
    latest answer first. Whatever is found comes back as it was, marked `cached`.

    Args:
        describe: that of the pool that was recorded (`describe_of`).
        nearest: if set, a request never recorded may be answered from the most similar question recorded
            for the same candidate, if the similarity (see `QuestionIndex`) is at least this, in (0, 1];
            the reply's note says so.
        fall_through: asked on a miss; without one a miss is a reply with failure `not_recorded`.
    """

    def __init__(
        self,
        records: Iterable[Record],
        cards: Sequence[Card],
        *,
        describe: Describe = plain_request,
        nearest: float | None = None,
        fall_through: Pool | None = None,
    ) -> None:
        self._cards = tuple(cards)
        self._describe = describe
        self._fall_through = fall_through
        self._by_scope: dict[tuple[str, str], list[Reply]] = defaultdict(list)
        self._by_key: dict[str, Reply] = {}
        self._questions: dict[str, dict[str, Reply]] = defaultdict(dict)
        self._asked: Counter[tuple[str, str]] = Counter()
        self._indices: dict[str, QuestionIndex] = {}
        self._nearest = nearest
        for record in records:
            self._index(record)

    def _index(self, record: Record) -> None:
        key, reply = record.key, record.reply
        if record.scope is not None:
            self._by_scope[record.scope, key].append(reply)
        if reply.failure is None or self._by_key.get(key, reply).failure is not None:
            self._by_key[key] = reply
        if reply.failure is None and self._nearest is not None:
            self._questions[str(record.request["model"])][question_of(record.request)] = reply

    @property
    def cards(self) -> Sequence[Card]:
        """As given: records hold no cards."""
        return self._cards

    async def ask(self, name: str, query: str) -> Reply:
        """See `Pool.ask`."""
        if all(card.name != name for card in self._cards):
            return Reply(name, "", failure="unknown_model")
        request = self._describe(name, query)
        found = self._recorded(request_key(request)) or self._similar(request)
        if found is not None:
            return dataclasses.replace(found, cached=True)
        if self._fall_through is not None:
            return await self._fall_through.ask(name, query)
        return Reply(name, "", failure="not_recorded")

    def _recorded(self, key: str) -> Reply | None:
        scope = asked_for()
        if scope is not None and (replies := self._by_scope.get((scope, key))):
            number = self._asked[scope, key]
            self._asked[scope, key] += 1
            # A trajectory that is played once more starts again at its first call.
            return replies[number % len(replies)]
        return self._by_key.get(key)

    def _similar(self, request: dict[str, Any]) -> Reply | None:
        model = str(request["model"])
        if self._nearest is None or model not in self._questions:
            return None
        if model not in self._indices:
            self._indices[model] = QuestionIndex(list(self._questions[model]))
        question, score = self._indices[model].nearest(question_of(request))
        if score < self._nearest:
            return None
        note = f"answered from the nearest recorded question {question!r} (similarity {score:.3f})"
        found = self._questions[model][question]
        return dataclasses.replace(found, note=f"{note}; {found.note}" if found.note else note)

    async def aclose(self) -> None:
        """Close the pool misses fall through to, if any."""
        if self._fall_through is not None:
            await self._fall_through.aclose()


def open_replay(path: Path, cards: Sequence[Card], **options: Any) -> ReplayPool:
    """A `ReplayPool` over the store at `path`.

    Raises: PoolError if the store is missing, damaged or empty.
    """
    records = list(read_records(path))
    if not records:
        raise PoolError(f"{path}: holds no recorded call")
    return ReplayPool(records, cards, **options)
