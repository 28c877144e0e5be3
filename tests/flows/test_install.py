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
from tests.clone import ROOT

pytestmark = pytest.mark.usefixtures("prefect", "chain")


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
    automations = [each.model_dump() for each in client.read_automations()]
    pools = client.read_work_pools(work_pool_filter=WorkPoolFilter())
    return [deployments, automations, [(pool.id, pool.type) for pool in pools]]


@contextmanager
def watched(deployment: Any) -> Iterator[list[bool]]:
    """Whether the deployment is paused, asked again and again while something else goes on."""
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


def test_installing_again_changes_nothing_and_switches_nothing_on(client: Any) -> None:
    from routerr1.flows.install import install

    Path("own.py").write_text("from prefect import flow\n\n@flow\ndef nightly() -> None: ...\n")
    theirs = Path("prefect.yaml").read_text()
    Path("prefect.yaml").unlink()
    own = "{name: own, entrypoint: own.py:nightly, schedules: [], work_pool: {name: routerr1}}"
    Path("prefect.yaml").write_text(f"{theirs}\n  - {own}\n")
    lines = install()
    assert "automation: retrain routerr1 on routerr1.drift" in lines
    (drift,) = client.read_automations_by_name("retrain routerr1 on routerr1.drift")
    client.pause_automation(drift.id)
    retrain = client.read_deployment_by_name("retrain/retrain")
    client.pause_deployment(retrain.id)
    client.pause_deployment(client.read_deployment_by_name("nightly/own").id)
    watch = client.read_deployment_by_name("watch-changes/watch-changes")
    client.update_deployment_schedule(watch.id, watch.schedules[0].id, active=False)
    before = state(client)
    with watched(retrain.id) as seen:
        lines = install()
    assert "automation: retrain routerr1 on routerr1.drift (switched off)" in lines
    assert "deployments: as in prefect.yaml (switched off: retrain, watch-changes, own)" in lines
    assert state(client) == before
    assert set(seen) == {True}  # on for a moment, it would be run by its clock


def test_prefect_deploys_without_a_question(client: Any) -> None:
    """At a terminal, where it asks for whatever prefect.yaml leaves open."""
    from routerr1.flows.install import _work_pool

    _work_pool(client)
    master, terminal = pty.openpty()
    os.write(master, b"\x04")  # who is asked sees the end of the input, and fails
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


def test_an_automation_that_starts_something_else_is_put_right_where_it_stands(
    client: Any,
) -> None:
    from prefect.events.schemas.automations import AutomationCore

    from routerr1.flows.install import automations
    from routerr1.flows.serve import deployments

    for each in deployments():
        each.apply()
    automations(client)
    name = "retrain routerr1 on routerr1.pool.changed"
    (made,) = client.read_automations_by_name(name)
    old = made.model_dump(exclude={"id", "owner_resource"})
    old["trigger"]["match"] = {}  # of any model
    client.update_automation(made.id, AutomationCore.model_validate(old))
    automations(client)
    assert client.read_automations_by_name(name) == [made]


def test_each_model_on_a_server_has_automations_of_its_own(client: Any) -> None:
    from routerr1.flows.install import automations
    from routerr1.flows.serve import deployments

    for each in deployments():
        each.apply()
    for model in ("routerr1", "another"):
        set_values(Path("params.yaml"), {"registry.model": model})
        automations(client)
    for model in ("routerr1", "another"):
        (found,) = client.read_automations_by_name(f"retrain {model} on routerr1.drift")
        assert found.trigger.match["prefect.resource.id"] == [f"routerr1.model.{model}"]


def test_without_prefect_yaml_nothing_is_installed(client: Any) -> None:
    from routerr1.flows.install import automations, install

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
    Path("prefect.yaml").write_text("deployments: []\n")
    with pytest.raises(
        ConfigError, match=r"prefect\.yaml: deploys no routerr1/flows/pipeline\.py:retrain"
    ):
        automations(client)
