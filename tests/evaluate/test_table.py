"""The table's figures on rows whose means and intervals are worked out by hand."""

from dataclasses import replace

import pytest

from routerr1.config import EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.outputs import write_evaluation
from routerr1.evaluate.run import Evaluation
from routerr1.evaluate.table import (
    by_dataset,
    datasets_markdown,
    entry_of,
    how_to_read,
    markdown,
    metrics,
    shorten,
    summarise,
)
from routerr1.files import read_json
from tests.evaluate.made import played, row

PARAMS = EvaluateParams(
    split="test", max_questions=None, temperature=0, bootstrap=400, confidence=0.95, seed=1,
    concurrency=1, executor="local", shards=1,
)  # fmt: skip


def three_seeds():
    """The policy is right on all, half and none of ten questions by seed; the other on half with each."""
    half = [1, 0] * 5
    return [*played("policy", [[1] * 10, half, [0] * 10]), *played("other", [half] * 3)]


def test_seeds_count_in_the_interval_and_stand_apart_in_a_column():
    table = summarise(three_seeds(), PARAMS)
    policy, other = entry_of(table, "policy"), entry_of(table, "other")
    assert policy["em"] == {"mean": 0.5, "low": 0.0, "high": 1.0}  # sd .5: 4.3 * .29 on both sides
    assert policy["per_seed"]["em"]["sd"] == 0.5
    assert other["em"]["high"] - other["em"]["low"] < 0.7
    assert other["difference"]["em"]["p"] > 0.2
    head, _, columns, _, *lines = markdown(table).splitlines()
    assert "over training seeds" in head
    assert "| sd |" in columns
    assert "| policy | 0.500 [0.000, 1.000] | 0.500 |" in lines[0]


def test_with_one_seed_there_is_no_column_for_them():
    rows = [r for r in three_seeds() if r.seed == 2]
    told = markdown(summarise(rows, PARAMS))
    assert "| sd |" not in told
    assert "seeds" not in told


def test_what_cannot_be_resolved_is_a_dash_and_no_nought():
    told = markdown(summarise(three_seeds()[10:20] + three_seeds()[30:40], PARAMS))
    other = told.splitlines()[-1]
    assert other.endswith("| +0.000 [+0.000, +0.000] | 1.000 | – |")  # identical routers
    rows = [replace(r, group="one", seed=1) for r in three_seeds()[:10] + three_seeds()[30:40]]
    table = summarise(rows, PARAMS)
    assert entry_of(table, "policy")["em"]["low"] is None
    assert markdown(table).splitlines()[-1].endswith("| +0.500 [–, –] | – | – |")
    assert "em_low" not in metrics(table)


def test_a_corrected_p_value_at_the_floor_of_few_draws_is_an_upper_bound():
    names = [f"fixed/{place}" for place in range(5)]
    rows = played("policy", [[1, 1, 1, 0] * 10])
    rows += [r for name in names for r in played(name, [[0, 0, 0, 1] + [0] * 36])]
    table = summarise(rows, PARAMS)
    gap = entry_of(table, names[0])["difference"]["em"]
    # No draw of 400 is on the other side: p = 2 / 401, five times that by Holm.
    assert (gap["p"], gap["p_holm"]) == (pytest.approx(2 / 401), pytest.approx(10 / 401))
    assert gap["p_is_bound"]
    assert "| ≤ 0.025 |" in markdown(table)
    assert "0.05 / 5" in how_to_read(table)
    # The same comparison alone resolves more than as one of five.
    alone = summarise([r for r in rows if r.router in ("policy", names[0])], PARAMS)
    assert entry_of(alone, names[0])["difference"]["em"]["resolvable"] < gap["resolvable"]


def test_nothing_right_is_bounded_by_the_rule_of_three():
    # 1 - .05^(1/10) = .2589.
    table = summarise(played("policy", [[0] * 10], cost_usd=0.0), PARAMS)
    assert entry_of(table, "policy")["em"]["high"] == pytest.approx(0.2589, abs=1e-4)
    assert entry_of(table, "policy")["cost_usd"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert "rule of three" in how_to_read(table)


def test_metrics_hold_the_mean_and_the_worst_seed():
    rows = [row(seed=1, called=["A"]), row(seed=2, called=["B", "A"])]
    found = metrics(summarise(rows, PARAMS))
    assert (found["top_model_share"], found["worst_top_model_share"]) == (0.75, 1.0)
    assert (found["call_entropy"], found["worst_call_entropy"]) == (0.5, 0.0)
    assert (found["no_call_rate"], found["worst_no_call_rate"]) == (0.0, 0.0)
    assert found["prompt_tokens"] == 10.0


def two_sets():
    """On set one (4 questions) the policy is right on 3, on set two (2) on 1; another on 1 and 2."""
    rows = []
    for router, one, two in (("policy", [1, 1, 1, 0], [0, 1]), ("other", [0, 0, 0, 1], [1, 1])):
        rows += played(router, [one], dataset="one", cost_usd=0.001)
        rows += played(router, [two], dataset="two", cost_usd=0.003)
    return [replace(r, group=f"{r.dataset}/{r.question_id}") for r in rows]


def test_each_data_set_and_the_macro_average_by_hand():
    found = by_dataset(two_sets(), PARAMS)
    assert [(name, own["n"], own["groups"]) for name, own in found["by_dataset"].items()] == [
        ("one", 4, 4),
        ("two", 2, 2),
    ]
    means = {
        name: [entry["em"]["mean"] for entry in own["routers"]]
        for name, own in found["by_dataset"].items()
    }
    assert means == {"one": [0.75, 0.25], "two": [0.5, 1.0]}
    # (.75 + .5) / 2, where all six questions together give 4 / 6.
    assert [entry["em"]["mean"] for entry in found["macro"]] == [0.625, 0.625]
    assert found["macro"][0]["cost_usd"]["mean"] == pytest.approx(0.002)
    told = datasets_markdown(found)
    assert "| router | one (n = 4) | two (n = 2) | macro-average |" in told
    assert told.count("\n| policy |") == 3  # exact match, F1, cost
    assert all(
        0 <= entry["em"]["low"] <= 0.625 <= entry["em"]["high"] <= 1 for entry in found["macro"]
    )


def test_digits_that_depend_on_the_machine_are_dropped_however_deep():
    found = shorten({"a": [{"b": 1 / 3, "n": 3}], "c": 2 / 3, "d": None}, drop=("d",))
    assert found == {"a": [{"b": 0.333333333, "n": 3}], "c": 0.666666667}


def test_one_data_set_needs_no_table_of_its_own():
    assert by_dataset(three_seeds(), PARAMS) == {"by_dataset": {}, "macro": []}
    assert datasets_markdown({"by_dataset": {}, "macro": []}) == ""


def test_what_is_written_has_data_sets_and_pairs(tmp_path):
    rows = two_sets() + [replace(r, router="oracle") for r in two_sets() if r.router == "policy"]
    write_evaluation(tmp_path, Evaluation(rows, {}), PARAMS)
    table = read_json(tmp_path / "table.json")
    assert set(table["by_dataset"]) == {"one", "two"}
    assert table["pairs"]["comparisons"] == 3
    assert "macro-average" in (tmp_path / "table.md").read_text()


def test_routers_of_other_questions_are_refused_and_a_missing_row_is_named():
    with pytest.raises(DataError, match=r"same questions \(policy 2, other 1\)"):
        summarise([*played("policy", [[1, 1]]), *played("other", [[1]])], PARAMS)
    with pytest.raises(DataError, match=r"router policy: no row for \(2, 'd', 'q1'\)"):
        summarise(played("policy", [[1, 1], [1]]), PARAMS)
    with pytest.raises(DataError, match="no evaluation rows"):
        summarise([], PARAMS)
