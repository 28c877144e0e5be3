"""Evaluation by several processes, on one machine or many: Ray actors evaluate small chunks of the work.

Baselines are fitted once, here, and sent to all actors. Each actor opens its own pool if calls are
free. One actor holds a paid pool, and the others call it, so there is one budget, one record of
calls and one count of open calls.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routerr1.errors import ConfigError, DataError, RouterError
from routerr1.evaluate.controls import Job, Router
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import Progress, key_of, play_all
from routerr1.evaluate.store import Key, Store
from routerr1.jobs.rejected import Fault, Rejected
from routerr1.pool.base import Call, Pool
from routerr1.pool.grading import Grader
from routerr1.rollout.lazy import Lazy
from routerr1.types import Card, Reply

CHUNK = 32  # trajectories handed out, and their rows handed back, at a time

Learned = Mapping[tuple[int, str], Lazy[Any]]
"""Fitted models that routers need, by training seed and the name in `Router.needs`."""

MakeJobs = Callable[[Pool, Learned], Sequence[Job]]
"""Builds policies and routers, the same jobs in every process. Fitted models come from its second argument,
or are fitted when first needed."""


def play_on_ray(
    make: MakeJobs,
    open_pool: Callable[[], Pool],
    *,
    shared: bool,
    open_grader: Callable[[], Grader],
    players: int,
    concurrency: int,
    store: Store | None = None,
    progress: Progress | None = None,
    rejected: Rejected | None = None,
) -> list[Row]:
    """Run all jobs by `players` actors; rows in the jobs' order.

    RAY_ADDRESS may name a running cluster; otherwise one is started on this machine. Ray repeats a
    chunk whose actor dies.

    Args:
        shared: all players ask one pool, opened once; otherwise each opens one.
        open_grader: makes each actor's.
        concurrency: most trajectories that each actor runs at once.
        rejected: see `play_all`.

    Raises: ConfigError if ray is not installed; the first RouterError of an actor, after the rows
        of the open chunks are in `store`.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("evaluate.executor: ray needs `pip install -e '.[ray]'`") from None

    pool = open_pool()
    try:
        jobs, cards = make(pool, {}), tuple(pool.cards)
    finally:
        asyncio.run(pool.aclose())
    wanted = [key_of(router, question) for router, question in jobs]
    rejected = rejected or Rejected("evaluate")
    rejected.total += len(jobs)
    found: dict[Key, Row] = {}
    with store.open() if store else nullcontext(found) as earlier:
        found.update({key: earlier[key] for key in wanted if key in earlier})
        missing = [place for place, key in enumerate(wanted) if key not in found]
        if not missing:
            return [found[key] for key in wanted]

        def keep(rows: Sequence[Row]) -> None:
            for row in rows:
                found[row.key] = row
                if store:
                    store.add(row)
            if progress:
                progress(len(found), len(wanted))

        with _cluster(ray):
            # Pickling fits the models, so only those of missing rows are pickled.
            learned = ray.put(_needed(jobs[place][0] for place in missing))
            keeper = _actor(ray, PoolActor).remote(open_pool, Path.cwd()) if shared else None
            crew = [
                _actor(ray, _RolloutWorker).remote(
                    make, open_pool, open_grader, keeper, cards, learned, Path.cwd()
                )
                for _ in range(min(players, -(-len(missing) // CHUNK)))
            ]
            failed = _hand_out(ray, crew, missing, concurrency, keep, rejected)
            ray.get([each.close.remote() for each in (*crew, *([keeper] if keeper else []))])
    if failed is not None:
        raise failed
    return [found[key] for key in wanted]


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def _actor(ray: Any, kind: type) -> Any:
    """`kind` as an actor that Ray restarts after a crash; it sees the GPUs of its machine."""
    import torch

    variables = {
        # Ray would set it to 1. The same number of threads as here gives the same rounding of sums.
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    return ray.remote(kind).options(
        max_restarts=3, max_task_retries=3, max_concurrency=10_000,
        scheduling_strategy="SPREAD", runtime_env={"env_vars": variables},
    )  # fmt: skip


def _needed(routers: Iterable[Router]) -> Learned:
    return {(each.seed, each.needs[0]): each.needs[1] for each in routers if each.needs}


def _hand_out(
    ray: Any,
    crew: Sequence[Any],
    places: Sequence[int],
    concurrency: int,
    keep: Callable[[Sequence[Row]], None],
    rejected: Rejected,
) -> RouterError | None:
    """Keep every actor busy until all chunks are done or one has failed; gives the first error."""
    chunks = (places[at : at + CHUNK] for at in range(0, len(places), CHUNK))
    failed: RouterError | None = None
    first = itertools.islice(chunks, len(crew) * max(1, concurrency // CHUNK))
    waiting = {
        worker.play.remote(chunk, concurrency): worker
        for worker, chunk in zip(itertools.cycle(crew), first, strict=False)
    }
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        worker = waiting.pop(done)
        rows, faults, error = ray.get(done)
        keep(rows)
        failed = failed or error
        try:
            for fault in faults:
                rejected.add(fault)
        except DataError as too_many:
            failed = failed or too_many
        if failed is None and (chunk := next(chunks, None)) is not None:
            waiting[worker.play.remote(chunk, concurrency)] = worker
    return failed


class _RolloutWorker:
    """Runs jobs by their positions in the list that it builds itself."""

    def __init__(
        self,
        make: MakeJobs,
        open_pool: Callable[[], Pool],
        open_grader: Callable[[], Grader],
        keeper: Any,
        cards: Sequence[Card],
        learned: Learned,
        folder: Path,
    ) -> None:
        os.chdir(
            folder
        )  # Ray starts it in another folder; paths of stages are relative to the root
        self._pool: Pool = _RemotePool(keeper, cards) if keeper else open_pool()
        self._grader = open_grader()
        self._jobs = make(self._pool, learned)

    async def play(
        self, places: Sequence[int], concurrency: int
    ) -> tuple[list[Row], list[Fault], RouterError | None]:
        """Their rows and what broke a contract; after an error what is finished, and the error."""
        mine, done, faults = [self._jobs[place] for place in places], _Rows(), _Faults("evaluate")
        try:
            await play_all(
                mine, concurrency=concurrency, store=done, rejected=faults, grade=self._grader
            )
        except RouterError as error:
            return done.rows, faults.found, error
        return done.rows, faults.found, None

    async def close(self) -> None:
        await self._grader.aclose()
        await self._pool.aclose()


class _Rows:
    """A store in memory, for the rows to send back."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    @contextmanager
    def open(self) -> Iterator[Mapping[Key, Row]]:
        yield {}

    def add(self, row: Row) -> None:
        self.rows.append(row)


@dataclass
class _Faults(Rejected):
    """Faults in memory, for what is sent back."""

    found: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        self.found.append(fault)


class PoolActor:
    """Holds the pool that all actors share."""

    def __init__(self, open_pool: Callable[[], Pool], folder: Path) -> None:
        os.chdir(folder)
        self._pool = open_pool()

    async def ask(self, call: Call) -> Reply | RouterError:
        """The reply, or the pool's error as a value, because Ray wraps a raised one."""
        try:
            return await self._pool.ask(call)
        except RouterError as error:
            return error

    async def close(self) -> None:
        await self._pool.aclose()


class _RemotePool(Pool):
    """The pool of a `PoolActor`, which also closes it."""

    def __init__(self, keeper: Any, cards: Sequence[Card]) -> None:
        self._keeper = keeper
        self.cards = tuple(cards)

    async def ask(self, call: Call) -> Reply:
        reply: Reply | RouterError = await self._keeper.ask.remote(call)
        if isinstance(reply, RouterError):
            raise reply
        return reply
