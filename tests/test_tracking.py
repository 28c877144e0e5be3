"""Runs on a real SQLite store in a folder of the test's own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from routerr1.config import RegistryParams
from routerr1.errors import DataError, RegistryError
from routerr1.tracking import runs as tracking

PARAMS = RegistryParams(model="m", experiment="tests")
RUN_FILE = Path("data/train/run.json")


pytestmark = pytest.mark.usefixtures("mlflow_store")


def test_later_stages_log_to_the_run_that_training_opened() -> None:
    with tracking.open_run(PARAMS, RUN_FILE, resume=False) as run:
        run.log_params({"train": {"steps": 3}})
        for step in range(3):
            run.log_metrics({"reward": step / 2, "calls": {"small": 1}, "note": "text"}, step)
        trained = run.id
    with tracking.open_run(PARAMS, RUN_FILE, resume=True) as run:
        run.log_metrics({"eval": {"em": 0.5}})
        run.log_params(
            {"train": {"steps": 4}, "evaluate": {"seed": 5}}
        )  # steps stay as first logged
    client = tracking.open_client()
    found = client.get_run(trained)
    assert run.id == trained
    assert found.info.status == "FINISHED"
    assert found.data.metrics["eval.em"] == 0.5
    assert [m.value for m in client.get_metric_history(trained, "reward")] == [0.0, 0.5, 1.0]
    assert found.data.params == {"train.steps": "3", "evaluate.seed": "5"}
    assert json.loads(RUN_FILE.read_text()) == {
        "run_id": trained,
        "tracking_uri": "sqlite:///mlflow.db",
    }


def test_a_run_the_store_does_not_know_is_replaced_once_and_says_so() -> None:
    RUN_FILE.parent.mkdir(parents=True)
    RUN_FILE.write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
    ids = []
    for _ in ("evaluate", "generalize"):
        with tracking.open_run(PARAMS, RUN_FILE, resume=True) as run:
            ids.append(run.id)
    tags = tracking.open_client().get_run(ids[0]).data.tags
    assert ids[0] == ids[1]
    assert tags["routerr1.restored_from"] == "0123456789abcdef0123456789abcdef"


def test_an_exception_ends_the_run_failed_and_passes_on() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracking.open_run(PARAMS, RUN_FILE, resume=False) as run,
    ):
        raise ZeroDivisionError
    assert tracking.open_client().get_run(run.id).info.status == "FAILED"


def test_a_killed_run_is_marked_by_the_next_which_opens_its_own() -> None:
    body = """
        from pathlib import Path
        from routerr1 import tracking
        from routerr1.config import RegistryParams
        params = RegistryParams(model="m", experiment="tests")
        with tracking.open_run(params, Path("data/train/run.json"), resume=False) as run:
            run.log_metrics({"reward": 1.0}, 1)
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(body)], check=False)
    assert ended.returncode == -signal.SIGKILL
    killed = json.loads(RUN_FILE.read_text())["run_id"]
    client = tracking.open_client()
    assert client.get_run(killed).info.status == "RUNNING"
    with tracking.open_run(PARAMS, RUN_FILE, resume=False) as run:
        pass
    assert run.id != killed
    assert client.get_run(killed).info.status == "KILLED"


def test_files_folders_and_inputs_are_kept_with_the_run() -> None:
    report = Path("data/report")
    report.mkdir(parents=True)
    (report / "index.html").write_text("<p>")
    Path("dvc.lock").write_text(
        "stages: {dataset: {outs: [{path: data/report, md5: d41d8cd98f00b204e9800998ecf8427e.dir}]}}"
    )
    with tracking.open_run(PARAMS, RUN_FILE, resume=False, tags={"stage": "train"}) as run:
        run.log_artifact(report)
        run.log_artifact(report / "index.html", "single")
        run.log_dataset(report, "training")
        with pytest.raises(DataError, match="nothing-here: not found"):
            run.log_artifact(Path("nothing-here"))
    client = tracking.open_client()
    found = client.get_run(run.id)
    assert [file.path for file in client.list_artifacts(run.id, "report")] == ["report/index.html"]
    assert [file.path for file in client.list_artifacts(run.id, "single")] == ["single/index.html"]
    assert found.inputs.dataset_inputs[0].dataset.digest == "d41d8cd98f00b204e9800998ecf8427e.dir"
    assert found.inputs.dataset_inputs[0].dataset.source_type == "dvc"
    assert found.data.tags["stage"] == "train"


def test_a_malformed_run_file_names_itself() -> None:
    RUN_FILE.parent.mkdir(parents=True)
    RUN_FILE.write_text("{}")
    with (
        pytest.raises(DataError, match=r"data/train/run\.json: holds no run_id"),
        tracking.open_run(PARAMS, RUN_FILE, resume=True),
    ):
        pass


def test_a_server_that_does_not_answer_is_one_line_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9/")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as caught:
        tracking.open_client()
    assert "\n" not in str(caught.value)
    assert "MLflow at http://127.0.0.1:9/" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_only_a_dead_process_of_this_kernel_is_gone() -> None:
    here = tracking.this_process()
    host, pid, started, kernel = here.split()
    assert not tracking.is_gone(here)
    assert tracking.is_gone(f"{host} {pid} {started}9 {kernel}")  # the pid was used again
    ended = subprocess.Popen([sys.executable, "-c", ""])
    told = f"{host} {ended.pid} {tracking._started(ended.pid)} {kernel}"
    ended.wait()
    assert tracking.is_gone(told)
    boot, _, namespace = kernel.partition("/")
    unused = f"{host} {2**22 + 1} 0"
    assert tracking.is_gone(f"{unused} {kernel}")
    # A machine of the same name, and a container of this machine that goes by its name.
    assert not tracking.is_gone(f"{unused} {boot[::-1]}/{namespace}")
    assert not tracking.is_gone(f"{unused} {boot}/pid:[1]")
    assert not tracking.is_gone(unused)
    assert not tracking.is_gone("")
    assert os.getpid() == int(pid)


def test_a_folder_of_locks_that_cannot_be_made_is_one_line() -> None:
    Path("runs").write_text("a file where a folder should be")
    with pytest.raises(RegistryError) as caught:
        tracking.open_client()
    assert str(caught.value).startswith(
        "runs/locks/tracking-store.lock: cannot be used as a lock ("
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("http://me:pa/ss@w@host:5000/x is down", "http://host:5000/x is down"),
        ("postgresql://u:%2F@db/mlflow", "postgresql://db/mlflow"),
        ("http://token@host/", "http://host/"),
        ("http://host:5000/", "http://host:5000/"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_no_part_of_a_password_is_shown(told: str, shown: str) -> None:
    assert tracking.redact(told) == shown
