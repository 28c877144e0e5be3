"""Training seeds side by side, on figures that are worked out by hand."""

import math
from typing import get_args

import pytest

from routerr1.config import Baseline, EvaluateParams
from routerr1.evaluate.controls import BOUNDS
from routerr1.evaluate.results import Estimate, HopResult
from routerr1.evaluate.rows import Row
from routerr1.evaluate.seeds import by_seed
from routerr1.report import markdown
from routerr1.report.glossary import entry_of
from routerr1.report.tables import seeds_section

PARAMS = EvaluateParams(
    split="test", max_questions=None, temperature=0, bootstrap=400, confidence=0.95, seed=1,
    concurrency=1, executor="local", shards=1,
)  # fmt: skip
# Router and seed to exact match on questions of 1, 1, 2 and 2 facts; each is a group of its own.
PLAYED = {
    ("policy", 1): (1, 1, 1, 0),
    ("policy", 2): (1, 0, 0, 0),
    ("oracle", 1): (1, 1, 1, 1),
    ("oracle", 2): (1, 1, 1, 0),
    ("fixed/A", 1): (1, 0, 0, 0),
    ("fixed/A", 2): (0, 0, 0, 0),
    ("fixed/B", 1): (1, 1, 0, 0),
    ("fixed/B", 2): (0, 0, 0, 0),
}


def rows(routers: set[str] | None = None, judged: int = 2) -> list[Row]:
    return [
        Row(
            pool="training", router=router, seed=seed, question_id=f"q{i}", dataset="d", question="?",
            group=f"g{i}", hops=1 + i // 2, topic="t", answer="x", em=float(em), f1=0.5, format_valid=True,
            cost_usd=0.001, calls=2, failures=0, prompt_tokens=1, completion_tokens=1, policy_tokens=1,
            latency_s=0.1, called=["A", "B"] if seed == 1 else ["A", "A"], best_calls=min(judged, seed),
            judged_calls=judged, trajectory="{}",
        )
        for (router, seed), right in PLAYED.items()
        if routers is None or router in routers
        for i, em in enumerate(right)
    ]  # fmt: skip


def test_each_seed_against_bounds_of_its_own_worked_by_hand() -> None:
    one, two, together = by_seed(rows(), PARAMS).seeds
    assert [entry.seed for entry in (one, two, together)] == [1, 2, None]
    assert [entry.em.mean for entry in (one, two, together)] == [0.75, 0.25, 0.5]
    # Right answers over the oracle's: 3 of 4, 1 of 3; all is the mean of the seeds, 13 / 24.
    ratios = [mean(entry.em_of_oracle) for entry in (one, two, together)]
    assert ratios == pytest.approx([3 / 4, 1 / 3, 13 / 24])
    assert [entry.best_fixed for entry in (one, together)] == ["B", "B"]
    gaps = [mean(entry.over_best_fixed) for entry in (one, two, together)]
    assert gaps == pytest.approx([0.25, 0.25, 0.25])
    # Of two calls one was the best candidate's with seed 1, and both with seed 2.
    shares = [mean(entry.best_model_share) for entry in (one, two, together)]
    assert shares == pytest.approx([0.5, 1.0, 0.75])
    # Seed 1 calls A and B alike, seed 2 only A: half, all, and their mean.
    assert [entry.top_model_share for entry in (one, two, together)] == [0.5, 1.0, 0.75]
    assert one.by_hops == {
        "1": HopResult(em=1.0, em_of_oracle=1.0),
        "2": HopResult(em=0.5, em_of_oracle=0.5),
    }
    # One hop: right on 1 and 1/2 of the questions, the oracle on all; two hops: 1/2 of 1, none of 1/2.
    assert together.by_hops == {
        "1": HopResult(em=0.75, em_of_oracle=0.75),
        "2": HopResult(em=0.25, em_of_oracle=0.25),
    }
    # Between .75 and .25 the deviation is .5 / sqrt(2); both seeds gain .25 over their best single model.
    assert together.sd["em"] == pytest.approx(0.5 / math.sqrt(2))
    assert together.sd["over_best_fixed"] == 0.0
    assert one.sd == {}


def mean(found: Estimate | None) -> float:
    assert found is not None
    return found.mean


def test_intervals_hold_their_mean_and_the_table_has_a_column_for_each_seed() -> None:
    found = by_seed(rows(), PARAMS)
    for entry in found.seeds:
        for each in (entry.em, entry.em_of_oracle, entry.over_best_fixed, entry.best_model_share):
            assert each is not None
            assert each.low is not None
            assert each.high is not None
            assert each.low <= each.mean <= each.high
    table = seeds_section(found).table
    assert table is not None
    assert table.heads == ("Figure", "seed 1", "seed 2", "all", "sd")
    assert {len(line.cells) for line in table.lines} == {5}


def test_all_seeds_together_are_less_certain_than_their_average_seems() -> None:
    *_, together = by_seed(rows(), PARAMS).seeds
    # Seeds at .75 and .25 are two: Student's t on one degree of freedom, 12.7 times .25, spans all there is.
    assert (together.em.low, together.em.high) == (0.0, 1.0)


def test_what_a_pool_cannot_tell_is_left_open() -> None:
    found = by_seed(rows({"policy"}, judged=0), PARAMS)
    one = found.seeds[0]
    assert one.em_of_oracle is one.over_best_fixed is one.best_model_share is None
    assert "| EM over the oracle's | – | – | – | – |" in markdown.render([seeds_section(found)])


def test_every_router_has_a_label_and_a_meaning() -> None:
    names = ["policy", "random", "closed_book", "best_single", "fixed/A", "policy_before_rl"]
    names += ["best_on_cards", *BOUNDS, *(f"baseline/{name}" for name in get_args(Baseline))]
    for name in names:
        found = entry_of(name)
        assert found.meaning, name
        assert "_" not in found.label, name
    assert entry_of("alpha=0.3").meaning.endswith("0.3 as the weight of cost")
    assert entry_of("another one") == ("another one", "")


def test_what_an_oracle_knows_depends_on_the_pool() -> None:
    assert "each call goes to the cheapest candidate" in entry_of("oracle", simulated=True).meaning
    assert "best fixed model" in entry_of("oracle", simulated=False).meaning
    assert entry_of("random", simulated=False) == entry_of("random", simulated=True)
