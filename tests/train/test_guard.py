"""A stage does not outlive its pipeline."""

import os

import psutil
import pytest

from routerr1.train import guard


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
