"""Worked examples: every number is reached by hand in a comment."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routerr1.evaluate.stats import holm, interval, paired_difference, ratio_interval, spread


def test_two_groups_give_the_bootstrap_distribution_worked_by_hand():
    # Groups a = {1, 1}, b = {0, 0}: a draw of two groups is aa, ab, ba or bb with equal chance, so
    # the mean is 1, .5, .5, 0: 2.5 % and 97.5 % percentiles are 0 and 1.
    found = interval([1, 1, 0, 0], ["a", "a", "b", "b"], resamples=4000)
    assert (found.mean, found.low, found.high, found.n, found.groups) == (0.5, 0.0, 1.0, 4, 2)
    # A quarter of the draws is 0, so the 60 % interval (20th to 80th) still spans 0 to 1, while the
    # 40 % interval (30th to 70th) lies wholly in the half that is .5.
    narrow = interval([1, 1, 0, 0], ["a", "a", "b", "b"], resamples=4000, confidence=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_groups_of_unequal_size_are_weighted_by_their_questions():
    # a = {1, 1, 1}, b = {0}: aa -> 1, ab -> 3/4, bb -> 0.
    found = interval([1, 1, 1, 0], ["a", "a", "a", "b"], resamples=4000, confidence=0.4)
    assert (found.mean, found.low, found.high) == (0.75, 0.75, 0.75)


def test_repetitions_are_resampled_too_worked_by_hand():
    # One question, two repetitions {0, 1}: a draw of two repetitions has the mean 0, .5, .5 or 1.
    found = interval([[0.0], [1.0]], resamples=4000)
    assert (found.mean, found.low, found.high, found.n, found.groups) == (0.5, 0.0, 1.0, 1, 1)
    narrow = interval([[0.0], [1.0]], resamples=4000, confidence=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)
    # Means 0 and 1 of the repetitions: variance 1/2 over two of them, standard error 1/2, times 1.96 + .8416.
    gap = paired_difference([[0.0], [1.0]], [[0.0], [0.0]])
    assert gap.resolvable == pytest.approx(2.8016 * 0.5, abs=1e-4)


def test_repetitions_that_agree_add_nothing_and_ones_that_differ_widen():
    once = [0.0, 1.0, 1.0, 0.0] * 10
    alone, thrice = interval(once, resamples=2000), interval([once] * 3, resamples=2000)
    assert (alone.mean, alone.n) == (thrice.mean, thrice.n)
    assert (alone.low, alone.high) == pytest.approx((thrice.low, thrice.high))
    apart = interval([[0.0] * 40, [1.0] * 40, once], resamples=2000)
    assert apart.high - apart.low > 2 * (alone.high - alone.low)


def test_phrasings_of_one_question_do_not_narrow_the_interval():
    alone = interval([0, 1] * 20, resamples=4000, seed=1)
    thrice = interval(
        np.repeat([0, 1] * 20, 3), [str(i) for i in np.repeat(range(40), 3)], resamples=4000, seed=1
    )
    as_rows = interval(np.repeat([0, 1] * 20, 3), resamples=4000, seed=1)
    assert math.isclose(thrice.high - thrice.low, alone.high - alone.low, rel_tol=0.05)
    assert as_rows.high - as_rows.low < 0.7 * (alone.high - alone.low)


def test_interval_agrees_with_the_normal_approximation_on_many_coins():
    # 400 coins, half heads: standard error .5 / 20 = .025, interval .5 -+ 1.96 * .025 = [.451, .549].
    found = interval([0, 1] * 200, resamples=8000)
    assert found.low == pytest.approx(0.451, abs=0.004)
    assert found.high == pytest.approx(0.549, abs=0.004)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    rng = np.random.default_rng(3)
    held = 0
    for trial in range(300):
        truth = rng.random(60) < 0.4
        found = interval(truth, resamples=500, seed=trial)
        held += found.low <= 0.4 <= found.high
    assert 0.90 <= held / 300 <= 0.99


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_a_router_paired_with_itself_differs_by_exactly_nothing(values):
    for measured in (values, [values, values[::-1]]):
        same = paired_difference(measured, measured, resamples=100)
        assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
        assert same.resolvable == 0.0


def test_a_share_of_calls_is_a_ratio_of_sums_worked_by_hand():
    # Groups a: 1 of 2 calls, b: 0 of 2. aa -> 2/4, ab -> 1/4, bb -> 0; the middle half is 1/4.
    found = ratio_interval([1, 0], [2, 2], ["a", "b"], resamples=4000, confidence=0.4)
    assert (found.mean, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 4)
    # b without calls: aa and ab give 1/2, bb has no call and is left out.
    sparse = ratio_interval([1, 0], [2, 0], ["a", "b"], resamples=400)
    assert (sparse.mean, sparse.low, sparse.high) == (0.5, 0.5, 0.5)
    assert ratio_interval([0, 0], [0, 0]) is None


def test_pairing_removes_what_the_questions_share():
    # b is right on half the questions; a is right on all of those and on one in ten of the rest.
    b = np.array([0, 1] * 100, float)
    a = b.copy()
    a[::20] = 1
    paired = paired_difference(a, b)
    assert paired.mean == pytest.approx(0.05)
    assert paired.low > 0
    assert paired.low == -paired_difference(b, a).high
    # Unpaired, each has a half-width of about .07: a gap of .05 would drown.
    assert interval(a).low < interval(b).high


def test_p_value_is_bounded_by_the_number_of_draws():
    # Every draw is 1: none at or below 0, so p = 2 * 1 / 100 with 99 draws.
    assert paired_difference([1, 1], [0, 0], resamples=99).p == pytest.approx(0.02)


def test_resolvable_difference_is_the_textbook_one():
    # Differences +1 and -1, fifty each: sd = sqrt(100/99), standard error .1005; times 1.96 + .8416.
    found = paired_difference([1, 0] * 50, [0, 1] * 50)
    assert found.resolvable == pytest.approx(2.8016 * math.sqrt(1 / 99), abs=1e-4)


def test_holm_by_hand():
    # Sorted .01, .02, .04: times 3, 2, 1 = .03, .04, .04; never falling; back in input order.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_spread_over_seeds_by_hand():
    # .2, .4, .6: mean .4, deviations -.2, 0, .2, sample variance .08 / 2 = .04.
    found = spread([0.2, 0.4, 0.6])
    assert (found.mean, found.sd) == (pytest.approx(0.4), pytest.approx(0.2))
    assert (found.low, found.high, found.seeds) == (0.2, 0.6, 3)
    assert spread([0.3]).sd is None


def test_same_seed_same_numbers_whatever_the_row_order():
    values, groups = [0.0, 1.0, 1.0, 0.0], ["c", "a", "b", "a"]
    turned = interval(values[::-1], groups[::-1], seed=4)
    assert interval(values, groups, seed=4) == turned
    assert interval(np.arange(50.0), seed=4) != interval(np.arange(50.0), seed=5)


@pytest.mark.parametrize(
    ("values", "groups", "why"),
    [
        ([], None, "at least one"),
        ([math.nan], None, "finite"),
        ([1.0, 2.0], ["a"], "2 values but 1 groups"),
    ],
)
def test_what_cannot_be_summarised_is_refused(values, groups, why):
    with pytest.raises(ValueError, match=why):
        interval(values, groups)


def test_unequal_lengths_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 0.0])
