"""The stages of dvc.yaml, and how to run one. Does not use Prefect."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from routerr1.errors import DataError, RouterError
from routerr1.pool.build import RUN_VARIABLE


class StageFailed(RouterError):
    """A stage ended with an error; the log above holds its output."""


def remove_broken_lock(root: Path = Path()) -> None:
    """Remove a dvc.lock that holds nothing, as a DVC that was killed while writing it leaves behind.

    DVC refuses it. Without it every stage counts as changed, and DVC's cache of runs restores what was done.
    """
    lock = root / "dvc.lock"
    if lock.is_file() and not lock.read_bytes().strip():
        lock.unlink()


def stages(root: Path = Path()) -> list[str]:
    """Addresses of all stages, in the order of `dvc repro`.

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
    """Count calls of candidates, here and in stages started here, against the budget of `run`.

    A run that the environment already names takes precedence.
    """
    ours = RUN_VARIABLE not in os.environ
    os.environ.setdefault(RUN_VARIABLE, run)
    try:
        yield
    finally:
        if ours:
            os.environ.pop(RUN_VARIABLE, None)


def is_unchanged(stage: str) -> bool:
    """True if `dvc status` finds nothing to do. In this process it takes 0.1 s, in a new one 1 s.

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
    """Run one stage with `dvc repro` unless it is unchanged; each line of output goes to `log`.

    No process of the stage outlives this call, even if this process is killed.

    Args:
        force: run it even if DVC sees no change.

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
