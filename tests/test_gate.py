"""The gate's rules, one by one, on figures worked by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1 import gate
from routerr1.config import GateParams
from routerr1.evaluate.stats import Difference
from routerr1.gate import Metrics, Play

PARAMS = GateParams(
    margin_em=0.02,
    max_cost_ratio=1.25,
    max_cost_usd=None,
    min_format_validity=0.95,
    min_em=0.3,
    max_top_model_share=0.9,
    max_no_call_rate=0.5,
    min_call_entropy=0.3,
    min_unseen_em=0.1,
)
GOOD = Metrics(
    questions=100,
    em=0.6,
    cost_usd=0.001,
    format_validity=1.0,
    top_model_share=0.5,
    no_call_rate=0.1,
    call_entropy=1.5,
    unseen_em=0.4,
)
BETTER = Difference(mean=0.05, low=0.01, high=0.09, p=0.01, resolvable=0.06, n=100, groups=40)


def play(name: str, em: float = 1.0, *called: str, cost: float = 0.001) -> Play:
    return Play(name, name, em, cost, True, called)


def test_figures_are_means_and_shares_over_the_plays() -> None:
    plays = [
        play("1", 1.0, "a", "b", cost=0.4),
        play("2", 0.0, "a", "a", cost=0.2),
        replace(play("3", 1.0, cost=0.0), formed=False),
    ]
    # Calls: a 3 of 4, b 1 of 4; entropy 3/4 log2(4/3) + 1/4 log2 4 = 0.8113.
    found = gate.measure(plays, unseen=plays[:2])
    assert found.questions == 3
    assert found.em == pytest.approx(2 / 3)
    assert found.cost_usd == pytest.approx(0.2)
    assert found.format_validity == pytest.approx(2 / 3)
    assert (found.top_model_share, found.no_call_rate) == (0.75, pytest.approx(1 / 3))
    assert found.call_entropy == pytest.approx(0.8113, abs=1e-4)
    assert found.unseen_em == 0.5


def test_no_plays_measure_nothing_and_fail() -> None:
    found = gate.measure([])
    assert found.em is None
    assert not gate.decide(found, None, PARAMS).passed


def test_a_good_challenger_passes_each_rule_of_the_comparison() -> None:
    decision = gate.decide(GOOD, GOOD, PARAMS, BETTER)
    assert decision.passed
    assert [rule.name for rule in decision.rules] == [
        "same_questions",
        "em_difference",
        "cost_ratio",
        "format",
        "top_model",
        "no_call",
        "call_entropy",
        "unseen_pool",
    ]


@pytest.mark.parametrize(
    ("change", "refused_by"),
    [
        ({"format_validity": 0.94}, "format"),
        ({"top_model_share": 0.91}, "top_model"),
        ({"no_call_rate": 0.51}, "no_call"),
        ({"call_entropy": 0.29}, "call_entropy"),
        ({"unseen_em": 0.09}, "unseen_pool"),
        ({"unseen_em": None}, "unseen_pool"),
        ({"cost_usd": 0.00126}, "cost_ratio"),  # 1.25 times 0.001 is the limit
        ({"cost_usd": math.nan}, "cost_ratio"),
        ({"format_validity": math.inf}, "format"),
        ({"questions": 101}, "same_questions"),  # one that the champion did not play
    ],
)
def test_one_bad_figure_refuses_by_its_own_rule(change: dict[str, float], refused_by: str) -> None:
    decision = gate.decide(replace(GOOD, **change), GOOD, PARAMS, BETTER)
    assert decision.refused_by == (refused_by,)


@pytest.mark.parametrize(
    ("low", "passed"), [(-0.019, True), (-0.02, True), (-0.0201, False), (math.nan, False)]
)
def test_the_lower_end_of_the_interval_may_lie_by_the_margin_below_zero(
    low: float, passed: bool
) -> None:
    assert gate.decide(GOOD, GOOD, PARAMS, replace(BETTER, low=low)).passed is passed


def test_without_a_comparison_a_champion_stays() -> None:
    decision = gate.decide(GOOD, GOOD, PARAMS, None)
    assert decision.refused_by == ("same_questions", "em_difference")


def test_a_single_group_of_questions_has_no_interval_and_proves_nothing() -> None:
    found = gate.compare([play("1", 1.0)], [play("1", 0.0)])
    decision = gate.decide(GOOD, GOOD, PARAMS, replace(BETTER, low=None, high=None))
    assert found is not None
    assert found.low is None
    assert decision.refused_by == ("em_difference",)
    assert "a single group of questions has none" in gate.to_markdown(decision)


def test_a_first_champion_needs_the_floor_instead() -> None:
    assert gate.decide(GOOD, None, PARAMS).passed
    assert gate.decide(replace(GOOD, em=0.29), None, PARAMS).refused_by == ("em_floor",)
    assert gate.decide(replace(GOOD, em=math.nan), None, PARAMS).refused_by == ("em_floor",)


def test_a_cost_ceiling_holds_with_and_without_a_champion() -> None:
    params = PARAMS.model_copy(update={"max_cost_usd": 0.0009})
    assert gate.decide(GOOD, None, params).refused_by == ("cost",)
    assert gate.decide(GOOD, GOOD, params, BETTER).refused_by == ("cost",)


def test_a_champion_that_costs_nothing_allows_no_cost() -> None:
    free = replace(GOOD, cost_usd=0.0)
    assert gate.decide(free, free, PARAMS, BETTER).passed
    assert gate.decide(GOOD, free, PARAMS, BETTER).refused_by == ("cost_ratio",)


def test_the_comparison_pairs_questions_by_id_whatever_their_order() -> None:
    new = [play("1", 1.0), play("2", 1.0), play("3", 0.0), play("4", 1.0)]
    old = [play("4", 1.0), play("2", 0.0), play("1", 1.0), play("9", 1.0)]
    found = gate.compare(new, old)
    assert found is not None
    assert (found.n, found.mean) == (3, pytest.approx(1 / 3))  # 1: 0, 2: +1, 4: 0


def test_what_cannot_be_compared_gives_no_comparison() -> None:
    assert gate.compare([play("1")], [play("2")]) is None
    assert gate.compare([play("1", math.nan)], [play("1")]) is None


def test_the_page_shows_every_rule_with_its_verdict() -> None:
    page = gate.to_markdown(
        gate.decide(replace(GOOD, unseen_em=None), GOOD, PARAMS, BETTER), {"challenger": "3"}
    )
    assert page.startswith("# Gate: refused\n\n- challenger: 3\n")
    assert "| em_difference | 0.05 | 0.01 to 0.09 | -0.02 | pass |" in page
    assert "| unseen_pool | missing |  | 0.1 | **FAIL** |" in page


FIGURE = st.none() | st.floats()


@given(em=FIGURE, cost=FIGURE, share=FIGURE, unseen=FIGURE, old=FIGURE)
def test_nothing_that_is_not_finite_ever_passes(
    em: float | None,
    cost: float | None,
    share: float | None,
    unseen: float | None,
    old: float | None,
) -> None:
    new = replace(GOOD, em=em, cost_usd=cost, format_validity=share, unseen_em=unseen)
    decision = gate.decide(new, replace(GOOD, cost_usd=old), PARAMS, BETTER)
    if any(figure is None or not math.isfinite(figure) for figure in (cost, share, unseen, old)):
        assert not decision.passed
    assert gate.to_markdown(decision).startswith("# Gate: ")
