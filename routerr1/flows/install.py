"""Set up a Prefect server for routerr1: work pool, concurrency limit, and the deployments of prefect.yaml.

`prefect deploy` switches on everything that it deploys: deployments, their schedules, and their triggers.
So it is given a copy of prefect.yaml in which everything that is switched off on the server stays off.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.flows import load_flow_from_entrypoint

from routerr1.config import load_params
from routerr1.errors import ConfigError, DataError
from routerr1.files import read_yaml
from routerr1.flows.pipeline import limit_of
from routerr1.flows.triggers import need_server, resource_of, server_errors

WORK_POOL = "routerr1"
PREFECT_FILE = Path("prefect.yaml")
_RESOURCE = "prefect.resource.id"


def install() -> list[str]:
    """Create or update everything; returns one line for each thing done.

    A second call changes nothing, and whatever a person has switched off stays off.

    Raises: ConfigError without a server, or if prefect.yaml cannot be deployed; ServerUnreachable.
    """
    need_server()
    wanted = _stored()
    _check_triggers(wanted)
    with server_errors(), get_client(sync_client=True) as client:
        return [_work_pool(client), _limit(client), *_deploy(client, wanted)]


def _stored() -> dict[str, Any]:
    """What prefect.yaml holds.

    Raises: ConfigError naming the file if it is missing, is no YAML, or holds no list of deployments.
    """
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


def _check_triggers(wanted: dict[str, Any]) -> None:
    """Raises: ConfigError if a trigger listens to another model than `registry.model`."""
    resource = resource_of(load_params().registry.model)
    for deployment in wanted["deployments"]:
        for trigger in deployment.get("triggers") or ():
            if (found := (trigger.get("match") or {}).get(_RESOURCE)) != resource:
                raise ConfigError(
                    f"{PREFECT_FILE}: trigger {trigger.get('name')!r} matches {found}, but "
                    f"registry.model asks for {resource}"
                )


def _work_pool(client: SyncPrefectClient) -> str:
    try:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
    except ObjectAlreadyExists:
        return f"work pool {WORK_POOL}: already there"
    return f"work pool {WORK_POOL}: created"


def _limit(client: SyncPrefectClient) -> str:
    limit = limit_of(load_params().registry.model)
    client.upsert_global_concurrency_limit_by_name(limit, 1)
    return f"concurrency limit {limit}: 1"


def _deploy(client: SyncPrefectClient, wanted: dict[str, Any]) -> Iterator[str]:
    """Run `prefect deploy --all`; what is switched off on the server is switched off in the file it reads."""
    off: list[str] = []
    held = [_as_on_server(client, each, off) for each in wanted["deployments"]]
    with TemporaryDirectory() as folder:
        copy = Path(folder) / PREFECT_FILE.name
        copy.write_text(yaml.safe_dump({**wanted, "deployments": held}, sort_keys=False))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        command += ["--prefect-file", str(copy)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ConfigError(f"{PREFECT_FILE}: `prefect deploy --all` failed: {' '.join(last)}")
    yield f"deployments and triggers: as in {PREFECT_FILE}"
    yield from (f"{name}: stays switched off" for name in off)


def _as_on_server(
    client: SyncPrefectClient, wanted: dict[str, Any], off: list[str]
) -> dict[str, Any]:
    """A deployment of prefect.yaml with its switches as they are on the server; names go into `off`."""
    triggers = [_trigger_as_on_server(client, each, off) for each in wanted.get("triggers") or ()]
    held = {**wanted, "triggers": triggers} if triggers else dict(wanted)
    name = f"{_flow_name(wanted)}/{wanted.get('name')}"
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return held
    if found.paused:
        held["paused"] = True
        off.append(f"deployment {name}")
    stopped = [each for each in found.schedules if not each.active]
    if stopped:
        held["schedules"] = [
            {**each, "active": False} if any(_is(each, it) for it in stopped) else each
            for each in wanted.get("schedules", ())
        ]
        off.append(f"schedule of {name}")
    return held


def _trigger_as_on_server(
    client: SyncPrefectClient, wanted: dict[str, Any], off: list[str]
) -> dict[str, Any]:
    found = client.read_automations_by_name(str(wanted.get("name")))
    if not found or all(each.enabled for each in found):
        return wanted
    off.append(f"trigger {wanted['name']}")
    return {**wanted, "enabled": False}


def _is(stored: dict[str, Any], found: DeploymentSchedule) -> bool:
    """True if a schedule of prefect.yaml is this one of the server."""
    schedule = found.schedule
    return isinstance(schedule, CronSchedule) and (
        (stored.get("cron"), stored.get("timezone")) == (schedule.cron, schedule.timezone)
    )


def _flow_name(wanted: dict[str, Any]) -> str:
    """Raises: ConfigError if the entrypoint of the deployment is no flow."""
    entrypoint = str(wanted.get("entrypoint"))
    try:
        found: Flow[..., Any] = load_flow_from_entrypoint(entrypoint)
    except (PrefectException, ImportError, OSError, ValueError):
        where = f"{PREFECT_FILE}: deployment {wanted.get('name')}"
        raise ConfigError(f"{where}: its entrypoint, {entrypoint}, is no flow") from None
    return found.name
