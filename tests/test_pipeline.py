"""The chain from a fresh clone, with real DVC: every stage, nothing twice, and through a kill."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from routerr1.files import sha256
from tests.clone import commit, is_stage, make_clone, processes_in, replace
from tests.clone import environment as environment_of

STEPS = 16
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a repository of its own, set to the ci preset with more steps of training."""
    folder = make_clone(tmp_path_factory.mktemp("clone") / "routerr1")
    # Fewer would end before a busy machine lets the test kill anything.
    replace(folder / "presets/ci.yaml", "train: {steps: 4,", f"train: {{steps: {STEPS},")
    commit(folder, "more steps")
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {**environment_of(folder), "MLFLOW_TRACKING_URI": ""}


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def test_a_killed_pipeline_leaves_no_trainer_and_finishes_when_run_again(clone: Path) -> None:
    first = subprocess.Popen(
        ["dvc", "repro"], cwd=clone, env=environment(clone), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: list(clone.glob("runs/train/*/checkpoint-*/router_state.json")), 600)
    (trainer,) = processes_in(clone, is_stage("train"))
    os.kill(first.pid, signal.SIGKILL)  # dvc alone: its trainer is an orphan now
    first.wait()
    run(clone, "dvc", "repro")
    assert not trainer.is_running()
    assert not processes_in(clone, is_stage("train"))
    assert not list(clone.glob("runs/train/*/checkpoint-*"))
    log = (clone / "data/train/log.csv").read_text().splitlines()
    steps = [str(step + 1) for step in range(STEPS)]
    assert [line.split(",")[0] for line in log] == ["step", *steps]
    head, *seconds = (clone / "runs/train/seconds.csv").read_text().splitlines()
    assert head == "seed,step,generation_s,training_s,validation_s"
    assert [line.split(",")[1] for line in seconds] == steps
    parts = [list(map(float, line.split(",")[2:])) for line in seconds]
    assert all(generation > 0 and training > 0 for generation, training, _ in parts)
    # Of the killed process's steps too.
    training = json.loads((clone / "data/train/run.json").read_text())["training"]
    client = MlflowClient(f"sqlite:///{clone}/mlflow.db")
    runs = client.search_runs(["1"], f"tags.`routerr1.training` = '{training}'")
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED"]
    hours = runs[0].data.metrics["train_hours"]
    assert hours == pytest.approx(sum(map(sum, parts)) / 3600, abs=1e-4)


def test_every_stage_leaves_what_it_says(clone: Path) -> None:
    for name in (
        "data/questions/test.parquet",
        "data/checks/checks.json",
        "data/pool/cards.json",
        "data/pool/matrix.parquet",
        "models/policy/model.safetensors",
        "data/train/log.csv",
        "data/eval/rows.parquet",
        "data/generalize/rows.parquet",
        "data/report/index.html",
    ):
        assert (clone / name).stat().st_size > 0, name
    page = (clone / "data/report/index.html").read_text()
    assert "simulat" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_stages_that_run_again_write_the_same_bytes_and_the_same_lock(clone: Path) -> None:
    folders = ("models/policy", "data/eval", "data/generalize")

    def written() -> dict[str, str]:
        files = (path for name in folders for path in (clone / name).rglob("*") if path.is_file())
        return {str(path.relative_to(clone)): sha256(path) for path in files}

    lock, before = (clone / "dvc.lock").read_text(), written()
    assert {f"{name}/rows.parquet" for name in folders[1:]} <= set(before)
    run(clone, "dvc", "repro", "-f", "-s", "checks", "train", "evaluate", "generalize")
    assert written() == before
    assert (clone / "dvc.lock").read_text() == lock


def test_a_second_run_does_nothing_and_metrics_and_params_are_declared(clone: Path) -> None:
    assert "up to date" in run(clone, "dvc", "repro").stdout
    metrics = json.loads(run(clone, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert "data/eval/metrics.json" in metrics
    assert "data/train/metrics.json" in metrics
    replace(clone / "params.yaml", "  cost_weight: ", "  cost_weight: 0.3 # ")
    assert "reward.cost_weight" in run(clone, "dvc", "params", "diff").stdout
    run(clone, "git", "checkout", "-q", "params.yaml")
    plots = run(clone, "dvc", "plots", "show", "--json").stdout
    assert "Reward" in plots


def test_a_clone_without_data_finds_the_lock_up_to_date(clone: Path, tmp_path: Path) -> None:
    """All eight stages, by what git keeps; uncommitted results of a sweep do not count."""
    (clone / "data/sweep/sweep.md").write_text("only here")
    commit(clone, "locked")
    run(tmp_path, "git", "clone", "-q", str(clone), "theirs")
    theirs = tmp_path / "theirs"
    assert not (theirs / "data/questions").exists()
    assert run(theirs, "routerr1", "ops", "locked").stdout == "dvc.lock is up to date\n"
    assert "up to date" in run(clone, "dvc", "repro").stdout
    replace(theirs / "params.yaml", "  cost_weight: ", "  cost_weight: 0.3 # ")
    behind = run(theirs, "routerr1", "ops", "locked", check=False)
    assert (behind.returncode, behind.stdout.startswith("dvc.lock is behind: train")) == (1, True)


def test_a_question_is_asked_with_the_trained_policy(clone: Path) -> None:
    done = run(clone, "routerr1", "ask", "What is the capital of France?", check=False)
    # So short a training may leave a policy that gives no answer.
    assert done.returncode == int("Answer: none" in done.stdout)
    assert "Answer:" in done.stdout
    assert "in all" in done.stdout


def test_a_corrupt_checkpoint_is_one_clear_line(clone: Path) -> None:
    weights = clone / "models/policy/model.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # may be linked to DVC's cache
    weights.write_bytes(content[:-1])
    try:
        done = run(clone, "routerr1", "ask", "x", check=False)
    finally:
        weights.write_bytes(content)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "routerr1: models/policy/model.safetensors: is corrupt; restore it with `dvc checkout`"
    ]


@pytest.mark.parametrize(
    ("name", "content", "stage", "wanted"),
    [
        ("params.yaml", "preset: ci\nsedes: [1]\n", "dataset", "params.yaml: unknown key sedes; did you mean seeds?"),
        ("data/pool/cards.json", '[{"name": ""}]', "ask", "data/pool/cards.json"),
        ("data/pool/cards.json", '[{"name": "Nobody"}]', "ask", "data/pool/cards.json: the simulated pool has no candidate 'Nobody'"),
        ("data/questions/test.parquet", None, "checks", "data/questions/test.parquet"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(
    clone: Path, tmp_path: Path, name: str, content: str | None, stage: str, wanted: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(clone, folder, symlinks=True, ignore=shutil.ignore_patterns(".git", "cache"))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    done = run(folder, "routerr1", stage, *(["x"] if stage == "ask" else []), check=False)
    assert done.returncode == 2, done.stderr
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr
