"""A store that cannot be used is one line within seconds, without its password."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from routerr1.errors import RegistryError, StoreUnreachable
from routerr1.tracking.store import check_store, refuse_unusable


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
def test_a_dead_server_is_one_line_within_ten_seconds(
    kind: str, state: str, silent: int, nothing: int, monkeypatch: pytest.MonkeyPatch
):
    port = silent if state == "silent" else nothing
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{kind}me:secret@127.0.0.1:{port}/x")
    started = time.perf_counter()
    with pytest.raises(StoreUnreachable) as caught:
        check_store()
    assert time.perf_counter() - started < 10
    told = str(caught.value)
    assert told.startswith(f"MLFLOW_TRACKING_URI: {kind}127.0.0.1:{port}/x: ")
    assert "\n" not in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("htp://me:secret@host", "'htp' is no kind of store"),
        ("http://me:secret@host:abc", "is no address of a server"),
        ("postgresql://", "is no address of a server"),
        ("mysql://me:secret@host/x", "needs the package MySQLdb"),
        ("/some/folder", "is a folder"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_an_address_that_cannot_be_a_store_is_named(uri: str, problem: str):
    with pytest.raises(RegistryError, match=problem) as caught:
        refuse_unusable(uri)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path):
    (tmp_path / "x.db").write_text("no database" * 100)
    with pytest.raises(RegistryError, match=r"x\.db: cannot be opened \(file is not a database\)"):
        refuse_unusable(f"sqlite:///{tmp_path / 'x.db'}")
