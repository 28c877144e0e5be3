"""Set a Prefect server up for routerr1: work pool, limit, the deployments of prefect.yaml, automations."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import get_current_settings

from flows.pipeline import DRIFT, LIMIT
from flows.watch import DATA_CHANGED, POOL_CHANGED
from routerr1.errors import ConfigError

WORK_POOL = "routerr1"
RETRAIN = "retrain/retrain"
TRIGGERS = (POOL_CHANGED, DATA_CHANGED, DRIFT)


def install() -> list[str]:
    """Make or update all of it; what was made, one line each. Doing it again changes nothing.

    Raises: ConfigError without a server to install to, or if a deployment could not be made.
    """
    need_server()
    return [_work_pool(), _limit(), _deploy(), *automations()]


def need_server() -> None:
    """Raises: ConfigError if PREFECT_API_URL names no server."""
    if not get_current_settings().api.url:
        raise ConfigError(
            "PREFECT_API_URL: not set; start `prefect server start` and name it there"
        )


def automations() -> list[str]:
    """One for each trigger: it runs the retrain deployment, which must be there already."""
    return [_automation(event) for event in TRIGGERS]


def _work_pool() -> str:
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
        except ObjectAlreadyExists:
            return f"work pool {WORK_POOL}: was there"
    return f"work pool {WORK_POOL}: made"


def _limit() -> str:
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
    return f"concurrency limit {LIMIT}: 1"


def _deploy() -> str:
    if not Path("prefect.yaml").is_file():
        raise ConfigError("prefect.yaml: not found; run this in the repository's root")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ConfigError(f"prefect.yaml: `prefect deploy --all` failed: {' '.join(last)}")
    return "deployments: as in prefect.yaml"


def _automation(event: str) -> str:
    """The flow minds the cool-down itself."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(RETRAIN)
        name = f"retrain on {event}"
        for old in client.read_automations_by_name(name):
            client.delete_automation(old.id)
    Automation(
        name=name,
        description="Made by `routerr1 ops install`",
        trigger=EventTrigger(
            expect={event}, posture=Posture.Reactive, threshold=1, within=timedelta(seconds=0)
        ),
        actions=[
            RunDeployment(
                source="selected", deployment_id=deployment.id, parameters={"trigger": event}
            )
        ],
    ).create()
    return f"automation: {name}"
