"""Setting a server up, and setting it up again after people have been at it."""

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from routerr1.errors import ConfigError
from routerr1.flows.params import set_values
from routerr1.flows.triggers import TRIGGERS
from tests.clone import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect", "chain"),
]


@pytest.fixture
def client(prefect: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: ARG001
    """Of the harness's server, which `prefect deploy` finds in the environment."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    Path("prefect.yaml").symlink_to(ROOT / "prefect.yaml")
    Path("routerr1").symlink_to(ROOT / "routerr1")
    with get_client(sync_client=True) as found:
        yield found


def state(client: Any) -> list[Any]:
    """Everything that `ops install` makes, as it is, with what is switched on."""
    from prefect.client.schemas.filters import WorkPoolFilter

    deployments = [
        (each.id, each.name, each.paused, [(it.schedule, it.active) for it in each.schedules])
        for each in client.read_deployments()
    ]
    # `prefect deploy` replaces the automations of its deployments, so their ids change.
    automations = [each.model_dump(exclude={"id"}) for each in client.read_automations()]
    automations.sort(key=lambda each: str(each["name"]))
    pools = client.read_work_pools(work_pool_filter=WorkPoolFilter())
    return [deployments, automations, [(pool.id, pool.type) for pool in pools]]


@contextmanager
def watched(deployment: Any) -> Iterator[list[bool]]:
    """Whether the deployment is paused, polled while another command runs."""
    from prefect.client.orchestration import get_client

    seen: list[bool] = []
    done = threading.Event()

    def watch() -> None:
        with get_client(sync_client=True) as client:
            while not done.wait(0.02):
                seen.append(client.read_deployment(deployment).paused)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(copy_context().run, watch)
        try:
            yield seen
        finally:
            done.set()
        watching.result()


def switch_off(client: Any) -> Any:
    """A deployment, a schedule and a trigger, as a person would; the id of the deployment."""
    (drift,) = client.read_automations_by_name("retrain routerr1 on routerr1.drift")
    client.pause_automation(drift.id)
    retrain = client.read_deployment_by_name("retrain/retrain")
    client.pause_deployment(retrain.id)
    watch = client.read_deployment_by_name("watch-changes/watch-changes")
    client.update_deployment_schedule(watch.id, watch.schedules[0].id, active=False)
    return retrain.id


def test_installing_again_changes_nothing_and_switches_nothing_on(client: Any) -> None:
    from routerr1.flows.install import install

    Path("own.py").write_text("from prefect import flow\n\n@flow\ndef nightly() -> None: ...\n")
    theirs = Path("prefect.yaml").read_text()
    Path("prefect.yaml").unlink()
    own = "{name: own, entrypoint: own.py:nightly, schedules: [], work_pool: {name: routerr1}}"
    Path("prefect.yaml").write_text(f"{theirs}\n  - {own}\n")
    assert install()[-1] == "deployments and triggers: as in prefect.yaml"
    names = {each.name for each in client.read_automations()}
    assert {f"retrain routerr1 on {event}" for event in TRIGGERS} <= names
    retrain = switch_off(client)
    client.pause_deployment(client.read_deployment_by_name("nightly/own").id)
    before = state(client)
    with watched(retrain) as seen:
        lines = install()
    assert lines[3:] == [
        "trigger retrain routerr1 on routerr1.drift: stays switched off",
        "deployment retrain/retrain: stays switched off",
        "schedule of watch-changes/watch-changes: stays switched off",
        "deployment nightly/own: stays switched off",
    ]
    assert state(client) == before
    assert set(seen) == {True}  # on for a moment, it would be run by its clock


def test_prefects_own_deploy_switches_everything_on(client: Any) -> None:
    """Why `ops install` exists; if this fails, Prefect leaves switches alone now."""
    from routerr1.flows.install import install

    install()
    retrain = switch_off(client)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(command, check=True, capture_output=True)
    assert not client.read_deployment(retrain).paused
    (drift,) = client.read_automations_by_name("retrain routerr1 on routerr1.drift")
    assert drift.enabled
    watch = client.read_deployment_by_name("watch-changes/watch-changes")
    assert watch.schedules[0].active


def test_triggers_of_another_model_are_refused(client: Any) -> None:  # noqa: ARG001
    from routerr1.flows.install import install

    set_values(Path("params.yaml"), {"registry.model": "another"})
    with pytest.raises(ConfigError) as caught:
        install()
    assert str(caught.value) == (
        "prefect.yaml: trigger 'retrain routerr1 on routerr1.pool.changed' matches "
        "routerr1.model.routerr1, but registry.model asks for routerr1.model.another"
    )


def test_prefect_deploys_without_a_question(client: Any) -> None:
    """At a terminal, where it asks for whatever prefect.yaml leaves open."""
    from routerr1.flows.install import _work_pool

    _work_pool(client)
    master, terminal = pty.openpty()
    os.write(master, b"\x04")  # a prompt would read the end of input, and fail
    command = [sys.executable, "-m", "prefect", "deploy", "--all"]
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    os.close(terminal)
    said = b""
    with suppress(OSError):  # the terminal is gone with its last user
        while part := os.read(master, 4096):
            said += part
    os.close(master)
    assert process.wait() == 0, said.decode()
    assert b"promote/promote" in said
    (step,) = client.read_deployment_by_name("retrain/retrain").pull_steps
    assert list(step.values()) == [{"directory": str(Path.cwd())}]


def test_without_prefect_yaml_nothing_is_installed(client: Any) -> None:  # noqa: ARG001
    from routerr1.flows.install import install

    Path("prefect.yaml").unlink()
    with pytest.raises(ConfigError, match=r"prefect\.yaml: not found; run this in the repository"):
        install()
    for content in ("deployments:\n", "deployments: [retrain]\n", "retrain\n"):
        Path("prefect.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"prefect\.yaml: holds no list of deployments"):
            install()
    Path("prefect.yaml").write_text(
        "deployments: [{name: retrain, entrypoint: routerr1/flows/pipeline.py:x}]\n"
    )
    with pytest.raises(ConfigError, match=r"deployment retrain: its entrypoint, .*:x, is no flow"):
        install()
