"""From nothing to a champion by schedule, event and rollback: real Prefect server, worker, MLflow server.

The chain is the small one of `tests/chain.py`: real DVC and git, one stage.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil
import pytest

from routerr1 import promotion, registry, tracking
from routerr1.config import Params
from tests.chain import ROOT
from tests.servers import free_port, mlflow_server, postgresql, running, until_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def servers(
    chain: Params,  # noqa: ARG001 - it sets the working folder
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """MLflow over PostgreSQL (SQLite where that is missing), Prefect; gives the folder of their logs."""
    folder = tmp_path_factory.mktemp("servers")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    for name, value in {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
    }.items():
        monkeypatch.setenv(name, value)
    (folder / "prefect").mkdir()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    log = folder / "prefect.log"
    with (
        store(folder) as backend,
        mlflow_server(folder, backend) as mlflow,
        running([*command, "--port", str(port)], log, cwd=folder),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
        until_answers(f"{address}/api/health", log)
        yield folder


def store(folder: Path) -> AbstractContextManager[str]:
    if shutil.which("postgres") is None:
        return nullcontext(f"sqlite:///{folder / 'mlflow.db'}")
    return postgresql(folder)


def until(holds: Callable[[], bool], log: Path, seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain:\n{log.read_text()[-4000:]}")
        time.sleep(1)


def prepare(cron: str) -> None:
    """What a user has: the flows and prefect.yaml beside the chain; no cool-down, another schedule."""
    shutil.copytree(ROOT / "flows", "flows")
    text = (ROOT / "prefect.yaml").read_text()
    assert '- cron: "0 2 * * *"' in text
    Path("prefect.yaml").write_text(text.replace('- cron: "0 2 * * *"', f'- cron: "{cron}"'))
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("cooldown_s: 21600", "cooldown_s: 0"))
    subprocess.run(["git", "add", "."], check=True)
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *author, "commit", "-qm", "flows"], check=True)


def set_made(right: float) -> None:
    Path("made.yaml").write_text(f"{{right: {right}, cost: 0.001, size: 10}}\n")


def aliases() -> dict[int, tuple[str, ...]]:
    found = registry.list_versions(tracking.open_client(), "routerr1")
    return {version.number: version.aliases for version in found}


def gate_of(number: int) -> str | None:
    found = registry.list_versions(tracking.open_client(), "routerr1")
    return next((v.tags.get("gate") for v in found if v.number == number), None)


def routerr1(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "routerr1.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_schedule_gate_event_and_rollback(chain: Params, servers: Path) -> None:
    prepare(cron="* * * * *")
    made = routerr1("ops", "install")
    assert "automation: retrain on routerr1.drift" in made
    log = servers / "worker.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "routerr1"]
    with running(command, log):
        until(lambda: "champion" in aliases().get(1, ()), log)  # by the clock
        set_made(right=0.1)
        until(lambda: gate_of(2) == "refused", log)  # the next minute's run, and the gate holds
        assert "champion" in aliases()[1]
        pause("retrain/retrain")
        here = Path.cwd()
        # A run under way would take the change half way, and have the event's run cancelled.
        until(lambda: not [p for p in psutil.process_iter() if runs_in(p, here)], log)
        set_made(right=0.9)
        routerr1("ops", "notify", "routerr1.pool.changed", "--why", "a price")
        until(lambda: "champion" in aliases().get(3, ()), log)  # by the event
        assert promotion.rollback(chain, why="test").after == 1
        assert "champion" in aliases()[1]
    until(lambda: not [p for p in psutil.process_iter() if works_in(p, here)], log, 30)


def pause(deployment: str) -> None:
    """Stop the schedule; what was planned already is cancelled, what runs is waited for."""
    from prefect.client.orchestration import get_client

    command = [sys.executable, "-m", "prefect", "deployment", "schedule", "pause", "--all"]
    subprocess.run([*command], check=True, input=b"y\n", stdout=subprocess.DEVNULL)
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        assert not any(schedule.active for schedule in found.schedules)


def runs_in(process: psutil.Process, folder: Path) -> bool:
    """All that works there but the worker."""
    try:
        return works_in(process, folder) and "worker" not in process.cmdline()
    except psutil.Error:
        return False


def works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        if process.pid == os.getpid():
            return False
        return Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
