"""The stages as DVC knows them, and one of them run to its end. Nothing of Prefect in here."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from routerr1.errors import DataError, RouterError
from routerr1.pool.build import RUN_VARIABLE


class StageFailed(RouterError):
    """A stage ended with an error; its output stands in the log above."""


def stages(root: Path = Path()) -> list[str]:
    """Addresses of all stages, in the order in which `dvc repro` would run them.

    Raises: DataError if `root` is no DVC repository or its dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    try:
        with Repo(root) as repo:
            return [stage.addressing for stage in plan_repro(repo.index.graph) if stage.cmd]
    except DvcException as error:
        raise DataError(f"DVC: {error}") from None


@contextmanager
def spending_as(run: str) -> Iterator[None]:
    """Calls of candidates, in here and in stages started here, count against the budget of `run`.

    A run that the environment names already stays in charge.
    """
    ours = RUN_VARIABLE not in os.environ
    os.environ.setdefault(RUN_VARIABLE, run)
    try:
        yield
    finally:
        if ours:
            os.environ.pop(RUN_VARIABLE, None)


def is_unchanged(stage: str) -> bool:
    """Whether `dvc status` finds nothing to do: a tenth of a second here, a second in a process of its own.

    Raises: DataError if dvc.yaml or dvc.lock cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return not repo.status(targets=[stage])
    except DvcException as error:
        raise DataError(f"DVC: {error}") from None


def run_stage(stage: str, log: Callable[[str], None], *, force: bool = False) -> None:
    """Run one stage with `dvc repro`, line by line into `log`, unless it is unchanged.

    However this ends, and if this very process is killed too, no process of the stage is left.

    Args:
        force: run it though nothing that DVC knows of has changed.

    Raises: StageFailed with the exit status.
    """
    if not force and is_unchanged(stage):
        log(f"stage {stage}: unchanged")
        return
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    command += ["--force"] if force else []
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "routerr1.flows.supervise", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        for line in supervisor.stdout or ():
            if text := line.rstrip():
                log(text)
        status = supervisor.wait()
    finally:
        if supervisor.stdin is not None:
            with suppress(BrokenPipeError):
                supervisor.stdin.close()
        supervisor.wait()
        if supervisor.stdout is not None:
            supervisor.stdout.close()
    if status:
        raise StageFailed(f"stage {stage}: `dvc repro` ended with status {status}")
