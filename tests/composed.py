"""The services of compose.yaml as plain processes, on free ports of loopback and over databases of a test."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml

from tests.clone import environment
from tests.servers import free_port, postgresql, running, until_answers

_FILE = Path(__file__).parents[1] / "compose.yaml"
_DATABASE = "postgresql+{driver}://routerr1:${{POSTGRES_PASSWORD}}@postgres/{name}"
_SERVERS = {"mlflow": "5000", "prefect": "4200", "gateway": "8080"}


@dataclass(frozen=True)
class Composed:
    """The file with other ports, databases and folders; nothing else of a command is changed.

    Attributes:
        ports: of every server, by service.
        clone: the workspace that is mounted.
        logs: folder for what the processes print.
    """

    services: Mapping[str, Mapping[str, object]]
    ports: Mapping[str, int]
    clone: Path
    logs: Path

    def url(self, name: str) -> str:
        """Address of a server."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def command(self, name: str) -> list[str]:
        """What a service runs."""
        words = self.services[name]["command"]
        assert isinstance(words, list)
        return [str(word) for word in words]

    def variables(self, name: str) -> dict[str, str]:
        """Environment of a service."""
        found = self.services[name].get("environment", {})
        assert isinstance(found, dict)
        own = {str(key): str(value) for key, value in found.items()}
        return {**environment(self.clone), **own}

    def folder(self, name: str) -> Path:
        """Where a service runs: in the workspace, if it is mounted."""
        mounted = self.services[name].get("volumes", [])
        assert isinstance(mounted, list)
        return self.clone if ".:/workspace" in mounted else self.logs

    def run(self, name: str) -> str:
        """Run a service that ends; what it printed."""
        done = subprocess.run(
            self.command(name), cwd=self.folder(name), env=self.variables(name),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str, *more: str) -> AbstractContextManager[object]:
        """A service while the block runs, with further options."""
        command = [*self.command(name), *more]
        log = self.logs / f"{name}.log"
        return running(command, log, env=self.variables(name), cwd=self.folder(name))

    def until_healthy(self, name: str) -> None:
        """Wait for the page of the service's own health check."""
        check = self.services[name]["healthcheck"]
        assert isinstance(check, dict)
        until_answers(check["test"][-1], self.logs / f"{name}.log")


@contextmanager
def composed(clone: Path, logs: Path) -> Iterator[Composed]:
    """Read the file, with databases in PostgreSQL, or in SQLite where that is not installed."""
    ports = {name: free_port() for name in _SERVERS}
    with ExitStack() as stack:
        addresses = stack.enter_context(_databases(logs))
        text = _FILE.read_text(encoding="utf-8")
        changes = {
            **addresses,
            "=/artifacts": f"={logs / 'artifacts'}",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={ports['mlflow']}",
            "--port=4200": f"--port={ports['prefect']}",
            "[routerr1, serve, --host=0.0.0.0]": f"[routerr1, serve, --host=0.0.0.0, --port={ports['gateway']}]",
            "${ROUTERR1_WEBHOOK_SECRET:-}": "",
        }
        for name, port in _SERVERS.items():
            for host in {name, "127.0.0.1"}:
                changes[f"{host}:{port}"] = f"127.0.0.1:{ports[name]}"
        del changes[f"gateway:{_SERVERS['gateway']}"]  # is named nowhere
        for old in changes:
            assert old in text, f"{_FILE.name} does not hold {old!r}"
        yield Composed(yaml.safe_load(replaced(text, changes))["services"], ports, clone, logs)


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """`text` with all changes made at once: a free port may begin with the digits of another change."""
    return re.sub("|".join(map(re.escape, changes)), lambda found: changes[found[0]], text)


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, str]]:
    """From the addresses in the file to those of databases that are there."""
    theirs = {
        name: _DATABASE.format(driver=driver, name=name)
        for name, driver in {"mlflow": "psycopg2", "prefect": "asyncpg"}.items()
    }
    theirs["routerr1"] = "postgresql://routerr1:${POSTGRES_PASSWORD}@postgres/routerr1"
    if shutil.which("postgres") is None or find_spec("psycopg2") is None:
        yield {
            theirs["mlflow"]: f"sqlite:///{folder / 'mlflow.db'}",
            theirs["prefect"]: f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
            theirs["routerr1"]: f"sqlite:///{folder / 'serve.sqlite'}",
        }
        return
    with postgresql(folder) as address:
        import psycopg2

        with closing(psycopg2.connect(address)) as opened:
            opened.autocommit = True
            for name in theirs:
                opened.cursor().execute(f"CREATE DATABASE {name}")
        server = address.removeprefix("postgresql://").removesuffix("/postgres")
        yield {old: f"{old.partition('://')[0]}://{server}/{name}" for name, old in theirs.items()}
