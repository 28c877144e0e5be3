"""Answers are compared as SQuAD and HotpotQA compare them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.matching import RULES, contains, exact_match, normalise, token_f1


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


@pytest.mark.parametrize(
    ("said", "reference", "wanted"),
    [
        ("Beyonc\u00e9", "Beyonce\u0301", 1.0),
        ("O’Neill", "O'Neill", 1.0),
        ("1914–1918", "1914-1918", 1.0),
        ("巴黎。", "巴黎", 1.0),
        ("Straße", "STRASSE", 1.0),
        ("the Beatles", "Beatles", 1.0),
        ("U.S.", "us", 1.0),
        ("3.5", "35", 0.0),
        ("1.0", "1", 1.0),
        ("1.0", "10", 0.0),
        ("1,000.0", "1000", 1.0),
        ("1.000,5", "1000.5", 1.0),
        ("3,5", "3.5", 1.0),
        ("-5", "5", 0.0),
        ("−5", "-5", 1.0),
        ("007", "7", 1.0),
        ("1.2.2010", "122010", 0.0),
        (".5", "0.5", 1.0),
        (".5", "5", 0.0),
        ("1\u00a0000", "1000", 1.0),
        ("1\u202f000\u202f000", "1000000", 1.0),
        ("1.000.000", "1000000", 1.0),
        ("1,00,000", "100000", 1.0),
        ("٣٫٥", "3.5", 1.0),
        ("½", "1/2", 1.0),
        ("2½", "2 1/2", 1.0),
        ("2½", "21/2", 0.0),
        ("İstanbul", "istanbul", 1.0),
        ("C++", "C", 0.0),
        ("C#", "C", 0.0),
        ("A", "B", 0.0),
        ("The", "the", 1.0),
        ("A", "a", 1.0),  # the letter of an option is no article where it is the whole answer
    ],
)
def test_the_rule_text_compares_any_script_and_numbers_as_numbers(
    said: str, reference: str, wanted: float
) -> None:
    assert exact_match(said, [reference], "text") == wanted


@pytest.mark.parametrize(
    ("reply", "reference", "wanted"),
    [
        ("答えは東京です。", "東京", 1.0),
        ("สวัสดีกรุงเทพครับ", "กรุงเทพ", 1.0),
        ("The value is 35.", "3.5", 0.0),
        ("The value is 3.50.", "3.5", 1.0),
        ("The value is 0.5.", ".5", 1.0),
        ("The value is 5.", ".5", 0.0),
        ("Version 3.5.1", "3.5", 0.0),
        ("It is Parisian.", "Paris", 0.0),
        ("There is no doubt: yes.", "no", 0.0),
        ("There is no doubt: yes.", "yes", 1.0),
        ("No, never.", "no", 1.0),
    ],
)
def test_the_rule_text_finds_references_in_replies(
    reply: str, reference: str, wanted: float
) -> None:
    assert contains(reply, [reference], "text") == wanted


_ODD = st.sampled_from(list("aThe 0123.,-'’–#+()C%$東京é\u0301ßÅ๑¼⁄"))


@given(st.text(alphabet=_ODD | st.characters()))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    for rule in RULES[1:]:  # squad, as published, is not: it removes "a" before it joins "a-the"
        once = normalise(text, rule)
        assert normalise(once, rule) == once


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_numbers_are_equal_when_their_values_are(first: int, second: int) -> None:
    assert exact_match(f"{first:,}.0", [str(second)], "text") == float(first == second)
    assert exact_match(f"{first:,}.0", [f"{first}"], "text") == 1.0


def test_a_number_of_any_length_is_compared() -> None:
    long = "7" * 5000  # int() reads 4300 digits at most
    assert exact_match(f"00{long}.0", [long], "text") == 1.0
    assert exact_match(long, [f"{long}7"], "text") == 0.0
