"""Evaluation on more than one machine: shards of the work as Ray tasks, the same rows in the end."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from routerr1.errors import ConfigError
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import Job, Progress, key_of, play_all
from routerr1.evaluate.store import Key, RowStore

MakeJobs = Callable[[], Sequence[Job]]
"""Builds pool, policies and routers anew, wherever it is called, and gives the same jobs everywhere."""


def play_on_ray(
    make: MakeJobs,
    *,
    shards: int,
    concurrency: int,
    store: RowStore | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Play all jobs as `shards` Ray tasks, each with parts of its own; rows in the jobs' order.

    A running cluster is used if RAY_ADDRESS names one, else one is started on this machine. A finished
    shard's rows are in `store` at once; a shard that is lost is played again by Ray.

    Raises: ConfigError if ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("evaluate.executor: ray needs `pip install -e '.[ray]'`") from None

    wanted = [key_of(router, question) for router, question in make()]
    found: dict[Key, Row] = {}
    with store.open() if store else contextlib.nullcontext(found) as earlier:
        found.update({key: earlier[key] for key in wanted if key in earlier})
        missing = [place for place, key in enumerate(wanted) if key not in found]
        if not missing:
            return [found[key] for key in wanted]
        started = not ray.is_initialized()
        if started:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            task = ray.remote(_play_shard)
            waiting = [
                task.remote(make, missing[shard::shards], concurrency, Path.cwd())
                for shard in range(min(shards, len(missing)))
            ]
            while waiting:
                done, waiting = ray.wait(waiting)
                for values in ray.get(done[0]):
                    row = Row.from_dict(values)
                    found[row.key] = row
                    if store:
                        store.add(row)
                if progress:
                    progress(len(found), len(wanted))
        finally:
            if started:
                ray.shutdown()
    return [found[key] for key in wanted]


def _play_shard(
    make: MakeJobs, places: Sequence[int], concurrency: int, folder: Path
) -> list[dict[str, Any]]:
    os.chdir(
        folder
    )  # a worker starts in a folder of Ray's own; stages name theirs relative to the root
    jobs = make()
    mine = [jobs[place] for place in places]
    return [asdict(row) for row in asyncio.run(play_all(mine, concurrency=concurrency))]
