"""Remotes and experiments with real DVC, as docs/how-to/train.md shows them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.files import project_folder, read_yaml
from tests.chain import commit_all, dvc

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("chain")]

WHERE = """
from routerr1.config import load_params
from routerr1.files import write_json
from routerr1.pool.build import budget_file, store_file
from routerr1.tracking.store import tracking_uri
import pathlib
recorded = load_params().pool.replace(
    kind="http", file="pools/paper.yaml", calls="record", store="store/calls.jsonl"
)
write_json(pathlib.Path("where.json"), {
    "store": tracking_uri(), "budget": str(budget_file()), "questions": load_params().watch.max_questions,
    "here": str(pathlib.Path.cwd()), "calls": str(store_file(recorded)),
})
"""
STAGE = """  where:
    cmd: {python} where.py
    deps: [where.py]
    params: [watch.max_questions]
    outs:
    - where.json:
        cache: false
"""


@pytest.fixture
def experiment(chain: Params, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """A stage that writes which store and budget it would use, and one of its parameters."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "t")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "t@t")
    Path("where.py").write_text(WHERE)
    with Path("dvc.yaml").open("a") as file:
        file.write(STAGE.format(python=sys.executable))
    dvc("repro", "-q")
    commit_all("a stage that looks around")


def run(*words: str, check: bool = True, cwd: Path | None = None) -> str:
    """A DVC command in a process of its own; what it printed."""
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=cwd, check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert (done.returncode == 0) is check, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_outputs_travel_through_a_remote_into_an_empty_clone(tmp_path: Path) -> None:
    dvc("remote", "add", "-q", "-d", "team", str(tmp_path / "remote"))
    commit_all("a remote")
    run("push", "-q")
    subprocess.run(["git", "clone", "-q", str(Path.cwd()), str(tmp_path / "clone")], check=True)
    assert not (tmp_path / "clone/models/policy").exists()
    run("pull", "-q", cwd=tmp_path / "clone")
    for name in ("models/policy/model.safetensors", "data/eval/rows.parquet"):
        assert (tmp_path / "clone" / name).read_bytes() == Path(name).read_bytes()
    assert "up to date" in run("status", cwd=tmp_path / "clone")


@pytest.mark.usefixtures("experiment")
def test_an_experiment_in_a_temporary_copy_keeps_store_and_budget_of_the_project() -> None:
    home = Path.cwd()
    run("exp", "run", "--temp", "-n", "one", "-S", "watch.max_questions=7", "where")
    run("exp", "apply", "one")
    found = json.loads(Path("where.json").read_text())
    assert found["here"] != str(home)
    assert found["store"] == f"sqlite:///{home}/mlflow.db"
    assert found["budget"] == f"{home}/runs/budget.sqlite"
    assert found["calls"] == f"{home}/store/calls.jsonl"
    assert found["questions"] == 7


@pytest.mark.usefixtures("experiment")
def test_queued_experiments_run_one_after_another() -> None:
    for count in (7, 8):
        run(
            "exp",
            "run",
            "--queue",
            "-n",
            f"of-{count}",
            "-S",
            f"watch.max_questions={count}",
            "where",
        )
    run("exp", "run", "--run-all")
    found = {}
    for count in (7, 8):
        run("exp", "apply", f"of-{count}")
        found[count] = json.loads(Path("where.json").read_text())["questions"]
    assert found == {7: 7, 8: 8}


@pytest.mark.usefixtures("experiment")
def test_a_value_that_the_preset_overrules_is_refused_in_an_experiment() -> None:
    Path("presets/simulated.yaml").write_text("watch: {max_questions: 3}\n")
    dvc("repro", "-q", "where")
    commit_all("a preset with a watch of its own")
    said = run("exp", "run", "-S", "watch.max_questions=7", "where", check=False)
    assert (
        "params.yaml: watch.max_questions: 7 has no effect, because presets/simulated.yaml sets 3; use "
        "`dvc exp run -S presets/simulated.yaml:watch.max_questions=7`"
    ) in said
    run("exp", "run", "-S", "presets/simulated.yaml:watch.max_questions=7", "where", "-f")
    assert json.loads(Path("where.json").read_text())["questions"] == 7
    assert read_yaml(Path("presets/simulated.yaml"))["watch"]["max_questions"] == 7


def test_a_folder_that_only_looks_like_an_experiment_is_its_own_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "project/.dvc/tmp/exps/tmpabc"
    other = tmp_path / "project/dvc/tmp/exps"
    for folder in (copy, other):
        folder.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert project_folder() == tmp_path / "project"
    monkeypatch.chdir(other)
    assert project_folder() == other
