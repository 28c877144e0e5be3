"""Real servers for tests, on free ports of loopback, each ended by its own `with`."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from routerr1.simulation.candidates import Candidate


def free_port() -> int:
    """A free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(
    command: list[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, the whole of which is ended at the end; output goes to `log`."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            user=user,
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sent)
                process.wait(timeout=20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def until_answers(url: str, log: Path, seconds: float = 240.0) -> None:
    """Wait for a health page."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                pytest.fail(f"{url} does not answer:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)


def write_pool_file(path: Path, url: str, candidates: Iterable[Candidate]) -> Path:
    """A pool file whose simulated candidates answer behind the server at `url`."""
    content = {
        "prices": {"as_of": "2026-11-24", "source": "made up for a test"},
        "endpoints": {"here": {"base_url": f"{url}/v1"}},
        "candidates": [
            {
                "name": each.name,
                "description": each.description,
                "endpoint": "here",
                "model": each.name,
                "prompt_usd_per_mtok": each.prompt_usd_per_mtok,
                "completion_usd_per_mtok": each.completion_usd_per_mtok,
                "context_window": 4096,
            }
            for each in candidates
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with an empty database; gives its address. Skips where there is none."""
    postgres = shutil.which("postgres")
    if postgres is None:
        pytest.skip("PostgreSQL is not installed: no `postgres` in PATH")
    binaries = Path(postgres).resolve().parent
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    port, log = free_port(), folder / "postgres.log"
    # Beside pytest's own folders, which any other run of pytest closes to other users again.
    with tempfile.TemporaryDirectory(prefix="routerr1-postgres-") as data:
        if user is not None:
            shutil.chown(data, user)
        initialise = [str(binaries / "initdb"), "-D", data, "-U", "mlflow", "-A", "trust", "-N"]
        subprocess.run(initialise, check=True, user=user, cwd=data, stdout=subprocess.DEVNULL)
        command = [str(binaries / "postgres"), "-D", data, "-p", str(port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-k", data, "-c", "fsync=off"]
        with running(command, log, user=user, cwd=Path(data)):
            ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
            deadline = time.monotonic() + 60
            while subprocess.run(ready, check=False).returncode:
                if time.monotonic() > deadline:
                    pytest.fail(f"PostgreSQL does not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"


@contextmanager
def mlflow_server(folder: Path, backend: str) -> Iterator[str]:
    """An MLflow tracking server that also keeps the artifacts; gives its address."""
    port, log = free_port(), folder / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": "",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nothing here needs
    }
    with running(command, log, env=settings, cwd=folder):
        until_answers(f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"


def write_certificate(path: Path) -> Path:
    """A certificate of its own for 127.0.0.1, with its key, as a server in a private network has one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of one's own")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server of plain HTTP; gives its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def tls_server(certificate: Path) -> Iterator[str]:
    """A server that answers every GET over TLS; gives its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
