"""`routerr1 ops notify`: the event is with the server, or the command says why not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from routerr1.errors import ConfigError
from routerr1.flows.triggers import ServerUnreachable, need_server
from tests.servers import tls_server, write_certificate

pytestmark = pytest.mark.usefixtures("chain")


def run(home: Path, *arguments: str) -> tuple[int, str]:
    """A Python module of a user without settings; its status and output."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        env={**kept, "HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_server_with_a_certificate_of_its_own_is_asked_as_prefect_asks_it(tmp_path: Path) -> None:
    from prefect.settings import (
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
        PREFECT_API_URL,
        temporary_settings,
    )

    certificate = write_certificate(tmp_path / "ca.pem")
    with tls_server(certificate) as url:
        address = {PREFECT_API_URL: f"{url}/api"}
        with temporary_settings(address), pytest.raises(ServerUnreachable, match="certificate"):
            need_server()
        with temporary_settings({**address, PREFECT_API_SSL_CERT_FILE: str(certificate)}):
            need_server()
        with temporary_settings({**address, PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}):
            need_server()
        with (
            temporary_settings({**address, PREFECT_API_SSL_CERT_FILE: "/nowhere.pem"}),
            pytest.raises(ConfigError, match=r"PREFECT_API_SSL_CERT_FILE: /nowhere\.pem cannot"),
        ):
            need_server()


NOTIFY = ("routerr1.cli", "ops", "notify", "routerr1.drift")


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_line_and_status_2(tmp_path: Path) -> None:
    assert run(tmp_path, *NOTIFY) == (
        2,
        "routerr1: PREFECT_API_URL: not set; start `prefect server start` and set it to that server's address\n",
    )
    # As in Prefect's own documentation; no variable is set.
    run(tmp_path, "prefect", "config", "set", "PREFECT_API_URL=http://me:secret@127.0.0.1:9/api")
    assert run(tmp_path, *NOTIFY) == (
        2,
        "routerr1: Prefect server http://127.0.0.1:9/api: [Errno 111] Connection refused; "
        "is it running, and is PREFECT_API_URL right?\n",
    )
    assert run(tmp_path, "routerr1.cli", "ops", "install")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [(*NOTIFY,), ("routerr1.cli", "ops", "install"), ("routerr1.flows.pipeline",)],
    ids=["notify", "install", "pipeline"],
)
def test_a_server_that_takes_connections_and_never_answers_is_one_line(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        run(tmp_path, "prefect", "config", "set", f"PREFECT_API_URL={url}")
        status, said = run(tmp_path, *command)
    assert status == 2
    (line,) = said.splitlines()
    assert f"Prefect server {url}: timed out; is it running" in line
