"""The texts claim what the files hold; a changed figure, file or table is found."""

import shutil
from pathlib import Path

import pytest

from benchmarks.claims import (
    CLAIMS,
    SUMMARY,
    TABLE_IN,
    Claim,
    Row,
    Summary,
    failures,
    field_of,
    summary_of,
    table_text,
    training_minutes,
)
from routerr1.config import EvaluateParams
from routerr1.evaluate.results import LearningCost
from routerr1.evaluate.run import Evaluation
from routerr1.report.outputs import evaluation_table
from tests.evaluate.made import played

ROOT = Path(__file__).parents[2]
PAGE = """# Page

## First

| what | EM | USD |
| --- | --- | --- |
| a | 0.512 [0.435, 0.587] | 1,200 |

## Second

| what | EM |
| --- | --- |
| a | −0.25 |
"""


def test_the_texts_claim_what_the_files_hold() -> None:
    assert list(failures(ROOT)) == []


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The texts and files of all claims."""
    for name in {*TABLE_IN, SUMMARY, *(Path(part) for c in CLAIMS for part in (c.text, c.file))}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_figure_that_differs_from_its_file_is_named(copied: Path) -> None:
    file = copied / "docs/results/flow.json"
    file.write_text(file.read_text().replace('"overhead_s": 9.4', '"overhead_s": 11.2'))
    found = list(failures(copied))
    assert len(found) == 2  # two texts claim it
    assert all("docs/results/flow.json: overhead_s is 11.2, not 9.4" in each for each in found)


def test_a_text_that_was_changed_alone_is_named(copied: Path) -> None:
    text = copied / "docs/how-to/operate.md"
    text.write_text(text.read_text().replace("9.4 s longer", "4.9 s longer"))
    (found,) = failures(copied)
    assert found.startswith("docs/how-to/operate.md: “takes 9.4 s longer than plain `dvc repro`”")
    assert "the text does not have these words" in found


def test_a_table_that_was_changed_by_hand_is_named(copied: Path) -> None:
    text = copied / "README.md"
    text.write_text(text.read_text().replace("| random model for each call | .", "| random | .9"))
    (found,) = failures(copied)
    assert found.startswith("README.md: its table is not that of docs/results/embedded/summary")


@pytest.mark.parametrize(
    ("figure", "agrees"),
    [("2.16", True), ("2.2", True), ("2", True), ("2.1", False), ("+2.16", True), ("2.157", False)],
)
def test_a_field_is_rounded_as_the_figure_is(tmp_path: Path, figure: str, agrees: bool) -> None:
    (tmp_path / "file.json").write_text('{"a": [{"name": "x", "b": 2.1616}]}')
    (tmp_path / "text.md").write_text(f"It takes\n{figure} s.")
    claim = Claim("text.md", f"takes {figure} s", "file.json", "a[name=x].b", figure)
    reasons = failures_of(tmp_path, claim)
    assert (not reasons) is agrees, reasons


def failures_of(folder: Path, claim: Claim) -> list[str]:
    """Those of one claim; the texts with tables are those of the repository."""
    for name in (*TABLE_IN, SUMMARY):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return list(failures(folder, [claim]))


def test_cells_of_markdown_are_found_by_heading_row_and_column(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert field_of(page, "First > a > EM") == 0.512
    assert field_of(page, "First > a > EM > low") == 0.435
    assert field_of(page, "First > a > EM > high") == 0.587
    assert field_of(page, "First > a > USD") == 1200
    assert field_of(page, "Second > a > EM") == -0.25
    assert field_of(page, " > a > EM") == 0.512  # the first table of the page
    for missing in ("Third > a > EM", "First > b > EM", "Second > a > USD"):
        with pytest.raises(KeyError):
            field_of(page, missing)


def test_the_table_is_that_of_an_evaluation(tmp_path: Path, params) -> None:
    rows = played("policy", [[1, 1, 1, 0]]) + played("baseline/beta_8", [[1, 0, 0, 0]])
    rows += played("fixed/A", [[0, 1, 0, 0]], cost_usd=0.0, called=[])
    learning = {
        "policy": LearningCost(calls=12345, cost_usd=0.25),
        "baseline/beta_8": LearningCost(calls=64, cost_usd=0.0004),
    }
    section: EvaluateParams = params.evaluate.replace(bootstrap=100)
    table = evaluation_table(Evaluation(rows, {1: "A"}), section, learning)
    seconds = tmp_path / "seconds.csv"
    seconds.write_text(
        "seed,step,generation_s,training_s,validation_s\n1,1,60,30,\n1,2,60,30,60\n2,1,0,120,0\n"
    )
    minutes = training_minutes(seconds)
    assert minutes == 3.0  # 4 minutes and 2
    assert training_minutes(tmp_path / "none.csv") is None
    summary = summary_of(table, minutes)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
    lines = table_text(summary).splitlines()
    assert lines[0].endswith("| calls | learning: calls, USD, minutes |")
    assert lines[2].startswith("| **trained policy** | **.750** [")
    assert lines[2].endswith("| 1.0000 | 1.00 | 12,345, 0.2500, 3 |")
    assert lines[3].startswith("| Beta mean on 8 probes, for each sub-question | .250 [")
    assert lines[3].endswith("| 64, 0.0004, – |")
    assert len(lines) == 4  # a fixed model is no row of this table


def test_a_summary_without_learning_has_no_column_for_it() -> None:
    end = {"mean": 0.5, "low": None, "high": 0.6}
    summary = Summary(
        n=1, groups=1, seeds=(1,), reference="policy", best_single=("A",), minutes=None,
        routers={"policy": Row(em=end, cost_usd={"mean": 0.0, "low": 0.0, "high": 0.0}, calls=0)},
    )  # fmt: skip
    assert table_text(summary).splitlines()[2] == "| **trained policy** | **.500** [–, .600] | 0 | 0 |"  # fmt: skip
