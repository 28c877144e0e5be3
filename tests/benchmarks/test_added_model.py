"""The table of a new model, from cards and rows that are counted by hand."""

import json
from dataclasses import replace

from benchmarks.added_model import Played, figures_of, led_by, page, ranked_first
from routerr1.rollout.record import to_row
from routerr1.types import Ask, Card, Generation, Ledger, Question, Reply, Trajectory, Turn
from tests.evaluate.made import row


def asked(name: str, *candidates: str):
    """A row whose trajectory asks each candidate the same thing."""
    turns = tuple(
        Turn(Generation(""), Ask(each, "Where is it?"), Reply(each, "There")) for each in candidates
    )
    question = Question(name, "embedded", "Where is it?", ("There",), "test")
    played = Trajectory(question, turns, "answer", "There", "", Ledger())
    return replace(row(question_id=name), trajectory=json.dumps(to_row(played)))


def test_a_topic_is_led_by_the_card_whose_figure_no_other_reaches():
    shares = {"places": 0.9, "money": 0.5, "metals": 0.4}
    card = Card("New", performance=shares, unsure={"places": 0.0, "money": 0.0, "metals": 0.6})
    other = Card("A", performance={"places": 0.8, "money": 0.5, "metals": 0.5})
    assert led_by(card, [other]) == ("metals", "places")
    assert ranked_first(card, [other], ["metals", "places"]) == 1.0
    assert ranked_first(other, [card], ["metals", "money"]) == 0.5  # no higher figure on money


def test_gain_and_shares_by_hand():
    without = [replace(asked("q0", "Old"), em=0.0), replace(asked("q1", "Old"), em=1.0)]
    better = [replace(asked("q0", "New"), em=1.0), replace(asked("q1", "Old", "New"), em=1.0)]
    played = Played("New", ("places",), without, {0: without, 8: better}, {8: 0.25})
    found = figures_of(played, ["Old"], lambda _: "places", 50)
    assert (found["n"], found["held_out"], found["em_without"]) == (2, True, 0.5)
    nothing, eight = found["curve"]
    assert (nothing["gain"]["mean"], nothing["first_calls"], nothing["calls"]) == (0.0, 0.0, 0.0)
    assert (eight["gain"]["mean"], eight["first_calls"], eight["calls"]) == (0.5, 0.5, 2 / 3)
    text = page({"seeds": 1, "max_questions": 2, "models": [found]})
    assert "Of 1 cards with probes, " in text
    assert "benchmarks.added_model --max-questions 2 --out" in text
    assert "## New, kept from training\n\nLeads places. 2 questions, 0.500 exact match" in text
    assert "| 8 | 1.000 | +0.500 [" in text
    assert text.rstrip().endswith("| 0.25 |")
