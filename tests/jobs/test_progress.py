"""Progress as a person sees it."""

import logging

import pytest

from routerr1.jobs import progress
from routerr1.jobs.progress import Progress, track


def test_the_rate_is_that_of_what_is_done_now_and_not_of_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Resumed at step 60, loading took 10 s, then a step takes 2: half a step a second, 80 s for 40."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Progress("train", 100)
    with caplog.at_level(logging.INFO, logger="routerr1"):
        for step in range(61, 101):
            now[0] = 10.0 + 2.0 * (step - 60)
            bar.update(step, note="EM 0.5")
    assert caplog.messages[0] == "train: 63 of 100, 0.5/s, 74 s left, EM 0.5"
    assert caplog.messages[-1] == "train: 100 of 100, 0.5/s, 0 s left, EM 0.5"


def test_work_that_is_reported_once_has_no_rate(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="routerr1"), track("dataset", 0) as bar:
        bar.update(1620, 1620)
    assert caplog.messages == ["dataset: 1620 of 1620"]


def test_a_terminal_shows_a_bar_and_what_has_no_parts_a_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with track("evaluate", 0) as bar:
        bar.bars.refresh()  # type: ignore[attr-defined]
        bar.update(3, 8, "x")
        bar.update(8)
    shown = capsys.readouterr().err
    assert "0/?" in shown  # not known yet
    assert "8/8" in shown
    with progress.working("loading models/policy"):
        pass
    assert "loading models/policy" in capsys.readouterr().err
