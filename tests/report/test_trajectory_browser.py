"""Which trajectories a page holds when it cannot hold all of them."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from routerr1.report.trajectory_browser import Browsable, browsable
from tests.evaluation import evaluated


@pytest.fixture(scope="module")
def policy(stage):
    """The policy's sixty rows."""
    return [row for row in asyncio.run(evaluated(stage)).rows if row.router == "policy"]


@pytest.fixture(scope="module")
def large(policy):
    """Three routers, three seeds and two data sets, of sixty questions and of ten."""
    return [
        replace(row, router=router, seed=seed, dataset=dataset)
        for router in ("policy", "random", "fixed/Atlas")
        for seed in (1, 2, 3)
        for dataset, rows in (("big", policy), ("small", policy[:10]))
        for row in rows
    ]


def test_every_router_seed_and_data_set_has_its_share(large):
    found = browsable(large, limit=180)
    shown = Counter((each.router, each.seed, each.dataset) for each in found.played)
    assert (found.total, found.quota) == (630, 10)
    assert len(shown) == 18
    assert set(shown.values()) == {10}


def test_what_small_sets_do_not_need_goes_to_the_large(large):
    found = browsable(large, limit=360)
    sizes = Counter(each.dataset for each in found.played)
    assert sizes == {"small": 9 * 10, "big": 9 * 30}
    assert found.quota == 30


def test_the_same_questions_are_shown_of_all_and_they_are_spread(policy, large):
    found = browsable(large, limit=18 * 4).played
    by_cell = {}
    for each in found:
        by_cell.setdefault((each.router, each.seed, each.dataset), []).append(each.question)
    big = [questions for key, questions in by_cell.items() if key[2] == "big"]
    assert all(questions == big[0] for questions in big)
    # Four of sixty: the middles of four quarters.
    assert big[0] == [policy[place].question for place in (7, 22, 37, 52)]


def test_a_small_evaluation_is_shown_whole_with_the_policy_first(large):
    found = browsable(large)
    assert len(found.played) == found.total == 630
    assert [each.router for each in found.played][:210] == ["policy"] * 210


def test_a_limit_below_one_each_shows_some_and_fails_at_nothing(large):
    assert len(browsable(large, limit=5).played) <= 5
    assert browsable([], limit=5) == Browsable(played=(), labels={}, total=0, quota=0)
