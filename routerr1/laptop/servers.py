"""Start and end the servers of a pool file on this machine.

Every server is a process of its own, which outlives the command that started it. A small file for each
holds its process id and start time, so that an id that the system gave to another process is never
mistaken for a server.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
import psutil

from routerr1.errors import PoolError
from routerr1.laptop.weights import check_weights
from routerr1.pool.pool_file import PoolFile
from routerr1.pool.servers import Servers

STATE = Path("runs/servers")
START_S = 300.0  # a model that loads longer than this is given up
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was started, and when (seconds since 1970): the id alone may be used again."""

    pid: int
    started: float

    def find(self) -> psutil.Process | None:
        """The process if it runs."""
        try:
            process = psutil.Process(self.pid)
            alive = (
                process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


@dataclass(frozen=True, slots=True)
class ServerState:
    """What `up` or `down` found or did of one server.

    Attributes:
        did: `started`, `was up` or `ended`; `was down` of a server that `down` had nothing to end.
        memory_mb: resident memory once it answers.
    """

    name: str
    did: Literal["started", "was up", "ended", "was down"]
    pid: int | None
    address: str
    log: Path
    memory_mb: float | None = None


def up(
    file: PoolFile,
    models: Path | None,
    *,
    only: Sequence[str] = (),
    state: Path = STATE,
    start_s: float = START_S,
) -> list[ServerState]:
    """Start the servers of `file` that are not up, and wait until each answers.

    A server whose process runs and answers is left alone; one whose process was killed or does not
    answer is started again.

    Args:
        models: folder of the GGUF files; None where no chosen server needs one.
        only: names of servers; all if empty.
        state: where process ids and logs are kept, in a folder named for the pool file.
        start_s: longest wait for one server, in seconds.

    Raises: PoolError for a wrong name, missing or other weights, a port in use, a server elsewhere that
        does not answer, or one that does not come up; servers that are up by then stay up.
    """
    servers = servers_of(file)
    names = chosen(file, servers, only)
    folder = state / file.path.stem
    folder.mkdir(parents=True, exist_ok=True)
    if any(name in servers.models for name in names) and find_spec("xllamacpp") is None:
        raise PoolError(
            "xllamacpp is not installed; install the extra: pip install 'routerr1[laptop]'"
        )
    # All weights first: a missing file is found before anything runs.
    weights = {
        name: check_weights(servers.models[name], _folder(models))
        for name in names
        if name in servers.models
    }
    for name in names:
        for desk in servers.desks[name].desks.values() if name in servers.desks else ():
            if desk.model in servers.elsewhere:
                _require_answer(file, desk.model)
    starting: dict[str, Process] = {}
    for name in names:
        process = _read(folder / f"{name}.json")
        if process is not None and process.find() is not None:
            if _answers(file, name):
                continue
            _end(process)
        _refuse_taken_port(file, name)
        command = (
            _model_command(file, servers, name, weights[name])
            if name in servers.models
            else ["routerr1.laptop.desks", str(file.path), name]
        )
        starting[name] = _start(command, folder, name)
    for name, process in starting.items():
        _wait(file, name, process, folder / f"{name}.log", start_s)
    return [
        _state(file, name, folder, "started" if name in starting else "was up") for name in names
    ]


def down(file: PoolFile, *, only: Sequence[str] = (), state: Path = STATE) -> list[ServerState]:
    """End the servers of `file` that `up` started.

    Raises: PoolError for a wrong name in `only`.
    """
    folder = state / file.path.stem
    found = []
    # Desks first: they ask the others.
    for name in reversed(chosen(file, servers_of(file), only)):
        path = folder / f"{name}.json"
        process = _read(path)
        alive = process is not None and process.find() is not None
        if process is not None and alive:
            _end(process)
        path.unlink(missing_ok=True)
        found.append(
            ServerState(
                name,
                "ended" if alive else "was down",
                process.pid if process else None,
                file.endpoints[name].base_url,
                folder / f"{name}.log",
            )
        )
    return found


def running(file: PoolFile, *, state: Path = STATE) -> bool:
    """True if a server of `file` that `up` started still runs; of one that was killed, the others count."""
    folder = state / file.path.stem
    names = file.servers.names if file.servers is not None else ()
    found = [_read(folder / f"{name}.json") for name in names]
    return any(process is not None and process.find() is not None for process in found)


def servers_of(file: PoolFile) -> Servers:
    """The servers section.

    Raises: PoolError if the file has none.
    """
    if file.servers is None:
        raise PoolError(
            f"{file.path}: has no `servers` section, so there is nothing to start or end"
        )
    return file.servers


def chosen(file: PoolFile, servers: Servers, only: Sequence[str]) -> list[str]:
    """The names in `only`, or all, in the order in which they start.

    Raises: PoolError naming a server that the file does not have.
    """
    for name in only:
        if name not in servers.names:
            raise PoolError(
                f"{file.path}: there is no server {name!r}; servers: {', '.join(servers.names)}"
            )
    return [name for name in servers.names if not only or name in only]


def _model_command(file: PoolFile, servers: Servers, name: str, weights: Path) -> list[str]:
    server = servers.models[name]
    host, port = _address(file, name)
    return [
        "routerr1.laptop.llama", str(weights), "--host", host, "--port", str(port),
        "--slots", str(server.slots), "--context-tokens", str(server.context_tokens),
        "--threads", str(server.threads),
    ]  # fmt: skip


def _start(module: list[str], folder: Path, name: str) -> Process:
    with (folder / f"{name}.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", *module],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
            ],
            setsid=True,  # Ctrl-C in the terminal ends the command, not its servers
        )
    process = Process(pid, psutil.Process(pid).create_time())
    (folder / f"{name}.json").write_text(json.dumps(asdict(process)) + "\n", encoding="utf-8")
    return process


def _read(path: Path) -> Process | None:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return Process(int(row["pid"]), float(row["started"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise PoolError(f"{path}: is damaged; end the server by hand and delete the file") from None


def _end(process: Process) -> None:
    found = process.find()
    if found is None:
        return
    found.terminate()
    try:
        found.wait(STOP_S)
    except psutil.TimeoutExpired:
        found.kill()
        found.wait(STOP_S)


def _wait(file: PoolFile, name: str, process: Process, log: Path, start_s: float) -> None:
    end = time.monotonic() + start_s
    while not _answers(file, name):
        if process.find() is None:
            raise PoolError(
                f"{file.path}: server {name!r} ended while it started; its log is {log}"
            )
        if time.monotonic() > end:
            raise PoolError(
                f"{file.path}: server {name!r} does not answer within {start_s:g} s; its log is {log}"
            )
        time.sleep(0.2)


def _answers(file: PoolFile, name: str) -> bool:
    host, port = _address(file, name)
    try:
        return httpx.get(f"http://{host}:{port}/health", timeout=10.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _folder(models: Path | None) -> Path:
    if models is None:
        raise PoolError("--models: name the folder of the GGUF files")
    return models


def _require_answer(file: PoolFile, name: str) -> None:
    url = file.endpoints[name].base_url
    try:
        httpx.get(
            f"{url}/models", timeout=10.0, trust_env=False
        )  # of any status: a server is there
    except httpx.TransportError as error:
        raise PoolError(
            f"{file.path}: server {name!r} is elsewhere and does not answer at {url} "
            f"({type(error).__name__}); start it first"
        ) from None


def _refuse_taken_port(file: PoolFile, name: str) -> None:
    if _answers(file, name):
        raise PoolError(
            f"{file.path}: another process answers at {file.endpoints[name].base_url}; end it, or "
            f"change the address of endpoint {name!r}"
        )


def _address(file: PoolFile, name: str) -> tuple[str, int]:
    parts = urlsplit(file.endpoints[name].base_url)
    assert parts.hostname is not None  # Endpoint sees to it
    return parts.hostname, parts.port or 80


def _state(
    file: PoolFile, name: str, folder: Path, did: Literal["started", "was up"]
) -> ServerState:
    process = _read(folder / f"{name}.json")
    found = process.find() if process else None
    return ServerState(
        name,
        did,
        found.pid if found else None,
        file.endpoints[name].base_url,
        folder / f"{name}.log",
        found.memory_info().rss / 1e6 if found else None,
    )
