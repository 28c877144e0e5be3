"""One trainer at a time, which exits with the pipeline that started it."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from routerr1.errors import LockHeld

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_WAIT_S = 20.0  # an orphan needs less to notice that its pipeline is gone


@contextmanager
def only_trainer(folder: Path, wait_s: float = _WAIT_S) -> Iterator[None]:
    """Hold `folder`/train.lock; it is released by the system if this process dies.

    Raises: LockHeld if another trainer still holds it after `wait_s`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.lock"
    try:
        held = FileLock(path).acquire(timeout=wait_s)
    except Timeout:
        raise LockHeld(f"{path}: another training holds this lock; wait for it or end it") from None
    with held:
        yield


def exit_with_parent() -> None:
    """Exit as soon as the dvc process that started this one is gone.

    A killed dvc leaves its stage running, and the next dvc would start a second trainer. Training
    resumes from the last checkpoint, so little is lost.
    """
    above = [p for p in psutil.Process().parents() if _is_dvc(p)]
    if above:
        threading.Thread(target=_watch, args=(above[0],), daemon=True).start()


def _is_dvc(process: psutil.Process) -> bool:
    try:
        return any(Path(word).name == "dvc" for word in process.cmdline()[:3])
    except psutil.Error:
        return False


def _watch(process: psutil.Process) -> None:
    # The process may end between the two checks; the second then raises.
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_S)
    _log.error("dvc (process %d) is gone, so this stage exits", process.pid)
    os._exit(3)
