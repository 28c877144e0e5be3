"""The three rewards and how they fold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.reward import CostScale, FrozenCostScale, hierarchical

unit = st.floats(0, 1)
costs = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("format_valid", "answer", "cost_score", "alpha", "wanted"),
    [
        (False, 1.0, 1.0, 0.5, -1.0),  # nothing else counts
        (True, 0.0, 1.0, 0.9, 0.0),  # wrong earns nothing, however cheap
        (True, 1.0, 0.0, 0.0, 1.0),
        (True, 1.0, 0.5, 0.2, 0.9),  # .8 * 1 + .2 * .5
        (True, 0.5, 1.0, 0.6, 0.8),  # .4 * .5 + .6 * 1
    ],
)
def test_each_signal_counts_only_if_the_one_before_did(
    format_valid: bool, answer: float, cost_score: float, alpha: float, wanted: float
) -> None:
    assert hierarchical(format_valid, answer, cost_score, alpha) == pytest.approx(wanted)


@given(st.booleans(), unit, unit, unit)
def test_a_reward_stays_between_minus_one_and_one(
    format_valid: bool, answer: float, cost_score: float, alpha: float
) -> None:
    assert -1 <= hierarchical(format_valid, answer, cost_score, alpha) <= 1


@pytest.mark.parametrize("bad", [{"alpha": 1.1}, {"answer": -0.1}, {"cost_score": math.nan}])
def test_values_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        hierarchical(True, **{"answer": 1.0, "cost_score": 0.5, "alpha": 0.5, **bad})


def test_thrift_is_linear_in_the_square_root_of_the_cost() -> None:
    scale = FrozenCostScale(low=2.0, high=4.0)
    # sqrt: 1 (below low), 3 (middle), 5 (above high)
    assert [scale.score(cost) for cost in (1, 9, 25)] == [1.0, 0.5, 0.0]


def test_without_a_spread_thrift_says_nothing() -> None:
    assert CostScale().freeze().score(7.0) == 0.5
    assert CostScale(costs=[4.0] * 10).freeze().score(100.0) == 0.5


def test_old_costs_leave_the_window() -> None:
    scale = CostScale(window=2, costs=[1e6, 1.0, 9.0])
    assert scale.freeze() == CostScale(costs=[1.0, 9.0]).freeze()


@given(st.lists(costs, min_size=1), costs)
def test_a_frozen_scale_gives_equal_costs_equal_scores(seen: list[float], cost: float) -> None:
    scale = CostScale(costs=seen)
    frozen = scale.freeze()
    first = frozen.score(cost)
    scale.extend([cost * 2 + 1])
    assert frozen.score(cost) == first
    assert 0 <= first <= 1


@given(st.lists(costs, max_size=20))
def test_a_restored_scale_goes_on_as_if_nothing_had_happened(seen: list[float]) -> None:
    scale = CostScale(window=7, costs=seen)
    assert CostScale.restore(scale.state()).score(3.0) == scale.score(3.0)


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
def test_a_cost_that_is_none_is_refused(cost: float) -> None:
    with pytest.raises(ValueError, match="cost is"):
        CostScale().score(cost)
