"""The table's figures on rows whose means and intervals are worked out by hand."""

from dataclasses import replace

import pytest

from routerr1.config import EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.results import Estimate, EvaluationTable, SeedTable
from routerr1.evaluate.run import Evaluation
from routerr1.evaluate.table import (
    by_dataset,
    headline,
    summarise,
)
from routerr1.metrics import METRICS
from routerr1.report import markdown
from routerr1.report.outputs import evaluation_table, write_evaluation
from routerr1.report.tables import datasets_section, how_to_read, routers_table
from tests.evaluate.made import played

PARAMS = EvaluateParams(
    split="test", max_questions=None, temperature=0, bootstrap=400, confidence=0.95, seed=1,
    concurrency=1, executor="local", shards=1,
)  # fmt: skip


def three_seeds():
    """The policy is right on all, half and none of ten questions by seed; the other on half with each."""
    half = [1, 0] * 5
    return [*played("policy", [[1] * 10, half, [0] * 10]), *played("other", [half] * 3)]


def lines_of(table):
    return [[cell.text for cell in line.cells] for line in routers_table(table).lines]


def test_seeds_count_in_the_interval_and_have_a_column():
    table = summarise(three_seeds(), PARAMS)
    policy, other = table.router("policy"), table.router("other")
    # sd .5: 4.3 * .29 on both sides
    assert (policy.em.mean, policy.em.low, policy.em.high) == (0.5, 0.0, 1.0)
    assert policy.per_seed["em"].sd == 0.5
    assert other.em.high - other.em.low < 0.7
    assert other.difference["em"].p > 0.2
    assert "over training seeds" in markdown.render([how_to_read(table)])
    assert routers_table(table).heads[4] == "sd"
    assert "| Policy | 0.500 [0.000, 1.000] |" in markdown.table_text(routers_table(table))


def test_with_one_seed_there_is_no_column_for_them():
    table = summarise([r for r in three_seeds() if r.seed == 2], PARAMS)
    assert "sd" not in routers_table(table).heads
    assert "training seeds" not in markdown.render([how_to_read(table)])


def test_the_best_router_comes_first():
    rows = [
        *played("policy", [[1, 0, 0]]),
        *played("random", [[0, 0, 0]]),
        *played("x", [[1, 1, 0]]),
    ]
    assert [cells[0] for cells in lines_of(summarise(rows, PARAMS))] == [
        "x",
        "Policy",
        "Random model",
    ]


def test_an_unknown_minimum_detectable_effect_is_a_dash():
    table = summarise(three_seeds()[10:20] + three_seeds()[30:40], PARAMS)
    (other,) = (cells for cells in lines_of(table) if cells[0] == "other")
    assert other[-3:] == ["+0.000", "1.000", "–"]  # identical routers
    rows = [replace(r, group="one", seed=1) for r in three_seeds()[:10] + three_seeds()[30:40]]
    table = summarise(rows, PARAMS)
    assert table.router("policy").em.low is None
    assert lines_of(table)[-1][-3:] == ["+0.500", "–", "–"]
    assert "em_low" not in headline(table)


def test_a_corrected_p_value_at_the_floor_of_few_draws_is_an_upper_bound():
    names = [f"fixed/{place}" for place in range(5)]
    rows = played("policy", [[1, 1, 1, 0] * 10])
    rows += [r for name in names for r in played(name, [[0, 0, 0, 1] + [0] * 36])]
    table = summarise(rows, PARAMS)
    gap = table.router(names[0]).difference["em"]
    # No draw of 400 is on the other side: p = 2 / 401, five times that by Holm.
    assert (gap.p, gap.p_holm) == (pytest.approx(2 / 401), pytest.approx(10 / 401))
    assert gap.p_is_bound
    assert "| ≤ 0.025 |" in markdown.table_text(routers_table(table))
    assert "0.05 / 5" in markdown.render([how_to_read(table)])
    # The same comparison alone detects a smaller effect than as one of five.
    alone = summarise([r for r in rows if r.router in ("policy", names[0])], PARAMS)
    assert alone.router(names[0]).difference["em"].mde < gap.mde


def test_nothing_right_is_bounded_by_the_rule_of_three():
    # 1 - .05^(1/10) = .2589.
    table = summarise(played("policy", [[0] * 10], cost_usd=0.0), PARAMS)
    assert table.router("policy").em.high == pytest.approx(0.2589, abs=1e-4)
    assert table.router("policy").cost_usd == Estimate(mean=0.0, low=0.0, high=0.0)
    assert "rule of three" in markdown.render([how_to_read(table)])


def test_headline_metrics_are_few_and_known():
    rows = [
        *played("policy", [[1, 1]], cost_usd=0.001),
        *played("best_single", [[1, 0]], cost_usd=0.004),
    ]
    found = headline(summarise(rows, PARAMS))
    assert (found["em"], found["em_over_best_single"], found["cost_over_best_single"]) == (
        1,
        0.5,
        0.25,
    )
    assert len(found) <= 11
    assert set(found) - {each.name for each in METRICS} == {
        "em_low", "em_high", "em_over_best_single", "cost_over_best_single"
    }  # fmt: skip


def two_sets():
    """On set one (4 questions) the policy is right on 3, on set two (2) on 1; another on 1 and 2."""
    rows = []
    for router, one, two in (("policy", [1, 1, 1, 0], [0, 1]), ("other", [0, 0, 0, 1], [1, 1])):
        rows += played(router, [one], dataset="one", cost_usd=0.001)
        rows += played(router, [two], dataset="two", cost_usd=0.003)
    return [replace(r, group=f"{r.dataset}/{r.question_id}") for r in rows]


def test_each_data_set_and_the_macro_average_by_hand():
    found, macro = by_dataset(two_sets(), PARAMS)
    assert [(name, own.n, own.groups) for name, own in found.items()] == [
        ("one", 4, 4),
        ("two", 2, 2),
    ]
    means = {name: [entry.em.mean for entry in own.routers] for name, own in found.items()}
    assert means == {"one": [0.75, 0.25], "two": [0.5, 1.0]}
    # (.75 + .5) / 2, where all six questions together give 4 / 6.
    assert [entry.em.mean for entry in macro] == [0.625, 0.625]
    assert macro[0].cost_usd.mean == pytest.approx(0.002)
    assert all(0 <= entry.em.low <= 0.625 <= entry.em.high <= 1 for entry in macro)
    section = datasets_section(evaluation_table(Evaluation(two_sets(), {}), PARAMS))
    text = markdown.render([section])
    assert "| Router | one (n = 4) | two (n = 2) | Macro-average |" in text
    assert text.count("\n| Policy |") == 3  # exact match, F1, cost


def test_results_keep_nine_significant_digits():
    found = Estimate(mean=1 / 3, low=None, high=2e5 / 3)
    assert (found.mean, found.high) == (0.333333333, 66666.6667)


def test_one_data_set_needs_no_table_of_its_own():
    assert by_dataset(three_seeds(), PARAMS) == ({}, ())
    assert datasets_section(evaluation_table(Evaluation(three_seeds(), {}), PARAMS)) is None


def test_what_is_written_has_data_sets_and_pairs_and_reads_back(tmp_path):
    rows = two_sets() + [replace(r, router="oracle") for r in two_sets() if r.router == "policy"]
    write_evaluation(tmp_path, Evaluation(rows, {1: "A"}), PARAMS)
    table = EvaluationTable.read(tmp_path / "table.json")
    assert set(table.by_dataset) == {"one", "two"}
    assert table.pairs.comparisons == 3
    assert table == evaluation_table(Evaluation(rows, {1: "A"}), PARAMS)
    assert "Macro-average" in (tmp_path / "table.md").read_text()


def test_a_table_with_another_shape_is_refused_with_file_and_field(tmp_path):
    path = tmp_path / "table.json"
    path.write_text('{"seeds": [{"seed": "x"}]}')
    with pytest.raises(DataError, match=r"table\.json: seeds\.0\.seed: .*run `dvc repro`"):
        SeedTable.read(path)


def test_routers_of_other_questions_are_refused_and_a_missing_row_is_named():
    with pytest.raises(DataError, match=r"same questions \(policy 2, other 1\)"):
        summarise([*played("policy", [[1, 1]]), *played("other", [[1]])], PARAMS)
    with pytest.raises(DataError, match=r"router policy: no row for \(2, 'd', 'q1'\)"):
        summarise(played("policy", [[1, 1], [1]]), PARAMS)
    with pytest.raises(DataError, match="no evaluation rows"):
        summarise([], PARAMS)
