"""Longer answers: what the score keeps apart, and what it cannot."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routerr1.answers.long_answer import AT_LEAST, Embed, long_score
from routerr1.baselines.embed import embedder
from routerr1.config import VerifyParams
from tests.answers.long_items import ITEMS
from tests.answers.negated_items import ITEMS as NEGATED


@pytest.fixture(scope="module")
def embed() -> Embed:
    """Embeds a text once: the tests score the same questions, references and replies."""
    minilm = embedder("minilm", 0)
    once = lru_cache(maxsize=None)(lambda text: minilm.embed([text])[0])
    return lambda texts: np.stack([once(text) for text in texts])


def test_most_right_answers_are_kept_and_most_wrong_ones_are_not(embed: Embed):
    """Of 38 right and 71 wrong answers, at most 2 and 3 are taken for the other."""

    def count(kind: int) -> tuple[int, int]:
        said = [(item, each) for item in ITEMS for each in item[kind]]
        taken = [long_score(item[0], each, [item[1]], embed) >= AT_LEAST for item, each in said]
        return sum(taken), len(taken)

    kept, num_right = count(2)
    taken, num_wrong = count(3)
    assert (num_right, num_wrong) == (38, 71)
    assert num_right - kept <= 2
    assert taken <= 3
    assert VerifyParams().long_at_least == AT_LEAST


def test_rewordings_with_a_negation_are_kept_and_contradictions_are_not(embed: Embed):
    """Of 48 right and 48 wrong rewordings, at most 8 and 4 are taken for the other."""

    def passed(kind: int) -> list[bool]:
        return [
            long_score(item[0], said, [item[1]], embed) >= AT_LEAST
            for item in NEGATED
            for said in item[kind]
        ]

    right, wrong = passed(2), passed(3)
    assert len(right) == len(wrong) == 48
    assert sum(right) >= 40
    assert sum(wrong) <= 4


@pytest.mark.parametrize("item", ITEMS[::3], ids=lambda item: item[0])
def test_the_reference_is_right_with_words_around_it(item, embed: Embed):
    question, reference, _, wrong = item
    for said in (
        reference,
        f"Of course! {reference} Let me know if you need anything else.",
        f"Gern.\n\n- {reference}\n- Sonst fragen Sie uns.",
    ):
        assert long_score(question, said, [reference], embed) > 0.9
    assert (
        long_score(question, reference, [wrong[0], reference], embed) > 0.99
    )  # the nearest counts


@pytest.mark.parametrize("item", ITEMS[::9], ids=lambda item: item[0])
@pytest.mark.parametrize(
    "said",
    ["", "  \n", "I do not know.", "Das kann ich leider nicht beantworten.", "Yes.", "Paris", "!?"],
)
def test_no_answer_is_wrong(item, said: str, embed: Embed):
    assert long_score(item[0], said, [item[1]], embed) < AT_LEAST


@pytest.mark.parametrize("item", ITEMS[1::3], ids=lambda item: item[0])
def test_an_echo_of_the_question_and_another_answer_are_wrong(item, embed: Embed):
    for said in (item[0], f"You ask: {item[0]} That is a good question.", f"{item[0]} {item[0]}"):
        assert long_score(item[0], said, [item[1]], embed) < AT_LEAST
    other = next(each for each in ITEMS if each[0] != item[0] and each[1][:3] != item[1][:3])
    assert long_score(item[0], other[1], [item[1]], embed) < AT_LEAST


def test_a_number_of_the_question_need_not_be_repeated(embed: Embed):
    question = "Why does the printer say error 4431?"
    reference = "Error 4431 means that the toner is empty. Put in a new cartridge within 3 days."
    said = "The toner is used up. You have 3 days to change the cartridge."
    repeated = said.replace("The toner", "Error 4431: the toner")
    score = long_score(question, said, [reference], embed)
    assert score >= AT_LEAST
    assert long_score("Why does the printer stop?", said, [reference], embed) < score
    other = repeated.replace("4431", "4432")
    assert long_score(question, other, [reference], embed) < AT_LEAST


@pytest.mark.parametrize(
    ("said", "reference"),
    [
        ("Invoices are not due within 30 days of the date of issue.", "Invoices are due within 30 days of the date of issue."),
        ("Invoices are due within 60 days of the date of issue.", "Invoices are due within 30 days of the date of issue."),
        ("Der Versand dauert zwei bis neun Werktage.", "Der Versand dauert drei bis fünf Werktage."),
        ("Das Gerät darf nicht ins Wasser getaucht werden.", "Das Gerät darf ins Wasser getaucht werden."),
        ("You can return opened software at any time.", "You can never return software that was opened."),
    ],
)  # fmt: skip
def test_other_numbers_and_a_negation_on_one_side_are_wrong(
    said: str, reference: str, embed: Embed
):
    assert long_score("?", said, [reference], embed) < AT_LEAST
    assert long_score("?", reference, [reference], embed) == pytest.approx(1.0)


def test_equal_numbers_may_be_spelled(embed: Embed):
    reference = "Der Versand dauert 3 bis 5 Werktage."
    assert long_score("?", "Der Versand dauert drei bis fünf Werktage.", [reference], embed) > 0.75


def test_exchanged_parts_of_a_right_answer_pass_which_the_docs_say(embed: Embed):
    reference = (
        "Air molecules scatter short blue wavelengths of sunlight more strongly than long red ones."
    )
    said = (
        "Air molecules scatter long red wavelengths of sunlight more strongly than short blue ones."
    )
    assert long_score("Why is the sky blue?", said, [reference], embed) >= AT_LEAST


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=200), st.lists(st.text(max_size=50), max_size=3))
def test_any_text_has_a_score_within_bounds(embed: Embed, said: str, references: list[str]):
    assert 0.0 <= long_score("?", said, references, embed) <= 1.0
