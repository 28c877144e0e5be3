"""`python -m routerr1.flows.serve`: schedules and runs on one machine, no work pool and no worker needed.

A Prefect server it does need (`prefect server start`, PREFECT_API_URL): without one nothing keeps the time.
"""

import sys
from importlib import import_module
from typing import Any

from prefect import Flow, serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from routerr1.errors import ConfigError, RouterError
from routerr1.flows.install import PREFECT_FILE, automations, stored_deployments
from routerr1.flows.triggers import need_server, server_errors


def deployments() -> list[RunnerDeployment]:
    """What prefect.yaml deploys, to be served from this process: its work pools are left aside.

    Raises: ConfigError naming the file if it is not there or lacks what a deployment needs.
    """
    try:
        return [_deployment(each) for each in stored_deployments()]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{PREFECT_FILE}: cannot be served ({error!r})") from None


def _deployment(stored: dict[str, Any]) -> RunnerDeployment:
    file, _, name = stored["entrypoint"].partition(":")
    module = import_module(file.removesuffix(".py").replace("/", "."))
    served: Flow[..., Any] = getattr(module, name)
    limit = stored.get("concurrency_limit")
    made = served.to_deployment(
        stored["name"],
        schedules=[
            Cron(each["cron"], timezone=each.get("timezone"), active=each.get("active", True))
            for each in stored.get("schedules", ())
        ],
        parameters=stored.get("parameters"),
        description=stored.get("description"),
        concurrency_limit=None if limit is None else ConcurrencyLimitConfig.model_validate(limit),
        # By its file it could not be found where `prefect deploy` made the deployment before.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)  # a coroutine only inside of an event loop
    return made


def main() -> int:
    """Serve every flow until interrupted; the triggers of `routerr1 ops install` are set up as well."""
    try:
        need_server()
        served = deployments()
        with server_errors(), get_client(sync_client=True) as client:
            for each in served:
                each.apply()  # the triggers name a deployment that is there
            for line in automations(client):
                sys.stderr.write(f"{line}\n")
        serve(*served)
    except RouterError as error:
        sys.stderr.write(f"routerr1.flows.serve: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
