"""The watch's verdicts, on figures worked by hand."""

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli.ops import ops_app
from routerr1.errors import DataError
from routerr1.flows import drift
from routerr1.flows.drift import Reading


def reading(before: list[float], now: list[float]) -> Reading:
    return Reading("x", tuple(before), tuple(now), tuple(map(str, range(len(before)))))


def test_the_same_answers_are_no_drift() -> None:
    found = drift.compare(reading([0.0, 1.0] * 10, [0.0, 1.0] * 10))
    assert (found.moved, found.before, found.now, found.interval) == (False, 0.5, 0.5, (0.0, 0.0))


def test_a_fall_on_most_questions_is_drift() -> None:
    found = drift.compare(reading([1.0] * 20, [0.0] * 15 + [1.0] * 5))
    assert found.moved
    assert (found.before, found.now) == (1.0, 0.25)
    assert found.interval is not None
    assert found.interval[1] < 0


def test_one_question_of_twenty_is_chance() -> None:
    assert not drift.compare(reading([1.0] * 20, [0.0] + [1.0] * 19)).moved


def test_a_single_question_that_changed_has_no_interval_and_counts_as_moved() -> None:
    found = drift.compare(reading([1.0], [0.0]))
    assert found.moved
    assert "no interval" in found.why
    assert not drift.compare(reading([1.0], [1.0])).moved


@pytest.mark.parametrize("now", [[], [math.nan]])
def test_what_cannot_be_measured_counts_as_moved(now: list[float]) -> None:
    assert drift.compare(reading([1.0] * len(now), now)).moved


@pytest.mark.parametrize(
    ("ratio", "moved"), [(1.0, False), (1.5, False), (1.6, True), (0.7, False), (0.6, True)]
)
def test_latency_may_lie_within_the_ratio_both_ways(ratio: float, moved: bool) -> None:
    before = [1.0, 2.0, 3.0, 4.0] * 3
    now = [100.0, *(second * ratio for second in before[1:])]  # one stall is none of its habit
    assert drift.compare_latency("x", before, now, 1.5).moved is moved


def test_a_median_that_is_out_by_chance_is_no_drift() -> None:
    found = drift.compare_latency("x", [1.0] * 12, [0.9] * 5 + [1.7] * 7, 1.5)
    assert not found.moved
    assert found.now == 1.7
    assert found.interval == (0.9, 1.7)


@pytest.mark.parametrize(
    ("count", "ranks"), [(5, None), (6, (1, 6)), (12, (3, 10)), (40, (14, 27))]
)
def test_the_interval_of_a_median_is_that_of_the_tables(
    count: int, ranks: tuple[int, int] | None
) -> None:
    assert drift.median_interval(list(range(1, count + 1)), 0.95) == ranks


def test_a_candidate_that_no_longer_answers_has_moved() -> None:
    assert drift.compare_latency("x", [], [], 1.5).moved
    assert not drift.compare_latency("x", [1.0], [9.0], 1.5).moved  # one call is no evidence


def test_calls_whose_seconds_nobody_took_tell_nothing_of_latency() -> None:
    found = drift.compare_latency("x", [0.0] * 6, [3.0] * 6, 1.5)
    assert (found.moved, found.why) == (False, "no earlier seconds are known")
    found = drift.compare_latency("x", [0.0, *[1.0] * 6], [9.0, *[3.0] * 6], 1.5)
    assert found.moved
    assert (found.before, found.now, found.interval) == (1.0, 3.0, (3.0, 3.0))


def test_the_table_names_what_moved() -> None:
    page = drift.to_markdown([drift.compare_latency("Atlas latency", [1.0] * 6, [3.0] * 6, 1.5)])
    assert page.startswith("# Watch: drift\n")
    assert "| Atlas latency | 1 | 3 | **moved** | 3.00 times what it was (3.00 to 3.00)" in page


def test_a_candidate_that_is_gone_has_moved_unless_that_is_known() -> None:
    page = drift.to_markdown([drift.gone("Mint", known=False)])
    assert page.startswith("# Watch: drift\n")
    assert "| **moved** | no longer in the pool |" in page
    page = drift.to_markdown([drift.gone("Mint", known=True)])
    assert page.startswith("# Watch: no drift\n")
    assert "| same | no longer in the pool, as the last retrain knew |" in page


def test_the_command_shows_the_last_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nothing = CliRunner().invoke(ops_app, ["drift"])
    assert isinstance(nothing.exception, DataError)
    assert "run `routerr1 ops drift --look`" in str(nothing.exception)
    drift.PAGE.parent.mkdir(parents=True)
    for known, status in ((False, 1), (True, 0)):
        drift.PAGE.write_text(drift.to_markdown([drift.gone("Mint", known=known)]))
        shown = CliRunner().invoke(ops_app, ["drift"])
        assert (shown.exit_code, "no longer in the pool" in shown.output) == (status, True)
