import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routerr1.evaluate.pareto import area, cost_at, front, quality_at

POINTS = [(1.0, 0.5), (2.0, 0.8), (3.0, 0.7), (4.0, 0.9)]
points = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1)), min_size=1, max_size=8)


def test_front_by_hand():
    # (3, .7) is dearer and worse than (2, .8); the slopes .5, .3, .05 fall, so the rest are corners.
    assert front(POINTS) == [(0.0, 0.0), (1.0, 0.5), (2.0, 0.8), (4.0, 0.9)]


def test_a_point_under_the_line_between_two_others_is_no_corner():
    assert front([(1.0, 0.2), (2.0, 0.8)]) == [(0.0, 0.0), (2.0, 0.8)]


def test_area_by_hand():
    # Triangle 1 * .5 / 2 = .25, then 1 * (.5 + .8) / 2 = .65; over two dollars: .9 / 2 = .45.
    assert area([(1.0, 0.5), (2.0, 0.8)], 2.0) == pytest.approx(0.45)
    # Beyond the last corner the front is flat: two more dollars at .8.
    assert area([(1.0, 0.5), (2.0, 0.8)], 4.0) == pytest.approx((0.9 + 1.6) / 4)


def test_quality_and_cost_between_two_corners():
    assert quality_at(POINTS, 1.5) == pytest.approx(0.65)
    assert cost_at(POINTS, 0.65) == pytest.approx(1.5)
    assert quality_at(POINTS, 99.0) == 0.9
    assert cost_at(POINTS, 0.95) is None
    assert cost_at(POINTS, 0.0) == 0.0


def test_who_answers_for_nothing_is_on_the_front():
    assert front([(0.0, 0.3), (1.0, 0.2)]) == [(0.0, 0.3)]
    assert quality_at([(0.0, 0.3)], 0.0) == 0.3


@settings(deadline=None)
@given(points)
def test_no_point_lies_above_the_front(found):
    for cost, quality in found:
        assert quality_at(found, cost) >= quality - 1e-9


@settings(deadline=None)
@given(points, points)
def test_more_routers_never_shrink_the_area(found, more):
    assert area([*found, *more], 10.0) >= area(found, 10.0) - 1e-9


def test_area_needs_a_width():
    with pytest.raises(ValueError, match="above 0"):
        area(POINTS, 0.0)
