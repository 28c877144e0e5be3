"""Routers that see few probes, on matrices small enough to count by hand."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest

from routerr1.baselines.build import PER_PART, fitted_models
from routerr1.baselines.embed import TfidfEmbedder
from routerr1.baselines.few_probes import (
    FEW,
    PROMPTED,
    SPEND,
    Competence,
    FewProbes,
    asking_again,
    few_cards,
    from_few_probes,
    frugal_knn,
    observed,
)
from routerr1.baselines.learned import knn
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.replies import without_policy
from routerr1.config import Baseline
from routerr1.report.glossary import entry_of
from routerr1.types import Card

# Two topics: "a" is right on one, "b" on the other; "c" is always wrong and free.
QUESTIONS = ("red apple", "red cherry", "red rose", "blue sea", "blue sky")
MATRIX = Matrix(
    QUESTIONS,
    ("a", "b", "c"),
    np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=float),
    np.tile([2.0, 4.0, 0.0], (5, 1)),
    (("", "", ""),) * 5,
    ("red", "red", "red", "blue", "blue"),
)


def test_names_in_the_parameters_are_those_of_the_routers():
    named = set(get_args(Baseline))
    assert {*FEW, *PROMPTED, *SPEND} <= named
    counted = {name for name in named if name[-1].isdigit()} - {"search_r1"}
    assert counted == {*FEW, *PROMPTED, *SPEND}
    assert without_policy(["beta_8", "prompted_8", "direct"]) == ["beta_8"]


@pytest.mark.parametrize("seed", range(5))
def test_probes_are_spread_over_topics_and_the_eight_are_among_the_forty(seed):
    topics = tuple(f"t{place % 6}" for place in range(60))
    matrix = Matrix(
        tuple(f"q{place}" for place in range(60)), ("a",), np.ones((60, 1)), np.ones((60, 1)),
        (("",),) * 60, topics,
    )  # fmt: skip
    eight, forty = (observed(matrix, count, seed=seed) for count in (8, 40))
    assert sorted(Counter(eight.topics).values()) == [1, 1, 1, 1, 2, 2]
    assert set(Counter(forty.topics).values()) == {6, 7}
    assert set(eight.questions) < set(forty.questions)
    assert observed(matrix, 100, seed=seed).questions == matrix.questions
    assert observed(matrix, 8, seed=seed + 100).questions != eight.questions


def test_competence_by_hand():
    found = Competence.of(MATRIX)
    assert found.accuracy("red").tolist() == [1.0, pytest.approx(1 / 3), 0.0]
    # "a" is right 3 times of 5, so 4/7 with one right and one wrong more; "c" 0 of 5, so 1/7.
    assert found.overall.tolist() == [pytest.approx(value) for value in (4 / 7, 4 / 7, 1 / 7)]
    right, wrong = found.beta("blue")
    assert right.tolist() == [pytest.approx(value) for value in (8 / 7, 8 / 7 + 2, 2 / 7)]
    assert (right + wrong).tolist() == [pytest.approx(4.0)] * 3  # two probes, and a prior of two


@pytest.mark.parametrize("rule", ["best", "beta", "knn"])
def test_each_rule_finds_the_candidate_of_the_topic(rule):
    chooser = from_few_probes(MATRIX, TfidfEmbedder(), FewProbes(rule, 40), neighbours=10, seed=1)
    assert [chooser.choose(query) for query in ("a red car", "the blue car")] == ["a", "b"]


# On "red", "a" is right twice and else wrong, "b" is right once and else not sure.
HESITANT = Matrix(
    ("red apple", "red cherry", "red rose", "red wine"),
    ("a", "b", "c"),
    np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=float),
    np.tile([2.0, 4.0, 0.0], (4, 1)),
    (
        ("yes", "yes", "no"),
        ("yes", "I am not sure.", "no"),
        ("no", "I do not know.", "no"),
        ("no", "", "no"),
    ),
    ("red",) * 4,
)


def test_the_next_is_asked_after_the_one_that_was_right_most_often():
    chooser = asking_again(HESITANT, TfidfEmbedder(), "ask_again")
    assert chooser.scores("a red car") == {"a": 0.5, "b": 0.25, "c": 0.0}
    asked = []
    for _ in range(4):
        asked.append(chooser.next_best("a red car", asked))
    assert asked == ["a", "b", "c", "a"]


def test_the_surest_comes_first_where_who_is_not_sure_costs_nothing():
    chooser = asking_again(HESITANT, TfidfEmbedder(), "ask_sure_first")
    assert chooser.scores("a red car") == {
        "a": 0.5, "b": pytest.approx(0.25 / (1 - 0.95 * 0.75)), "c": 0.0
    }  # fmt: skip
    assert chooser.choose("a red car") == "b"


def test_thompson_draws_once_for_a_question_and_otherwise_by_seed():
    def chosen(seed: int) -> list[str]:
        which = FewProbes("thompson", 40)
        chooser = from_few_probes(MATRIX, TfidfEmbedder(), which, neighbours=10, seed=seed)
        return [chooser.choose(f"blue {place}") for place in range(200)]

    assert chosen(1) == chosen(1) != chosen(2)
    shares = Counter(chosen(1))
    # The highest of Beta(8/7, 20/7), Beta(22/7, 6/7), Beta(2/7, 26/7) is "b"'s with chance .948, "a"'s with .048.
    assert shares["b"] > 175
    assert shares["a"] > 0


def test_the_penalty_weighs_cost_against_quality():
    levels = {
        level: frugal_knn(MATRIX, TfidfEmbedder(), level=level, neighbours=2).choose("blue sea")
        for level in (0, 2, 3, 9)
    }
    # "b" is right and the most expensive: at level 2 it is worth 1 - 1.34, at level 3 1 - .84; "c" is free.
    assert levels == {0: "c", 2: "c", 3: "b", 9: "b"}
    plain = knn(MATRIX, TfidfEmbedder(), neighbours=2)
    full = frugal_knn(MATRIX, TfidfEmbedder(), level=10, neighbours=2)
    assert full.scores("red sea") == plain.scores("red sea")


def test_cards_hold_what_the_few_probes_showed():
    cards = [Card("c", performance={"blue": 0.9, "green": 0.5}), Card("b")]
    found = few_cards(cards, MATRIX)
    assert found[0].performance == {"blue": 0.0, "red": 0.0}
    assert found[1].performance == {"blue": 1.0, "red": 0.333}


def test_all_of_them_are_made_from_a_matrix_without_topics(params):
    matrix = Matrix(QUESTIONS, MATRIX.candidates, MATRIX.quality, MATRIX.cost, MATRIX.replies)
    made = fitted_models(matrix, params.baselines.replace(embedder="tfidf"), seed=1)
    for name in PER_PART:
        assert made[name]().choose("a red car") in matrix.candidates


def test_a_counted_router_has_a_label_that_says_the_count():
    beta = entry_of("baseline/beta_8")
    assert beta.label == "Beta mean on 8 probes"
    assert "8 probe questions; for each sub-question of the policy before" in beta.meaning
    whole = entry_of("baseline/knn_spend_5", policy=False)
    assert (whole.label, whole.meaning.endswith("; for the whole question")) == (
        "kNN at spend 5",
        True,
    )
    assert entry_of("baseline/other_8").label == "other_8"
