"""The one renderer: what a policy is told of its candidates."""

import pytest

from routerr1.pool.simulated import TRAINING_NAMES, UNSEEN_NAMES, drawn_candidates, training_pool
from routerr1.prompt import renderer, shortlist
from routerr1.train.policy import train_tokenizer
from routerr1.types import Card, Question

CARDS = (
    Card("Ada", "sums", (), 0.1, 0.5, 0.42, performance={"maths": 0.91, "law": 0.2}),
    Card("Bo", "pleas", (), 0.2, 2.0, 1.5, performance={"maths": 0.3, "law": 0.88}),
    Card("Cy", "", (), 0.1, 0.25, performance={"maths": 0.3}),
    Card("Di", "", (), 0.1, 0.25, performance={"maths": 0.62, "law": 0.88}),
)
QUESTION = Question("q", "d", "Why?", ("x",), "test")


def test_the_compact_prompt_lists_prices_then_who_is_how_good_at_each_topic() -> None:
    assert renderer("compact", 4)(QUESTION, CARDS) == (
        " Ada 50c 400ms; Bo 200c 1500ms; Cy 25c; Di 25c;"
        " law 20 Ada 90 Bo 90 Di; maths 90 Ada 30 Bo 60 Di\n"
        "Question: Why?\n"
    )


def test_a_shortlist_holds_the_three_best_in_the_order_of_the_cards() -> None:
    assert shortlist("maths", CARDS) == " maths 90 Ada 30 Bo 60 Di"
    assert shortlist("maths", CARDS[::-1]) == " maths 60 Di 30 Cy 90 Ada"
    assert shortlist("botany", CARDS) == " botany"


def test_the_full_prompt_shows_description_price_latency_and_performance() -> None:
    text = renderer("full", 3)(QUESTION, CARDS)
    assert "- Ada: sums; $0.1 in, $0.5 out per million tokens; 0.4 s median latency; " in text
    assert "right on law 20%, maths 90%." in text
    assert "at most 3 times" in text


def test_names_never_trained_on_are_new_pairs_of_pieces_that_were() -> None:
    assert not set(TRAINING_NAMES) & set(UNSEEN_NAMES)
    tokenizer = train_tokenizer((f" {name}" for name in TRAINING_NAMES * 3), 600)
    met = {piece for name in TRAINING_NAMES for piece in tokenizer.tokenize(f" {name}")}
    for name in UNSEEN_NAMES:
        pieces = tokenizer.tokenize(f" {name}")
        assert len(pieces) == 2
        assert set(pieces) <= met
        assert tokenizer.decode(tokenizer(f" {name}")["input_ids"]) == f" {name}"


def test_drawn_pools_repeat_by_seed_and_half_of_those_for_training_have_no_generalist() -> None:
    assert drawn_candidates(5) == drawn_candidates(5) != drawn_candidates(6)
    pools = [training_pool({}, seed).candidates for seed in range(200)]
    assert {len(pool) for pool in pools} == {6}
    general = sum(any(min(each.skill.values()) > 0.6 for each in pool) for pool in pools)
    assert 70 < general < 130
    with pytest.raises(ValueError, match="families"):
        drawn_candidates(1, names=UNSEEN_NAMES[:2])
