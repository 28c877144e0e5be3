"""A store that does not answer is one line within seconds, without its password."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner
from urllib3.exceptions import InsecureRequestWarning

from routerr1.cli.app import app
from routerr1.errors import ConfigError, RegistryError, StoreUnreachable
from routerr1.tracking import store
from routerr1.tracking.store import check_store
from tests.servers import tls_server, write_certificate


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield int(server.getsockname()[1])


@pytest.fixture
def nothing() -> int:
    """A port at which nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.mark.parametrize("kind", ["http://", "postgresql://", "postgresql+psycopg2://"])
@pytest.mark.parametrize("state", ["silent", "nothing"])
def test_a_dead_server_is_one_line_and_not_waited_for(
    kind: str, state: str, silent: int, nothing: int, monkeypatch: pytest.MonkeyPatch
):
    assert store._ANSWER_S < 10
    monkeypatch.setattr(store, "_ANSWER_S", 2)
    port = silent if state == "silent" else nothing
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{kind}me:secret@127.0.0.1:{port}/x")
    started = time.perf_counter()
    with pytest.raises(StoreUnreachable) as caught:
        check_store()
    assert time.perf_counter() - started < 8
    told = str(caught.value)
    assert told.startswith(f"MLFLOW_TRACKING_URI: {kind}127.0.0.1:{port}/x: ")
    assert "\n" not in told
    assert "secret" not in told


def test_a_server_with_a_certificate_of_its_own_is_asked_as_mlflow_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate = write_certificate(tmp_path / "ca.pem")
    with tls_server(certificate) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(RegistryError) as refused:
            check_store()
        assert str(refused.value) == (
            f"MLFLOW_TRACKING_URI: {url}: its certificate is not trusted (self-signed certificate); "
            "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its CA"
        )
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with pytest.warns(InsecureRequestWarning):
            check_store()
        monkeypatch.delenv("MLFLOW_TRACKING_INSECURE_TLS")
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        check_store()
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/nowhere.pem")
        with pytest.raises(RegistryError, match=r"/nowhere\.pem"):
            check_store()


@pytest.mark.parametrize("command", ["train", "evaluate", "generalize", "register", "serve"])
def test_a_folder_without_parameters_gets_no_store(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [command])
    assert isinstance(done.exception, ConfigError)
    assert list(tmp_path.iterdir()) == []
