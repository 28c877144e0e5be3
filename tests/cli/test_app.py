"""The options of the command line itself, and commands that only print."""

import os
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli import app
from routerr1.cli.app import limit_threads
from routerr1.config import ModelParams, Params
from routerr1.data.card import findings
from routerr1.errors import DataError
from routerr1.files import write_json


def test_the_version_is_that_of_the_installed_package() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"routerr1 {metadata.version('routerr1')}\n")


@pytest.mark.parametrize("command", [[], ["train"], ["data", "card"], ["registry", "log"]])
def test_h_is_help_at_every_level(command: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*command, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert "Usage:" in short.output


@pytest.mark.parametrize(
    ("init", "asked", "threads"),
    [("scratch", "", "1"), ("scratch", "4", "4"), ("none", "", None), ("a/model", "", None)],
)
def test_a_policy_from_scratch_computes_on_one_thread(
    init: str, asked: str, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    if not asked:
        monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads(Params.model_construct(model=ModelParams.model_construct(init=init)))
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_the_data_card_is_printed_with_what_the_checks_found(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# Questions\n\n48 rows\n")
    write_json(
        tmp_path / "metrics.json",
        {
            "expectations": 19,
            "passed": 18,
            "leaks": {"own": {"train": 3, "validation": 0, "test": 1}},
            "near": {"compared": 252, "held_out": 174, "found": 7},
        },
    )
    folders = ["--folder", str(tmp_path), "--checks", str(tmp_path)]
    shown = CliRunner().invoke(app, ["data", "card", *folders])
    assert shown.exit_code == 0
    for part in ("48 rows", "18 of 19 checks hold", "252 questions"):
        assert part in shown.output
    assert "| own | 3 | 0 | 1 |" in findings(tmp_path)
    assert "run `dvc repro checks`" in findings(tmp_path / "none")


def test_a_missing_data_card_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["data", "card", "--folder", str(tmp_path)])
    assert isinstance(shown.exception, DataError)
    assert "run `dvc repro dataset`" in str(shown.exception)
