"""The events on which a retrain starts: their names, whom they concern, and how Prefect is told of one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from routerr1.config import load_params
from routerr1.errors import ConfigError, RouterError
from routerr1.tracking.store import redact

POOL_CHANGED = "routerr1.pool.changed"
DATA_CHANGED = "routerr1.data.changed"
DRIFT = "routerr1.drift"
TRIGGERS = (POOL_CHANGED, DATA_CHANGED, DRIFT)


class ServerUnreachable(RouterError):
    """The Prefect server does not answer, or not as one."""


def resource_of(model: str) -> str:
    """What stands for a registered model on a Prefect server, which other models may share."""
    return f"routerr1.model.{model}"


def notify(event: str, why: str) -> None:
    """Tell Prefect, and come back once it has taken the event; automations that expect it run.

    Raises: ConfigError if no server is named; ServerUnreachable if it does not take the event.
    """
    from prefect.client.orchestration import get_client
    from prefect.events import Event

    need_server()
    told = Event(
        event=event,
        resource={"prefect.resource.id": resource_of(load_params().registry.model)},
        payload={"why": why},
    )
    # Prefect's own `emit_event` only queues, and says nothing if the event never arrives.
    with server_errors(), get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[told.model_dump(mode="json")])


def need_server() -> None:
    """Raises: ConfigError if PREFECT_API_URL names no server."""
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        raise ConfigError(
            "PREFECT_API_URL: not set; start `prefect server start` and name it there"
        )


@contextmanager
def server_errors() -> Iterator[None]:
    """What a client meets of a server that is not there, as ServerUnreachable."""
    import httpx
    from prefect.settings import get_current_settings

    try:
        yield
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        url = redact(str(get_current_settings().api.url))
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ServerUnreachable(
            f"Prefect server {url}: {why}; is it running, and is PREFECT_API_URL right?"
        ) from None
