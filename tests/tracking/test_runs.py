"""Runs on a real SQLite store in a folder of the test's own."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from routerr1.config import RegistryParams
from routerr1.errors import DataError, RegistryError
from routerr1.tracking.runs import find_run, new_run, resume_run
from routerr1.tracking.store import (
    _started,
    experiment_id,
    is_gone,
    open_client,
    redact,
    this_process,
)

PARAMS = RegistryParams(model="m", experiment="tests")
RUN_FILE = Path("data/train/run.json")


pytestmark = pytest.mark.usefixtures("mlflow_store")


def test_later_stages_log_to_the_run_that_training_opened() -> None:
    with new_run(PARAMS, RUN_FILE, "t1") as run:
        run.log_params({"train": {"steps": 3}})
        for step in range(3):
            run.log_metrics({"reward": step / 2, "calls": {"small": 1}, "note": "text"}, step)
        trained = run.id
    with resume_run(PARAMS, RUN_FILE) as run:
        run.log_metrics({"eval": {"em": 0.5}})
        run.log_params(
            {"train": {"steps": 4}, "evaluate": {"seed": 5}}
        )  # steps stay as first logged
    client = open_client()
    found = client.get_run(trained)
    assert run.id == trained
    assert found.info.status == "FINISHED"
    assert found.data.metrics["eval.em"] == 0.5
    assert [m.value for m in client.get_metric_history(trained, "reward")] == [0.0, 0.5, 1.0]
    assert found.data.params == {"train.steps": "3", "evaluate.seed": "5"}
    assert json.loads(RUN_FILE.read_text()) == {
        "training": "t1"
    }  # the same bytes wherever it is trained


def test_a_training_the_store_does_not_know_gets_one_run_that_says_so() -> None:
    RUN_FILE.parent.mkdir(parents=True)
    RUN_FILE.write_text('{"training": "0123456789abcdef"}')
    ids = []
    for _ in ("evaluate", "generalize"):
        with resume_run(PARAMS, RUN_FILE) as run:
            ids.append(run.id)
    found = open_client().get_run(ids[0])
    assert ids[0] == ids[1]
    assert found.data.tags["routerr1.restored"] == "true"
    assert found.data.tags["routerr1.training"] == "0123456789abcdef"
    assert found.info.run_name == "restored 0123456"


@pytest.mark.slow
def test_the_run_of_the_workspace_is_found_among_those_of_other_trainings() -> None:
    ids = {}
    for training in ("a", "b", "a", "c"):
        with new_run(PARAMS, RUN_FILE, training, name=f"trains {training}") as run:
            ids[training] = run.id
    RUN_FILE.write_text('{"training": "a"}')  # as DVC restores it
    with resume_run(PARAMS, RUN_FILE) as run:
        pass
    assert run.id == ids["a"]  # the later of the two
    assert open_client().get_run(run.id).info.run_name == "trains a"


def test_an_exception_ends_the_run_failed_and_passes_on() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        new_run(PARAMS, RUN_FILE, "t1") as run,
    ):
        raise ZeroDivisionError
    assert open_client().get_run(run.id).info.status == "FAILED"


@pytest.mark.slow
def test_a_killed_run_is_marked_by_the_next_which_opens_its_own() -> None:
    body = """
        from pathlib import Path
        from routerr1.tracking.runs import new_run
        from routerr1.config import RegistryParams
        params = RegistryParams(model="m", experiment="tests")
        with new_run(params, Path("data/train/run.json"), "t1") as run:
            run.log_metrics({"reward": 1.0}, 1)
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(body)], check=False)
    assert ended.returncode == -signal.SIGKILL
    client = open_client()
    killed = find_run(client, experiment_id(client, "tests"), "t1")
    assert killed is not None
    assert client.get_run(killed).info.status == "RUNNING"
    with new_run(PARAMS, RUN_FILE, "t1") as run:
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
    with new_run(PARAMS, RUN_FILE, "t1", tags={"stage": "train"}) as run:
        run.log_artifact(report)
        run.log_artifact(report / "index.html", "single")
        run.log_dataset(report, "training")
        with pytest.raises(DataError, match="nothing-here: not found"):
            run.log_artifact(Path("nothing-here"))
    client = open_client()
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
        pytest.raises(DataError, match=r"data/train/run\.json: holds no training"),
        resume_run(PARAMS, RUN_FILE),
    ):
        pass


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("mlruns", "is a folder, which MLflow 3 does not take as a store; use sqlite:///mlflow.db"),
        ("file:///srv/mlruns", "is a folder, which MLflow 3 does not take"),
        ("htp://me:secret@host", "'htp' is no kind of store; use sqlite, postgresql, http or https"),
        ("postgresql+psycopg9://me:secret@host/db", "needs the package psycopg9, which is not installed"),
        ("http://me:secret@host:99999", "is no address of a server"),
        ("http://me:secret@[host", "is no address of a server"),
        ("http://", "is no address of a server"),
        ("sqlite:///", "names no file"),
        ("sqlite:////proc/none/mlflow.db", "cannot be opened (No such file or directory)"),
        ("sqlite:///damaged.db", "cannot be opened (file is not a database)"),
        ("sqlite:///folder", "cannot be opened (unable to open database file)"),
    ],
)  # fmt: skip
def test_a_store_that_cannot_be_opened_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("damaged.db").write_bytes(b"no database, but long enough to be read as a page of one" * 9)
    Path("folder").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(RegistryError, match=re.escape(problem)) as caught:
        open_client()
    assert str(caught.value).startswith("MLFLOW_TRACKING_URI: ")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_only_a_dead_process_of_this_kernel_is_gone() -> None:
    here = this_process()
    host, pid, started, kernel = here.split()
    assert not is_gone(here)
    assert is_gone(f"{host} {pid} {started}9 {kernel}")  # the pid was used again
    ended = subprocess.Popen([sys.executable, "-c", ""])
    told = f"{host} {ended.pid} {_started(ended.pid)} {kernel}"
    ended.wait()
    assert is_gone(told)
    boot, _, namespace = kernel.partition("/")
    unused = f"{host} {2**22 + 1} 0"
    assert is_gone(f"{unused} {kernel}")
    # A machine of the same name, and a container of this machine that goes by its name.
    assert not is_gone(f"{unused} {boot[::-1]}/{namespace}")
    assert not is_gone(f"{unused} {boot}/pid:[1]")
    assert not is_gone(unused)
    assert not is_gone("")
    assert os.getpid() == int(pid)


def test_a_folder_of_locks_that_cannot_be_made_is_one_line() -> None:
    Path("runs").write_text("a file where a folder should be")
    with pytest.raises(RegistryError) as caught:
        open_client()
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
        (
            "postgresql://host/x?user=me&password=s%20cret is down",
            "postgresql://host/x?user=me&password= is down",
        ),
        ("http://host/?api_key=abc&x=1", "http://host/?api_key=&x=1"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_no_part_of_a_password_is_shown(told: str, shown: str) -> None:
    assert redact(told) == shown
