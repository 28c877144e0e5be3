"""The commands of the gateway, as they are typed."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli import app
from routerr1.data.splits import read_file
from routerr1.errors import ConfigError, DataError
from routerr1.serve.store import FeedbackRow, Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the shipped parameters, and no tracking store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None:
        raise done.exception
    return done.output


def test_keys_are_added_listed_and_removed(folder: Path) -> None:
    limits = ("--rate", "60", "--month-usd", "2.5", "--max-spend", "7", "--candidates", "B, A")
    secret = typed("keys", "add", "alice", *limits).strip()
    assert secret.startswith("rr1-")
    (key,) = Store(f"sqlite:///{folder / 'runs/serve.sqlite'}").read_keys()
    assert (key.name, key.rate_per_minute, key.month_usd, key.max_spend) == ("alice", 60, 2.5, 7.0)
    assert key.candidates == {"A", "B"}
    shown = typed("keys", "list")
    assert "alice" in shown
    assert secret not in shown
    with pytest.raises(ConfigError, match="exists already"):
        typed("keys", "add", "alice")
    typed("keys", "remove", "alice")
    assert "alice" not in typed("keys", "list")


def test_the_environment_names_a_database_where_the_parameters_name_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTERR1_SERVE_DATABASE", f"sqlite:///{folder / 'shared.sqlite'}")
    typed("keys", "add", "alice")
    assert not (folder / "runs/serve.sqlite").exists()
    assert "alice" in typed("keys", "list")
    assert [key.name for key in Store(f"sqlite:///{folder / 'shared.sqlite'}").read_keys()] == [
        "alice"
    ]
    text = (folder / "params.yaml").read_text()
    own = text.replace(
        "  database: null               # sqlite", "  database: sqlite:///own.sqlite  # "
    )
    assert own != text
    (folder / "params.yaml").write_text(own)
    assert "alice" not in typed("keys", "list")


def test_one_thing_is_served(folder: Path) -> None:
    assert folder == Path.cwd()
    with pytest.raises(ConfigError, match="--model, --policy and --router exclude each other"):
        typed("serve", "--policy", "models/policy", "--router", "baseline/knn")
    with pytest.raises(ConfigError, match="write models:/NAME@ALIAS or models:/NAME/NUMBER"):
        typed("serve", "--model", "runs:/1/model")
    with pytest.raises(ConfigError, match="there is no key; make one"):
        typed("serve", "--policy", "models/policy", "--host", "0.0.0.0")


def test_feedback_says_how_it_is_used_and_what_the_gateway_does_not_keep(folder: Path) -> None:
    reply = "Sie kündigen schriftlich mit einer Frist von einem Monat zum Ende der Laufzeit."
    store = Store(None)
    store.write_feedback(FeedbackRow("r1", 1.0, None, None, reply, None, True, "Wie kündige ich?"))
    store.write_feedback(FeedbackRow("r2", 1.0, None, None, None, None, True, "Und dann?"))
    store.close()
    made = ("data", "from-feedback", "--test", "0", "--validation", "0")
    said = typed(*made)
    assert "1 without a right answer" in said
    assert "serve.keep is metadata: the gateway keeps neither" in said
    assert "--task long compares meaning" in said
    assert "imported: [data/imported/feedback.parquet]" in said
    assert "--task long" not in typed(*made, "--name", "texts", "--task", "long")
    (row,) = read_file(folder / "data/imported/texts.parquet")
    assert row.metadata["task"] == "long"
    with pytest.raises(DataError, match="--task essay: must be one of"):
        typed(*made, "--task", "essay")


def test_feedback_becomes_questions_without_what_is_named(folder: Path) -> None:
    store = Store(None)
    said = "Is ticket 12345 of ann@example.org open?"
    store.write_feedback(FeedbackRow("r1", 1.0, None, None, "yes", None, True, said))
    store.close()
    shares = ("--test", "0", "--validation", "0")

    def asked(*remove: str) -> str:
        name = f"feedback{len(remove)}"
        typed("data", "from-feedback", "--name", name, *shares, *remove)
        (row,) = read_file(folder / f"data/imported/{name}.parquet")
        return row.question

    assert asked() == "Is ticket 12345 of [removed] open?"
    assert asked("--remove", r"\d{4,6}") == "Is ticket [removed] of ann@example.org open?"
    both = asked("--remove", r"\d{4,6}", "--remove", "email")
    assert both == "Is ticket [removed] of [removed] open?"
    with pytest.raises(DataError, match="write --remove before each"):
        typed("data", "from-feedback", "--name", "list", *shares, "--remove", "email,key")
