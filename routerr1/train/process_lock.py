"""One trainer at a time, and none without the pipeline that started it."""

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
_LOOK_EVERY_S = 0.5
_WAIT_S = 20.0  # an orphan needs less to notice that its pipeline is gone


@contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """Hold `folder`/train.lock; it is released by the system if this process dies.

    Raises: LockHeld if another trainer still holds it after some seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.lock"
    try:
        held = FileLock(path).acquire(timeout=_WAIT_S)
    except Timeout:
        raise LockHeld(f"{path}: another training holds this lock; wait for it or end it") from None
    with held:
        yield


def die_with_pipeline() -> None:
    """If a dvc process stands above this one, end this process as soon as that one is gone.

    A killed dvc leaves its stage running; the next one would start a second trainer beside it. Training
    goes on from its last checkpoint, so little is lost.
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
    # It may go between two looks at it: then the second look finds nothing.
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK_EVERY_S)
    _log.error("dvc (process %d) is gone, so this stage ends too", process.pid)
    os._exit(3)
