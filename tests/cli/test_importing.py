"""What a person with a first file of questions reads: of errors the remedy, of an import what it lacks."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli.app import app
from routerr1.errors import DataError

LONG = "Sie kündigen schriftlich mit einer Frist von einem Monat zum Ende der Laufzeit."
COLUMNS = ("--question", "Frage", "--answers", "Antwort")


def written(path: Path, rows: Sequence[tuple[str, str]], between: str, encoding: str) -> Path:
    lines = (f"{question}{between}{answer}\n" for question, answer in [("Frage", "Antwort"), *rows])
    path.write_text("".join(lines), encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("between", "encoding", "remedy"),
    [
        (";", "utf-8-sig", "its cells are separated by semicolons: save it as .xlsx"),
        (",", "cp1252", "is not UTF-8; save it as 'CSV UTF-8', or: iconv"),
    ],
)
@pytest.mark.parametrize("command", ["init", "import"])
def test_a_spreadsheets_csv_names_its_remedy(
    command: str, between: str, encoding: str, remedy: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    rows = [(f"Wie heißt Stück {number}?", f"Möbel {number}") for number in range(30)]
    file = written(tmp_path / "fragen.csv", rows, between, encoding)
    made = {
        "init": ("init", "here", "--questions", str(file)),
        "import": ("data", "import", str(file), "--name", "x", "--out", "out"),
    }
    with pytest.raises(DataError, match=remedy):
        CliRunner().invoke(app, [*made[command], *COLUMNS], catch_exceptions=False)


def imported(folder: Path, rows: Sequence[tuple[str, str]], *options: str) -> str:
    file = written(folder / "fragen.csv", rows, ",", "utf-8")
    command = ["data", "import", str(file), "--name", "x", "--out", "out", "--no-meaning", *COLUMNS]
    done = CliRunner().invoke(app, [*command, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_long_answers_without_their_task_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dataset: {imported: []}\n")
    rows = [(f"Wie kündige ich Tarif {number}?", LONG) for number in range(30)]
    said = "30 answers have 10 words or more"
    assert said in imported(tmp_path, rows)
    assert said not in imported(tmp_path, rows, "--task", "long")
    assert said not in imported(tmp_path, [(question, "ja") for question, _ in rows])


def test_few_test_questions_are_named_with_the_shares_of_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dataset: {imported: []}\n")
    rows = [(f"Wie heißt Stück {number}?", f"Teil {number}") for number in range(30)]
    assert "test questions say little: `--test 0.4 --validation 0.2`" in imported(tmp_path, rows)
    assert "say little" not in imported(tmp_path, rows, "--test", "0.4", "--validation", "0.2")
