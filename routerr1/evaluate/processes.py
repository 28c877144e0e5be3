"""Parts of an evaluation played side by side, by forks of this process.

A fork has the routers as they were built and loads its own policies. It sends its rows back, and the parent alone
keeps them, so a killed evaluation resumes as if one process had played it.
"""

import asyncio
import multiprocessing
import os
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from routerr1.errors import DataError, RouterError, ungrouped
from routerr1.evaluate.controls import POLICY, Job
from routerr1.evaluate.rows import Row
from routerr1.jobs.rejected import Fault
from routerr1.pool.tally import FailureTally

Take = Callable[[Row | Fault], None]
Play = Callable[[Sequence[Job], Take], Awaitable[None]]
"""Plays jobs and hands over each row and what was put aside."""

_FEWEST_JOBS = 500  # of a part: a fork takes a second to load its policies


def parts_of(jobs: Sequence[Job], processes: int) -> list[list[Job]]:
    """The jobs in at most `processes` parts of about equal size, the first of which this process plays.

    A router is in one part with all its questions, so that it is fitted once. The policy is in the first, where its
    trajectories are kept.
    """
    count = min(processes, len(jobs) // _FEWEST_JOBS)
    if count < 2:
        return [list(jobs)]
    by_router: dict[tuple[str, str, int], list[Job]] = defaultdict(list)
    for router, question in jobs:
        by_router[router.pool_name, router.name, router.seed].append((router, question))
    groups = sorted(
        by_router.items(), key=lambda item: (item[0][1] != POLICY, -len(item[1]), item[0])
    )
    parts: list[list[Job]] = [[] for _ in range(count)]
    for (_, name, _), group in groups:
        (parts[0] if name == POLICY else min(parts, key=len)).extend(group)
    return [part for part in parts if part]


async def play_parts(parts: Sequence[Sequence[Job]], play: Play, take: Take) -> None:
    """Play the first part here and every other one in a fork of its own; `take` is called here for all of them.

    Raises: the first RouterError of a part; DataError if a fork ends before its part does.
    """
    tallies = _tallies(parts)
    forks = [_Fork(part, play, tallies) for part in parts[1:]]
    try:
        async with asyncio.TaskGroup() as group:
            for fork in forks:
                group.create_task(fork.finish(take))
            group.create_task(_played(play, parts[0], take))
    finally:
        for fork in forks:
            fork.end()


async def _played(play: Play, part: Sequence[Job], take: Take) -> None:
    with ungrouped():
        await play(part, take)


def _tallies(parts: Sequence[Sequence[Job]]) -> list[FailureTally]:
    """The counts of failed calls of all pools, each once; in the same order in every fork."""
    found = (router.pool.tally for part in parts for router, _ in part)
    return list({id(tally): tally for tally in found if tally is not None}.values())


class _Fork:
    """One other process and what it sends."""

    def __init__(self, part: Sequence[Job], play: Play, tallies: Sequence[FailureTally]) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._tallies = tallies
        self._process = context.Process(
            target=_play_here, args=(part, play, tallies, self._receiver, sender), daemon=True
        )
        self._process.start()
        sender.close()  # now the fork alone holds it, so its end is the end of what can be read

    async def finish(self, take: Take) -> None:
        """Take what it sends until it is done.

        Raises: its RouterError; DataError if it ends without a word.
        """
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Any] = asyncio.Queue()

        def put(sent: Any) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, sent)

        # By a thread: while this process fits a router, the fork must not wait for its rows to be read.
        loop.run_in_executor(None, self._read, put)
        while not isinstance(sent := await heard.get(), list):
            if sent is None:
                self._process.join()
                raise DataError(
                    f"evaluate: a process that plays beside this one ended with status {self._process.exitcode}; "
                    "run the stage again, finished rows are kept"
                )
            if isinstance(sent, RouterError):
                raise sent
            take(sent)
        for ours, theirs in zip(self._tallies, sent, strict=True):
            ours.merge(theirs)

    def _read(self, put: Callable[[Any], object]) -> None:
        with suppress(EOFError):
            while True:
                put(self._receiver.recv())
        put(None)

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.terminate()
        self._process.join()


def _play_here(
    part: Sequence[Job],
    play: Play,
    tallies: Sequence[FailureTally],
    receiver: Connection,
    sender: Connection,
) -> None:
    """What a fork does. If its parent is killed, nobody reads what it sends, and it ends too."""
    receiver.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tokenizers warn of forks else
    for tally in tallies:
        tally.clear()  # what the parent had counted before the fork
    try:
        sender.send(_last_word(part, play, tallies, sender.send))
    except* BrokenPipeError:
        os._exit(1)


def _last_word(
    part: Sequence[Job], play: Play, tallies: Sequence[FailureTally], take: Take
) -> Sequence[FailureTally] | RouterError:
    try:
        asyncio.run(_played(play, part, take))
    except RouterError as error:
        return error
    return list(tallies)
