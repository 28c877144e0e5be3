"""The script that follows the figures of look-ups, by hand."""

import pytest

from benchmarks.look_ups import LEFT, SPLITS, highest_first, table
from routerr1.notation import THE_QUESTION
from routerr1.types import Question

SHOWN = "<information> $1 40% m1 $9 95% m2 $3 60% m3</information>"
NOT_SURE = "<information> @1 I am not sure.</information>"


def asked(steps: list[str]) -> Question:
    topics = ["places", "money"][: len(steps)]
    return Question(
        "q", "d", "Which?", ("x",), "test", len(steps), {"steps": steps, "topics": topics}
    )


def test_the_highest_figure_is_asked_and_the_next_where_it_is_not_sure() -> None:
    say = highest_first(asked(["Where?"]), max_rounds=4)
    assert say("", []) == "<think> places</think><search> cards: places</search>"
    call = f"<think> 95% m2</think><search> m2: {THE_QUESTION}</search>"
    assert say("", [SHOWN]) == call
    assert "cards: places" in say("", [SHOWN, NOT_SURE])
    rest = SHOWN.replace("$9 95% m2 ", "")
    assert "m3: " in say("", [SHOWN, NOT_SURE, rest])
    sure = "<information> @2 Peru</information>"
    assert say("", [SHOWN, NOT_SURE, rest, sure]).endswith("<answer> @2</answer>")


def test_the_second_part_refers_to_the_reply_of_the_first() -> None:
    say = highest_first(asked(["Where?", "What does {} pay with?"]), max_rounds=4)
    told = [SHOWN]
    say("", [])
    assert "m2: Where?" in say("", told)
    told.append("<information> @1 Peru</information>")
    assert "cards: money" in say("", told)
    told.append(SHOWN)
    assert "m2: What does @1 pay with?" in say("", told)


@pytest.mark.parametrize(
    "failed", [NOT_SURE, "<information> @1 The model did not answer.</information>"]
)
def test_it_ends_after_the_last_round(failed: str) -> None:
    say = highest_first(asked(["Where?"]), max_rounds=1)
    say("", [])
    say("", [SHOWN])
    assert say("", [SHOWN, failed]).endswith("<answer> @1</answer>")


def test_the_table_has_a_row_for_each_value() -> None:
    row = {"em": {"mean": 0.5, "low": 0.25, "high": 0.75}, "calls": 1.5, "n": 4, "groups": 2}
    rows = [{"left": left, **row} for left in LEFT]
    lines = table({split: {"own": rows} for split in SPLITS}).splitlines()
    assert len(lines) == 2 + len(LEFT)
    assert "| 0.95 | 0.500 [0.250, 0.750], 1.50 calls |" in lines[-2]
