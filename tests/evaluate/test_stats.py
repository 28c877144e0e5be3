"""Worked examples: every number is reached by hand in a comment."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routerr1.evaluate.stats import (
    AMOUNT,
    SHARE,
    Sample,
    average,
    difference_of,
    holm,
    interval,
    interval_of,
    paired_difference,
    ratio_interval,
    spread,
    subtract,
)


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


def test_three_seeds_that_are_all_there_is_give_the_textbook_t_interval():
    # Seeds .2, .4, .6 on every question: standard error .2 / sqrt(3), two degrees of freedom.
    seeds = np.array([[0.2], [0.4], [0.6]]) * np.ones(8)
    error = 0.2 / math.sqrt(3)
    found = interval(seeds, resamples=40_000)
    assert (found.mean, found.n, found.groups) == (pytest.approx(0.4), 8, 8)
    # t(.975; 2) = 4.3027 and t(.8; 2) = 1.0607. The interval is drawn, so it is near.
    assert found.low == pytest.approx(0.4 - 4.3027 * error, abs=0.02)
    assert found.high == pytest.approx(0.4 + 4.3027 * error, abs=0.02)
    gap = paired_difference(seeds, 0 * seeds)
    assert gap.mde == pytest.approx((4.3027 + 1.0607) * error, abs=1e-4)
    assert 0.05 < gap.p < 0.1  # t = 3.46 with two degrees of freedom: p = .074


def test_errors_of_questions_and_of_seeds_worked_by_hand():
    # Seed means .75 and .25: their variance .125, over two seeds 1/16. Question means 1, .5, .5, 0: sum of
    # squares around .5 is .5, cluster-robust .5 / 16 * 4 / 3 = 1/24. What is left of each value after seed and
    # question is a quarter: 8 / 16 on 3 * 1 degrees of freedom is 1/6 a value, and 1/48 in the mean of eight;
    # the seeds' variance holds that, so questions keep 1/24 - 1/48 = 1/48.
    values = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    questions, seeds = math.sqrt(1 / 48), math.sqrt(1 / 16)
    # Of the normal distribution 1.9600 and .8416; of Student's t on one degree of freedom 12.7062 and 1.3764.
    reach = math.hypot(1.9600 * questions, 12.7062 * seeds)
    reach += math.hypot(0.8416 * questions, 1.3764 * seeds)
    found = paired_difference(values, 0 * values)
    assert found.mde == pytest.approx(reach, rel=1e-4)


def test_seeds_that_agree_change_nothing_and_ones_that_differ_widen():
    once = [0.0, 1.0, 1.0, 0.0] * 10
    alone, thrice = interval(once), interval([once] * 3)
    assert (alone.mean, alone.n) == (thrice.mean, thrice.n)
    assert (alone.low, alone.high) == (thrice.low, thrice.high)
    # That seeds are right equally often, if on other questions, may be chance.
    turned = [once, np.roll(once, 1), np.roll(once, 2)]
    averaged, seeds = interval(np.mean(turned, axis=0)), interval(turned)
    assert seeds.low <= averaged.low < averaged.high <= seeds.high
    apart = interval([[0.0] * 40, [1.0] * 40, once])
    assert apart.high - apart.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("between", [0.0, 0.03, 0.15])
@pytest.mark.slow
def test_with_three_seeds_ninety_five_of_a_hundred_intervals_hold_the_truth(between):
    """Seeds from a normal distribution around .5, questions and what a seed makes of each likewise."""
    rng = np.random.default_rng(7)
    held = averaged = 0
    for trial in range(300):
        seeds, questions = between * rng.standard_normal((3, 1)), 0.3 * rng.standard_normal(50)
        values = 0.5 + seeds + questions + 0.3 * rng.standard_normal((3, 50))
        found = interval(values, resamples=400, seed=trial)
        held += found.low <= 0.5 <= found.high
        naive = interval(values.mean(axis=0), resamples=400, seed=trial)
        averaged += naive.low <= 0.5 <= naive.high
    assert 0.93 <= held / 300 <= 0.99
    if between == 0.15:  # where seeds matter, an interval over questions alone is a bad joke
        assert averaged / 300 < 0.7


def test_seed_effects_alone_seldom_make_two_equal_routers_differ():
    rng = np.random.default_rng(11)
    found = 0
    for trial in range(300):
        a, b = (
            rng.random((3, 60)) < np.clip(0.6 + 0.1 * rng.standard_normal((3, 1)), 0, 1)
            for _ in range(2)
        )
        found += paired_difference(a, b, resamples=400, seed=trial).p < 0.05
    assert found / 300 <= 0.07


def test_routers_of_different_seeds_are_compared_without_pairing_them():
    # Errors of the mean .2 / sqrt(3) on two degrees of freedom and, from seeds .1 and .3, .1 on one; t as above.
    three = np.array([[0.2], [0.4], [0.6]]) * np.ones(8)
    two = np.array([[0.1], [0.3]]) * np.ones(8)
    sample = Sample([str(place) for place in range(8)])
    found = difference_of(subtract(*sample.means([three, two])))
    one = 0.2 / math.sqrt(3)
    reach = math.hypot(4.3027 * one, 12.7062 * 0.1) + math.hypot(1.0607 * one, 1.3764 * 0.1)
    assert found.mean == pytest.approx(0.2)
    assert found.mde == pytest.approx(reach, rel=1e-4)


def test_what_is_measured_on_one_sample_is_what_it_would_be_alone():
    a, b, groups = [1, 0, 1, 1], [0, 0, 1, 1], ["x", "x", "y", "z"]
    one, two = Sample(groups, seed=3).means([a, b])
    assert interval_of(one) == interval(a, groups, seed=3)
    assert difference_of(subtract(one, two)) == paired_difference(a, b, groups, seed=3)


def test_an_average_over_data_sets_weighs_each_alike_worked_by_hand():
    # Set a: 1, 1, 1, 0, mean .75. Set b: 0, 1, mean .5. Macro .625; over all six questions it is 2/3.
    a = Sample(list("1234"), seed=1).means([[1, 1, 1, 0]])[0]
    b = Sample(list("12"), seed=2).means([[0, 1]])[0]
    both = average([a, b])
    assert (both.value, both.n, both.groups) == (0.625, 6, 4)  # twice the two of b
    # b is 0, .5, .5 or 1 by draw, a quarter each: the macro-average lies within half of that of a's draws.
    found = interval_of(both)
    assert found.low == pytest.approx(0.25, abs=0.13)
    assert found.high <= 1.0


def test_an_average_is_no_surer_than_its_smallest_data_set():
    # None right of 1000 and of 10. The second alone may have 1 - .05^(1/10) = .2589, which is .1295 in the mean
    # of both; as many groups in both, 2 * 10 in all, give a little more: 1 - .05^(1/20) = .1391.
    large = Sample([str(place) for place in range(1000)], seed=1).means([[0.0] * 1000])[0]
    small = Sample([str(place) for place in range(10)], seed=2).means([[0.0] * 10])[0]
    found = interval_of(average([large, small]), within=SHARE)
    assert (found.low, found.high) == (0.0, pytest.approx(0.1391, abs=1e-4))
    # A set of one group has no interval, so the mean has none.
    alone = Sample(["one"], seed=3).means([[0.0]])[0]
    assert interval_of(average([large, alone])).high is None


def test_a_single_group_gives_no_interval_and_no_p_value():
    found = paired_difference([1, 1, 1], [0, 1, 0], ["g"] * 3)
    assert found.mean == pytest.approx(2 / 3)
    assert (found.low, found.high, found.p, found.mde) == (None, None, None, None)
    seeds = paired_difference([[1, 1], [0, 1]], [[0, 0], [0, 0]], ["g", "g"])
    assert (seeds.low, seeds.p, seeds.mde) == (None, None, None)
    alone = interval([1, 0], ["g", "g"])
    assert (alone.mean, alone.low, alone.high) == (0.5, None, None)


def test_none_right_of_sixty_is_no_certainty():
    # Rule of three: with a chance of more than 1 - .05^(1/60) = .0487 one of 60 would have been right.
    none = interval([0.0] * 60, within=SHARE)
    assert (none.mean, none.low, none.high) == (0.0, 0.0, pytest.approx(0.0487, abs=1e-4))
    all_right = interval([1.0] * 60, within=SHARE)
    assert (all_right.low, all_right.high) == (pytest.approx(1 - 0.0487, abs=1e-4), 1.0)
    # Three phrasings of twenty questions are twenty chances to be right: 1 - .05^(1/20).
    grouped = interval([0.0] * 60, [str(place // 3) for place in range(60)], within=SHARE)
    assert grouped.high == pytest.approx(0.1391, abs=1e-4)
    # What costs nothing costs nothing.
    assert interval([0.0] * 60, within=AMOUNT).high == 0.0


def test_a_share_ends_at_one_however_far_the_seeds_lie_apart():
    found = interval([[0.9] * 20, [0.5] * 20], within=SHARE)
    assert (found.low, found.high) == (0.0, 1.0)


def test_sums_that_are_zero_but_for_rounding_are_ties():
    # Groups .1 + .2 and -.3: a draw of both sums to 5.6e-17 and is as much below zero as above it. Of four
    # draws one is above and two are ties, so each side has three quarters: p = 1, not half.
    assert paired_difference([0.1, 0.2, -0.3], [0.0] * 3, ["a", "a", "b"], resamples=999).p == 1.0


def test_what_it_resolves_is_said_at_the_corrected_level():
    # .05 / 5 = .01: 2.5758 in the place of 1.96; the power's .8416 stays.
    values = [1, -1] * 50
    found = difference_of(Sample([str(p) for p in range(100)]).means([values])[0], comparisons=5)
    assert found.mde == pytest.approx((2.5758 + 0.8416) * math.sqrt(1 / 99), abs=1e-4)


def test_many_groups_are_drawn_piece_by_piece():
    groups, resamples = 5000, 8000  # 320 MB of counts in all
    tracemalloc.start()
    try:
        interval(np.arange(groups) % 2, resamples=resamples)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200e6


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
        assert same.mde is None


def test_a_share_of_calls_is_a_ratio_of_sums_worked_by_hand():
    # Groups a: 1 of 2 calls, b: 0 of 2. aa -> 2/4, ab -> 1/4, bb -> 0; the middle half is 1/4.
    found = ratio_interval([1, 0], [2, 2], ["a", "b"], resamples=4000, confidence=0.4)
    assert (found.mean, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 4)
    # c without calls: every draw with an a or b gives 1/2, ccc has no call and is left out.
    sparse = ratio_interval([1, 1, 0], [2, 2, 0], ["a", "b", "c"], resamples=400)
    assert (sparse.mean, sparse.low, sparse.high) == (0.5, 0.5, 0.5)
    # Only a calls: one group is no ground for an interval.
    lone = ratio_interval([1, 0], [2, 0], ["a", "b"])
    assert (lone.mean, lone.low, lone.high) == (0.5, None, None)
    assert ratio_interval([0, 0], [0, 0]) is None


def test_a_ratio_over_seeds_is_the_mean_of_their_own():
    # Seed 1: 3 of 4, seed 2: 1 of 2, seed 3 has no calls and does not count.
    found = ratio_interval([[2, 1], [1, 0], [0, 0]], [[2, 2], [1, 1], [0, 0]])
    assert (found.mean, found.n) == (0.625, 6)


def test_a_share_of_all_calls_is_no_certainty_either():
    # All of 10 calls in 4 groups with calls: 1 - .05^(1/4) = .527.
    groups = ["a", "b", "c", "d", "e"]
    found = ratio_interval([3, 3, 2, 2, 0], [3, 3, 2, 2, 0], groups, within=SHARE)
    assert (found.low, found.high) == (pytest.approx(1 - 0.5271, abs=1e-4), 1.0)


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
    assert found.mde == pytest.approx(2.8016 * math.sqrt(1 / 99), abs=1e-4)


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
