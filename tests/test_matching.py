"""Answers are compared as SQuAD and HotpotQA compare them."""

import pytest

from routerr1.matching import exact_match, normalise, token_f1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Beatles!", "beatles"),
        ("U.S.A.", "usa"),
        ("an apple a day", "apple day"),
        ("  ", ""),
        ("São Paulo", "são paulo"),
    ],
)
def test_normalisation_drops_case_articles_punctuation_and_space(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


def test_any_gold_counts() -> None:
    assert exact_match("the us", ["USA", "U.S."]) == 1.0
    assert exact_match("us of a", ["USA", "U.S."]) == 0.0
    assert exact_match("x", []) == 0.0


def test_f1_is_the_harmonic_mean_of_precision_and_recall_on_the_best_gold() -> None:
    # said 3 tokens, gold 2, shared 2: P = 2/3, R = 1, F1 = 4/5; the second gold shares nothing
    assert token_f1("big red barn", ["red barn", "house"]) == pytest.approx(0.8)
    assert token_f1("x", []) == 0.0


def test_yes_and_no_earn_no_partial_credit() -> None:
    assert token_f1("yes it is", ["yes"]) == 0.0
    assert token_f1("yes", ["yes"]) == 1.0
