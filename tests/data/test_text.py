"""What questions are compared by, on cases worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.data import text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who’s  the KING?", "who s the king", True),
        ("Who is it?", "who is it", True),
        ("ｆｕｌｌ　ｗｉｄｔｈ １２", "full width 12", True),  # NFKC
        ("STRASSE", "straße", True),  # case folding, not lower case
        ("“Ulysses” — who?", "Ulysses who", True),
        ("What is C++?", "What is C?", False),  # a symbol, not punctuation
        ("What is 1.5?", "What is 15?", False),  # punctuation becomes a blank
        ("naïve", "naive", False),
    ],
)
def test_questions_that_are_the_same_but_for_case_and_punctuation(
    one: str, other: str, same: bool
) -> None:
    assert (text.comparable(one) == text.comparable(other)) is same


@given(st.text())
def test_comparing_is_idempotent_up_to_composition(raw: str) -> None:
    once = text.comparable(raw)
    assert text.comparable(text.comparable(once)) == text.comparable(once)
    assert once == " ".join(once.split())


def test_keys_are_fixed_signed_64_bit_numbers() -> None:
    # blake2b-64 of b"who is it" is the same in every process and on every machine.
    assert text.key("who is it") == text.key(text.comparable("Who is IT?"))
    assert all(-(2**63) <= text.key(str(number)) < 2**63 for number in range(100))
    assert len({text.key(str(number)) for number in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    ("question", "golds", "leaks"),
    [
        ("Is Paris older than Rome?", ["paris"], True),
        ("Is the Eiffel-Tower in Paris?", ["Eiffel Tower"], False),  # SQuAD drops the hyphen
        ("Who wrote the Parisian?", ["Paris"], False),  # a word, not a part of one
        ("Is there no answer, yes or no?", ["yes", "No"], False),
        ("Who is the?", ["The"], False),  # normalises to nothing
        ("Who led France in 1940?", ["Pétain", "in 1940"], True),
        ("Anything", [], False),
    ],
)
def test_leaks_are_whole_words_of_the_question(
    question: str, golds: list[str], leaks: bool
) -> None:
    assert text.leaks(question, golds) is leaks


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("Yes", "yes_no"),
        ("1,200 km", "number"),
        ("$ 3.5 million", "number"),
        ("42", "number"),
        ("1999", "date"),
        ("1990s", "date"),
        ("3 May 1990", "date"),
        ("May 3, 1990", "date"),
        ("May", "phrase"),
        ("Paris", "phrase"),
        ("7-Eleven store owners of the world", "phrase"),
        ("because it was the first of all such places", "sentence"),
        ("", "phrase"),
    ],
)
def test_kinds_of_answers(gold: str, kind: str) -> None:
    assert text.answer_type([gold]) == kind


def test_a_question_without_golds_has_a_kind_too() -> None:
    assert text.answer_type([]) == "phrase"


@pytest.mark.parametrize("gold", ["the", "---", " ", "!!!", "A", "The The"])
def test_golds_that_say_nothing(gold: str) -> None:
    assert not text.says_something(gold)
