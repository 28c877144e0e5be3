"""Stages run in a process group that never outlives its parent; real processes, real DVC."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.flows.stages import StageFailed, remove_broken_lock, run_stage, spending_as, stages
from routerr1.pool.build import RUN_VARIABLE

pytestmark = pytest.mark.slow

SLEEPERS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open("pids", "w").write(f"{child.pid}")
print("started", flush=True)
time.sleep(300)
"""


@pytest.fixture
def sleeping_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    (tmp_path / "dvc.yaml").write_text(
        f"stages: {{sleep: {{cmd: {sys.executable} sleepers.py, deps: [sleepers.py]}}}}\n"
    )
    subprocess.run(["dvc", "init", "--no-scm", "-q"], check=True)
    return tmp_path


def until(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def started_in(folder: Path) -> list[psutil.Process]:
    """Every process that works in `folder`, this one aside."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()) == folder:
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def test_stages_come_in_the_order_of_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["dvc", "init", "--no-scm", "-q"], check=True)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  last: {cmd: echo 3 > c, deps: [a, b], outs: [c]}\n"
        "  first: {cmd: echo 1 > a, outs: [a]}\n"
        "  middle: {cmd: echo 2 > b, deps: [a], outs: [b]}\n"
    )
    assert stages() == ["first", "middle", "last"]


def test_the_flow_knows_the_stages_of_the_repository() -> None:
    found = stages(Path(__file__).parents[2])
    assert found[0] == "dataset"
    assert found.index("warmstart") < found.index("train") < found.index("evaluate")
    assert found[-1] == "report"


def test_only_a_lock_that_holds_nothing_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    remove_broken_lock(tmp_path)
    lock.write_text("schema: '2.0'\n")
    remove_broken_lock(tmp_path)
    assert lock.exists()
    lock.write_text("")
    remove_broken_lock(tmp_path)
    assert not lock.exists()


def test_a_folder_without_dvc_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="DVC: you are not inside of a DVC repository"):
        stages()


def test_output_is_streamed_and_an_unchanged_stage_is_skipped(chain: Params) -> None:  # noqa: ARG001
    lines: list[str] = []
    run_stage("make", lines.append)
    assert lines == ["stage make: unchanged"]
    Path("made.yaml").write_text("{right: 0.7, cost: 0.001, size: 10}\n")
    run_stage("make", lines.append)
    assert "Running stage 'make':" in lines
    lines.clear()
    run_stage("make", lines.append, force=True)
    assert "Running stage 'make':" in lines


def test_a_flow_run_spends_under_its_own_name_unless_one_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    with spending_as("flow run 1"), spending_as("flow run 2"):
        assert os.environ[RUN_VARIABLE] == "flow run 1"
    assert RUN_VARIABLE not in os.environ
    monkeypatch.setenv(RUN_VARIABLE, "mine")
    with spending_as("flow run 1"):
        assert os.environ[RUN_VARIABLE] == "mine"
    assert os.environ[RUN_VARIABLE] == "mine"


def test_a_failing_stage_says_which_and_how(sleeping_stage: Path) -> None:
    (sleeping_stage / "sleepers.py").write_text("import sys; print('no luck'); sys.exit(3)")
    lines: list[str] = []
    with pytest.raises(StageFailed, match="stage sleep: `dvc repro` ended with status 255"):
        run_stage("sleep", lines.append)
    assert "no luck" in lines


def test_an_exception_while_a_stage_runs_ends_all_of_it(sleeping_stage: Path) -> None:
    def cancel(line: str) -> None:
        if line == "started":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage("sleep", cancel)
    assert started_in(sleeping_stage) == []


FLOW = "from routerr1.flows.stages import run_stage; run_stage('sleep', print)"


@pytest.mark.parametrize("victim", ["flow", "dvc", "stage"])
def test_whoever_is_killed_nothing_is_left(sleeping_stage: Path, victim: str) -> None:
    flow = subprocess.Popen([sys.executable, "-c", FLOW], stdout=subprocess.DEVNULL)
    assert until((sleeping_stage / "pids").exists)
    chosen = {
        "flow": lambda line: line[1:2] == ["-c"] and "run_stage" in line[2],
        "dvc": lambda line: line[1:3] == ["-m", "dvc"],
        "stage": lambda line: line[1:2] == ["sleepers.py"],
    }[victim]
    victims = [process for process in started_in(sleeping_stage) if chosen(process.cmdline())]
    assert len(victims) == 1
    os.kill(victims[0].pid, signal.SIGKILL)
    flow.wait(timeout=30)
    assert until(lambda: started_in(sleeping_stage) == [], 15)
