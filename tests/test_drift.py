"""The watch's verdicts, on figures worked by hand."""

import math

import pytest

from routerr1 import drift
from routerr1.drift import Reading


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


@pytest.mark.parametrize("now", [[], [math.nan]])
def test_what_cannot_be_measured_counts_as_moved(now: list[float]) -> None:
    assert drift.compare(reading([1.0] * len(now), now)).moved


@pytest.mark.parametrize(
    ("now", "moved"), [(1.0, False), (1.5, False), (1.6, True), (0.7, False), (0.6, True)]
)
def test_latency_may_lie_within_the_ratio_both_ways(now: float, moved: bool) -> None:
    assert drift.compare_latency("x", 1.0, [now, now, 100.0, now], 1.5).moved is moved


def test_a_candidate_that_no_longer_answers_has_moved() -> None:
    assert drift.compare_latency("x", 1.0, [], 1.5).moved
    assert not drift.compare_latency("x", None, [1.0], 1.5).moved  # never profiled


def test_the_table_names_what_moved() -> None:
    page = drift.to_markdown([drift.compare_latency("Atlas latency", 1.0, [3.0], 1.5)])
    assert page.startswith("# Watch: drift\n")
    assert "| Atlas latency | 1 | 3 | **moved** | 3.00 times the card's" in page


def test_a_candidate_that_is_gone_has_moved() -> None:
    page = drift.to_markdown([drift.gone("Mint")])
    assert page.startswith("# Watch: drift\n")
    assert "| **moved** | the pool has it no more |" in page
