"""The events that start a retrain: their names, the model they concern, and how to send one to Prefect."""

import json
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from routerr1.config import load_params
from routerr1.errors import ConfigError, RouterError
from routerr1.tracking.store import redact

POOL_CHANGED = "routerr1.pool.changed"
DATA_CHANGED = "routerr1.data.changed"
DRIFT = "routerr1.drift"
TRIGGERS = (POOL_CHANGED, DATA_CHANGED, DRIFT)
_ANSWER_S = 3.0


class ServerUnreachable(RouterError):
    """The Prefect server does not answer, or something else answers at its address."""


def resource_of(model: str) -> str:
    """The name of a registered model on a Prefect server, which several models may share."""
    return f"routerr1.model.{model}"


def notify(event: str, why: str) -> None:
    """Send an event to Prefect; automations that expect it run. Returns once the server has it.

    Raises: ConfigError if no server is named; ServerUnreachable if the server does not take the
        event.
    """
    from prefect.client.orchestration import get_client
    from prefect.events import Event

    need_server()
    sent = Event(
        event=event,
        resource={"prefect.resource.id": resource_of(load_params().registry.model)},
        payload={"why": why},
    )
    # Prefect's own `emit_event` only queues an event, and reports nothing if it never arrives.
    with server_errors(), get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[sent.model_dump(mode="json")])


def need_server() -> None:
    """Raises: ConfigError if PREFECT_API_URL names no server; ServerUnreachable."""
    url = _server_url()
    if not url:
        raise ConfigError(
            "PREFECT_API_URL: not set; start `prefect server start` and set it to that server's address"
        )
    _require_answer(url)


def check_server() -> None:
    """Confirm that the server named in PREFECT_API_URL answers. Without a name flows run without a server.

    Raises: ServerUnreachable.
    """
    from prefect.client.orchestration import get_client

    if url := _server_url():
        _require_answer(url)
        with server_errors(), get_client(sync_client=True) as client:
            client.hello()


def run_here(program: str, flow: Callable[..., Any], **given: Any) -> int:
    """Run a flow in this process.

    Returns: exit status: 1 for a refused challenger, 2 for an error of ours; both are one line.
    """
    from prefect.exceptions import FailedRun

    try:
        check_server()
        flow(**given)
    except (FailedRun, RouterError) as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 1 if isinstance(error, FailedRun) else 2
    return 0


def _require_answer(url: str) -> None:
    """Any answer will do here; Prefect's own client would wait for minutes for none.

    Raises: ServerUnreachable.
    """
    import httpx

    with server_errors():
        httpx.get(f"{url.rstrip('/')}/health", timeout=_ANSWER_S, verify=_verify())


def _verify() -> ssl.SSLContext | bool:
    """How the server's certificate is checked, by the settings that Prefect's own client reads.

    Raises: ConfigError for a file of certificates that cannot be read.
    """
    from prefect.settings import get_current_settings

    api = get_current_settings().api
    if api.tls_insecure_skip_verify:
        return False
    try:
        return ssl.create_default_context(cafile=api.ssl_cert_file) if api.ssl_cert_file else True
    except OSError as error:  # a file that is missing, or that holds no certificate
        raise ConfigError(
            f"PREFECT_API_SSL_CERT_FILE: {api.ssl_cert_file} cannot be used ({error.strerror})"
        ) from None


def _server_url() -> str | None:
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


@contextmanager
def server_errors() -> Iterator[None]:
    """Turn what a client raises when a server does not answer into ServerUnreachable, one line."""
    import httpx

    try:
        yield
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        url = redact(str(_server_url()))
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ServerUnreachable(
            f"Prefect server {url}: {why}; is it running, and is PREFECT_API_URL right?"
        ) from None
