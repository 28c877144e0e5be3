"""Set a Prefect server up for routerr1: work pool, limit, the deployments of prefect.yaml, automations."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.flows import load_flow_from_entrypoint

from routerr1.config import load_params
from routerr1.errors import ConfigError, DataError
from routerr1.files import read_yaml
from routerr1.flows.pipeline import limit_of, retrain
from routerr1.flows.triggers import TRIGGERS, need_server, resource_of, server_errors

WORK_POOL = "routerr1"
PREFECT_FILE = Path("prefect.yaml")
_RETRAIN = "routerr1/flows/pipeline.py:retrain"


def install() -> list[str]:
    """Make or update all of it; what was done, one line each.

    Doing it again changes nothing: what a person has switched off since stays off.

    Raises: ConfigError without a server to install to, or if a deployment names no flow or could not be made;
        ServerUnreachable.
    """
    need_server()
    with server_errors(), get_client(sync_client=True) as client:
        return [_work_pool(client), _limit(client), _deploy(client), *automations(client)]


def automations(client: SyncPrefectClient) -> list[str]:
    """One for each trigger: it runs the retrain deployment, which must be there already."""
    model = load_params().registry.model
    deployment = client.read_deployment_by_name(retrain_deployment())
    return [
        _automation(
            client,
            AutomationCore(
                # The flow minds the cool-down itself.
                name=f"retrain {model} on {event}",
                description="Made by `routerr1 ops install`",
                trigger=EventTrigger(
                    expect={event},
                    match={"prefect.resource.id": resource_of(model)},
                    posture=Posture.Reactive,
                    threshold=1,
                    within=timedelta(seconds=0),
                ),
                actions=[
                    RunDeployment(
                        source="selected",
                        deployment_id=deployment.id,
                        parameters={"trigger": event},
                    )
                ],
            ),
        )
        for event in TRIGGERS
    ]


def _automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """Made, or brought up to date where it stands: switched off, it stays off."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
    elif (found[0].trigger, found[0].actions) != (wanted.trigger, wanted.actions):
        kept = {"enabled": found[0].enabled, "tags": found[0].tags}
        client.update_automation(found[0].id, wanted.model_copy(update=kept))
    off = bool(found) and not found[0].enabled
    return f"automation: {wanted.name}{' (switched off)' if off else ''}"


def retrain_deployment() -> str:
    """Name of the deployment that events start: the first of the retrain flow in prefect.yaml.

    Raises: ConfigError if there is none.
    """
    for each in stored_deployments():
        if each.get("entrypoint") == _RETRAIN:
            return f"{retrain.name}/{each['name']}"
    raise ConfigError(f"{PREFECT_FILE}: deploys no {_RETRAIN}")


def stored_deployments() -> list[dict[str, Any]]:
    """The deployments of prefect.yaml.

    Raises: ConfigError naming the file if it is not there, is no YAML or holds no list of them.
    """
    deployments: list[dict[str, Any]] = _stored()["deployments"]
    return deployments


def _stored() -> dict[str, Any]:
    if not PREFECT_FILE.is_file():
        raise ConfigError(f"{PREFECT_FILE}: not found; run this in the repository's root")
    try:
        stored = read_yaml(PREFECT_FILE)
    except DataError as error:
        raise ConfigError(str(error)) from None
    found = stored.get("deployments") if isinstance(stored, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ConfigError(f"{PREFECT_FILE}: holds no list of deployments")
    return dict(stored)


def _work_pool(client: SyncPrefectClient) -> str:
    try:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
    except ObjectAlreadyExists:
        return f"work pool {WORK_POOL}: was there"
    return f"work pool {WORK_POOL}: made"


def _limit(client: SyncPrefectClient) -> str:
    limit = limit_of(load_params().registry.model)
    client.upsert_global_concurrency_limit_by_name(limit, 1)
    return f"concurrency limit {limit}: 1"


def _deploy(client: SyncPrefectClient) -> str:
    """`prefect deploy` switches all on: what a person has switched off is paused in what it is given.

    Switched off again afterwards, it would be on for seconds, and a clock that strikes then starts a run.
    """
    stored = _stored()
    before = [(each, _switched_off(client, each)) for each in stored["deployments"]]
    held = [{**each, "paused": True} if old else each for each, old in before]
    with TemporaryDirectory() as folder:
        copy = Path(folder) / PREFECT_FILE.name
        copy.write_text(yaml.safe_dump({**stored, "deployments": held}, sort_keys=False))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        command += ["--prefect-file", str(copy)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            for each, old in before:
                if old:
                    _switch_schedules_off(client, old)
                    if not (old.paused or each.get("paused")):
                        client.resume_deployment(old.id)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ConfigError(f"{PREFECT_FILE}: `prefect deploy --all` failed: {' '.join(last)}")
    off = ", ".join(old.name for _, old in before if old)
    return f"deployments: as in {PREFECT_FILE}{f' (switched off: {off})' if off else ''}"


def _switched_off(client: SyncPrefectClient, stored: dict[str, Any]) -> DeploymentResponse | None:
    """The deployment as the server has it, if it or a schedule of it is switched off there."""
    name, entrypoint = stored.get("name"), str(stored.get("entrypoint"))
    try:
        flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint)
    except (PrefectException, ImportError, OSError, ValueError):
        where = f"{PREFECT_FILE}: deployment {name}"
        raise ConfigError(f"{where}: its entrypoint, {entrypoint}, is no flow") from None
    try:
        found = client.read_deployment_by_name(f"{flow.name}/{name}")
    except ObjectNotFound:
        return None
    return found if found.paused or not all(each.active for each in found.schedules) else None


def _switch_schedules_off(client: SyncPrefectClient, old: DeploymentResponse) -> None:
    off = [each.schedule for each in old.schedules if not each.active]
    for each in client.read_deployment(old.id).schedules:
        if each.schedule in off:
            client.update_deployment_schedule(old.id, each.id, active=False)
