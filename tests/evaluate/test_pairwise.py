"""Every two routers on rows whose differences are worked out by hand."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli import app
from routerr1.errors import DataError
from routerr1.evaluate.pairwise import all_pairs
from routerr1.evaluate.rows import write_rows
from routerr1.evaluate.table import MEASURES
from routerr1.report import markdown
from routerr1.report.tables import pairs_section
from tests.evaluate.made import played, row
from tests.evaluate.test_table import PARAMS

ROOT = Path(__file__).parents[2]


def three():
    """Right on all of forty questions but four, on half of them, and on none."""
    return [
        *played("policy", [[1] * 36 + [0] * 4]),
        *played("baseline/knn", [[1, 0] * 20], cost_usd=0.002),
        *played("baseline/cot", [[0] * 40], cost_usd=0.0, called=[]),
    ]


def test_every_pair_is_listed_once_and_can_be_read_either_way():
    found = all_pairs(three(), PARAMS)
    assert found.comparisons == len(found.pairs) == 3
    assert found.names == ("policy", "baseline/cot", "baseline/knn")
    there = found.between("policy", "baseline/knn").difference
    back = found.between("baseline/knn", "policy").difference
    # 36 of 40 against 20 of 40.
    assert there["em"].mean == pytest.approx(0.4)
    assert back["em"].mean == pytest.approx(-0.4)
    assert (back["em"].low, back["em"].high) == (-there["em"].high, -there["em"].low)
    assert back["em"].p_holm == there["em"].p_holm
    assert there["cost_usd"].mean == pytest.approx(-0.001)
    with pytest.raises(KeyError):
        found.between("policy", "no such router")


def test_the_number_of_draws_grows_with_the_number_of_pairs():
    # Three pairs at the level .05: 10 * 3 / .05; 400 draws could show no corrected p below 3 * 2 / 401 = .015.
    found = all_pairs(three(), PARAMS)
    assert found.resamples == 600
    gaps = [pair.difference["em"] for pair in found.pairs]
    assert max(gap.p_holm for gap in gaps) == pytest.approx(3 * 2 / 601)
    assert all(gap.p_is_bound for gap in gaps)


def test_one_pair_alone_is_corrected_as_in_the_whole_table():
    whole = all_pairs(three(), PARAMS, MEASURES)
    only = all_pairs(three(), PARAMS, MEASURES, only=("baseline/knn", "policy"))
    pair = ("policy", "baseline/knn")
    assert only.between(*pair) == whole.between(*pair)
    assert len(only.pairs) == 1


def test_the_square_marks_significant_differences():
    text = markdown.render([pairs_section(all_pairs(three(), PARAMS))])
    assert "| EM | Policy | Chain of thought | kNN |" in text
    assert "| Policy |  | +0.900* | +0.400* |" in text
    assert "| Chain of thought | -0.900* |  | -0.500* |" in text
    assert pairs_section(all_pairs(played("policy", [[1, 0]]), PARAMS)) is None


@pytest.fixture
def rows_file(tmp_path):
    write_rows(tmp_path / "rows.parquet", three())
    return tmp_path / "rows.parquet"


def compare(rows_file, *names):
    told = ["compare", *names, "--rows", str(rows_file), "--params", str(ROOT / "params.yaml")]
    return CliRunner().invoke(app, told, env={"COLUMNS": "180"})


def test_a_baseline_is_compared_by_its_short_name(rows_file):
    short, long = (compare(rows_file, "policy", name) for name in ("knn", "baseline/knn"))
    assert short.exit_code == 0
    assert short.output == long.output


def test_compare_says_that_no_policy_was_evaluated(tmp_path):
    rows = [row(router=name, question_id="q1") for name in ("oracle", "baseline/knn")]
    write_rows(tmp_path / "rows.parquet", rows)
    result = compare(tmp_path / "rows.parquet", "policy", "knn")
    assert isinstance(result.exception, DataError)
    assert "no policy was evaluated here (with model.init: none" in str(result.exception)


def test_compare_prints_both_rows_and_their_difference(rows_file):
    result = compare(rows_file, "policy", "baseline/knn")
    assert result.exit_code == 0
    (line,) = [line for line in result.output.splitlines() if "EM " in line and "│" in line]
    cells = [cell.strip() for cell in line.split("│")]
    assert cells[2].startswith("0.900 [")
    assert cells[3].startswith("0.500 [")
    assert cells[4].startswith("+0.400 [+")
    assert "n = 40 questions in 40 groups" in result.output
    assert "Prompt tokens" in result.output


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("policy", "knnn"), "no router 'knnn' was evaluated; the nearest is 'baseline/knn'"),
        (("polcy", "baseline/cot"), "no router 'polcy' was evaluated; the nearest is 'policy'"),
        (("policy", "policy"), "'policy' is the same router twice"),
    ],
)
def test_an_unknown_router_is_told_with_the_nearest_name(rows_file, names, why):
    result = compare(rows_file, *names)
    assert isinstance(result.exception, DataError)
    assert why in str(result.exception)
    assert "\n" not in str(result.exception)


def test_rows_that_are_not_there_name_the_command_that_writes_them(tmp_path):
    result = compare(tmp_path / "none.parquet", "policy", "knn")
    assert isinstance(result.exception, DataError)
    assert "none.parquet: not found; run `dvc repro`" in str(result.exception)
