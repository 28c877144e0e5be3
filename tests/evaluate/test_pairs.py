"""Every two routers on rows whose differences are worked out by hand."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli import app
from routerr1.errors import DataError
from routerr1.evaluate.pairwise import MEASURES, all_pairs, between, names_of, pairs_markdown
from routerr1.evaluate.rows import write_rows
from tests.evaluate.made import played
from tests.evaluate.test_table import PARAMS

ROOT = Path(__file__).parents[2]


def three():
    """Right on all of forty questions but four, on half of them, and on none."""
    return [
        *played("policy", [[1] * 36 + [0] * 4]),
        *played("baseline/knn", [[1, 0] * 20], cost_usd=0.002),
        *played("baseline/cot", [[0] * 40], cost_usd=0.0, called=[]),
    ]


def test_every_pair_stands_there_once_and_can_be_read_either_way():
    found = all_pairs(three(), PARAMS)
    assert found["comparisons"] == len(found["pairs"]) == 3
    assert names_of(found) == ["policy", "baseline/cot", "baseline/knn"]
    there = between(found, "policy", "baseline/knn")
    back = between(found, "baseline/knn", "policy")
    # 36 of 40 against 20 of 40.
    assert there["em"]["mean"] == pytest.approx(0.4)
    assert back["em"]["mean"] == pytest.approx(-0.4)
    assert (back["em"]["low"], back["em"]["high"]) == (-there["em"]["high"], -there["em"]["low"])
    assert back["em"]["p_holm"] == there["em"]["p_holm"]
    assert there["cost_usd"]["mean"] == pytest.approx(-0.001)
    with pytest.raises(KeyError):
        between(found, "policy", "nobody")


def test_there_are_as_many_draws_as_the_number_of_pairs_needs():
    # Three pairs at the level .05: 10 * 3 / .05; 400 draws could show no corrected p below 3 * 2 / 401 = .015.
    found = all_pairs(three(), PARAMS)
    assert found["resamples"] == 600
    gaps = [pair["em"] for pair in found["pairs"]]
    assert max(gap["p_holm"] for gap in gaps) == pytest.approx(3 * 2 / 601)
    assert all(gap["p_is_bound"] for gap in gaps)


def test_one_pair_alone_is_corrected_as_in_the_whole_table():
    whole = all_pairs(three(), PARAMS, MEASURES)
    only = all_pairs(three(), PARAMS, MEASURES, only=("baseline/knn", "policy"))
    pair = ("policy", "baseline/knn")
    assert between(only, *pair) == between(whole, *pair)


def test_the_square_marks_what_is_clear():
    told = pairs_markdown(all_pairs(three(), PARAMS))
    assert "| EM | policy | baseline/cot | baseline/knn |" in told
    assert "| policy |  | +0.900\\* | +0.400\\* |" in told
    assert "| baseline/cot | -0.900\\* |  | -0.500\\* |" in told
    assert pairs_markdown(all_pairs(played("policy", [[1, 0]]), PARAMS)) == ""


@pytest.fixture
def rows_file(tmp_path):
    write_rows(tmp_path / "rows.parquet", three())
    return tmp_path / "rows.parquet"


def compare(rows_file, *names):
    told = ["compare", *names, "--rows", str(rows_file), "--params", str(ROOT / "params.yaml")]
    return CliRunner().invoke(app, told, env={"COLUMNS": "180"})


def test_compare_prints_both_rows_and_their_difference(rows_file):
    result = compare(rows_file, "policy", "baseline/knn")
    assert result.exit_code == 0
    (line,) = [line for line in result.output.splitlines() if "exact match" in line]
    cells = [cell.strip() for cell in line.split("│")]
    assert cells[2].startswith("0.900 [")
    assert cells[3].startswith("0.500 [")
    assert cells[4].startswith("+0.400 [+")
    assert "n = 40 questions in 40 groups" in result.output
    assert "prompt tokens" in result.output


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("policy", "knn"), "no router 'knn' was evaluated; the nearest is 'baseline/knn'"),
        (("polcy", "baseline/cot"), "no router 'polcy' was evaluated; the nearest is 'policy'"),
        (("policy", "policy"), "'policy' is the same router twice"),
    ],
)
def test_an_unknown_router_is_told_with_the_nearest_name(rows_file, names, why):
    result = compare(rows_file, *names)
    assert isinstance(result.exception, DataError)
    assert why in str(result.exception)
    assert "\n" not in str(result.exception)
