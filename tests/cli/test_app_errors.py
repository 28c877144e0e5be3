import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from routerr1.cli import app
from routerr1.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(tmp_path) -> Path:
    """The repository's parameters with two quick baselines and few draws."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["baselines"] |= {"include": ["knn", "frugal"], "embedder": "tfidf"}
    values["evaluate"]["bootstrap"] = 200
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _log(path: Path) -> Path:
    rows = [
        {
            "query_id": f"q{i}", "query": f"{topic} question {i}", "golden_answers": ["yes"],
            "model": model, "cost_usd": cost,
            "response": "<answer>yes</answer>" if good == topic else "<answer>no</answer>",
        }
        for i in range(24)
        for topic in [("red", "blue")[i % 2]]
        for model, good, cost in (("a/one", "red", 1e-6), ("a/two", "blue", 2e-6))
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_replay_writes_a_table_for_every_metric(tmp_path, params):
    log, out = _log(tmp_path / "log.jsonl"), tmp_path / "out"
    told = [
        "evaluate",
        "--pool",
        "replay",
        "--log",
        str(log),
        "--out",
        str(out),
        "--repetitions",
        "2",
    ]
    result = CliRunner().invoke(app, [*told, "--params", str(params)], catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads((out / "replay.json").read_text())
    assert set(found) == {"em_in_tag", "f1_in_tag", "gold_contained"}
    routers = {entry["router"]: entry for entry in found["em_in_tag"]["routers"]}
    assert routers["baseline/knn"]["quality"]["mean"] > routers["best_single"]["quality"]["mean"]
    assert "Always one" in (out / "replay.md").read_text()


@pytest.mark.parametrize(
    ("told", "error", "why"),
    [
        (["evaluate", "--pool", "nonsense"], ConfigError, "there are params and replay"),
        (["evaluate", "--pool", "replay"], ConfigError, "needs --log"),
        (["evaluate", "--log", "x.jsonl"], ConfigError, "only with --pool replay"),
        (["evaluate", "--pool", "replay", "--log", "no.jsonl"], DataError, r"no\.jsonl"),
        (["sweep", "--cost-weights", "0,2"], ConfigError, "from 0 to 1"),
        (["sweep", "--cost-weights", "x"], ConfigError, "from 0 to 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(params, told, error, why):
    result = CliRunner().invoke(app, [*told, "--params", str(params)])
    assert isinstance(result.exception, error)
    assert "\n" not in str(result.exception)
    with pytest.raises(error, match=why):
        raise result.exception
