"""One trainer at a time, and none that outlives its pipeline."""

import os
from pathlib import Path

import psutil
import pytest
from filelock import FileLock, Timeout

from routerr1.errors import LockHeld
from routerr1.train import process_lock as guard


def test_a_lock_that_training_waits_for_in_vain_is_not_taken_for_another_trainer(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.lock"
    with FileLock(other), pytest.raises(Timeout), guard.only_trainer(tmp_path, 0.1):
        FileLock(other).acquire(timeout=0)
    again = guard.only_trainer(tmp_path, 0.1)
    with (
        guard.only_trainer(tmp_path, 0.1),
        pytest.raises(LockHeld, match=r"train\.lock: another"),
        again,
    ):
        pass


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_pipeline_that_goes_between_two_looks_is_gone_too(
    vanishes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipeline:
        pid = 1

        def is_running(self) -> bool:
            return vanishes

        def status(self) -> str:
            raise psutil.NoSuchProcess(1)

    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    guard._watch(Pipeline())  # type: ignore[arg-type]
    assert ended == [3]
