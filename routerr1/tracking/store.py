"""The MLflow store: its address, its client, its errors, and the processes that use it.

Light commands import this module, so MLflow is imported inside the functions that need it.
"""

import os
import re
import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
from filelock import FileLock, Timeout

from routerr1.errors import LockHeld, RegistryError, StoreUnreachable
from routerr1.files import project_folder
from routerr1.tracking.relocate import ARTIFACTS, relocate

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCKS = Path("runs/locks")
_SQLITE = "sqlite:///"
# Modules that SQLAlchemy loads for a database whose address names no driver.
_DRIVERS = {"postgresql": "psycopg2", "mysql": "MySQLdb", "mssql": "pyodbc"}
_LIBPQ = ("psycopg2", "psycopg")
_MAX_ERROR_CHARS = 600
_SECRET_PARAMETER = re.compile(r"([?&]\w*(?:pass|pwd|token|key|secret)\w*=)[^&\s]*", re.IGNORECASE)
_ANSWER_S = 8  # a busy server takes several; MLflow itself would try for minutes


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file mlflow.db in the project folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{project_folder() / 'mlflow.db'}"


def local_database() -> Path | None:
    """The SQLite file of the store, or None if the store is a server."""
    uri = tracking_uri()
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None


def open_client() -> "MlflowClient":
    """A client of the tracking store, which also becomes MLflow's default store.

    The tables are made on first use. Artifact paths of a store that was moved or copied are adjusted
    to its present folder.

    Raises: RegistryError naming the store if it does not answer, or both folders if the artifacts
        were left behind in a folder that is gone.
    """
    uri = tracking_uri()
    refuse_unusable(uri)
    import mlflow

    # Two processes that make the same new tables at once would both fail.
    with store_errors(), file_lock("tracking-store"):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = mlflow.MlflowClient(uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        if (database := local_database()) is not None:
            # SQLite takes one writer at a time: on a busy machine several would lock each other out.
            os.environ.setdefault("MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS", "1")
            relocate(database)
    return client


def check_store() -> None:
    """Find out whether the store can be used, before work that is logged there is done or paid.

    Raises: what `refuse_unusable` raises.
    """
    refuse_unusable(tracking_uri())


def refuse_unusable(uri: str) -> None:
    """Refuse a store that MLflow cannot open, before MLflow tries to for minutes.

    Raises: RegistryError naming the store without its password, and the remedy; StoreUnreachable if
        its server does not answer within some seconds.
    """
    scheme = (
        uri.partition("://")[0] if "://" in uri else uri.partition(":")[0] if ":" in uri else ""
    )
    database, _, driver = scheme.partition("+")
    shown = f"MLFLOW_TRACKING_URI: {redact(uri)}"
    if database == "sqlite":
        _refuse_sqlite(uri, shown)
    elif database in _DRIVERS:
        module = driver or _DRIVERS[database]
        if find_spec(module) is None:
            raise RegistryError(f"{shown}: needs the package {module}, which is not installed")
        _refuse_address(uri, shown)
        _refuse_dead_database(
            uri, shown, {"connect_timeout": _ANSWER_S} if module in _LIBPQ else {}
        )
    elif scheme in ("http", "https"):
        _refuse_address(uri, shown)
        _refuse_dead_server(uri, shown)
    elif scheme in ("", "file"):
        raise RegistryError(
            f"{shown}: is a folder, which MLflow 3 does not take as a store; use sqlite:///mlflow.db"
        )
    elif scheme not in ("databricks", "uc"):
        raise RegistryError(
            f"{shown}: {scheme!r} is no kind of store; use sqlite, postgresql, http or https"
        )


def _refuse_sqlite(uri: str, shown: str) -> None:
    if "?" in str(project_folder()) and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise RegistryError(
            f"{project_folder()}: a folder with a ? in its name cannot hold MLflow's store; rename the folder"
        )
    path = Path(uri.partition("://")[2].removeprefix("/").partition("?")[0])
    if path.name in ("", ":memory:"):
        raise RegistryError(f"{shown}: names no file; use sqlite:///mlflow.db")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=5)) as opened:
            opened.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
    except (sqlite3.DatabaseError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RegistryError(f"{shown}: cannot be opened ({reason})") from None


def _refuse_address(uri: str, shown: str) -> None:
    try:
        parts = urlsplit(uri)
        usable = parts.port != 0 and bool(parts.hostname or "host=" in parts.query)
    except ValueError:
        usable = False
    if not usable:
        raise RegistryError(f"{shown}: is no address of a server")


def _refuse_dead_database(uri: str, shown: str, options: dict[str, int]) -> None:
    import sqlalchemy as sa

    try:
        engine = sa.create_engine(uri, connect_args=options)
        engine.connect().close()
        engine.dispose()
    except sa.exc.SQLAlchemyError as error:
        raise StoreUnreachable(
            f"{shown}: cannot be opened ({redact(_in_one_line(error))})"
        ) from None


def _refuse_dead_server(uri: str, shown: str) -> None:
    import requests

    try:
        # Any answer will do: an address that is not MLflow's is told by MLflow's own error.
        requests.get(
            f"{uri.rstrip('/')}/health", timeout=_ANSWER_S, allow_redirects=False,
            verify=_verify(), cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        )  # fmt: skip
    except requests.Timeout:
        raise StoreUnreachable(
            f"{shown}: no answer within {_ANSWER_S:g} s; is it running?"
        ) from None
    except requests.exceptions.SSLError as error:
        found = re.search(r"certificate verify failed: ([^(]+?) \(", str(error))
        raise RegistryError(
            f"{shown}: its certificate is not trusted "
            f"({found[1] if found else redact(_in_one_line(error))}); set MLFLOW_TRACKING_SERVER_CERT_PATH "
            "to the file of its CA"
        ) from None
    except requests.RequestException as error:
        words = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
        why = words[1] if words else redact(_in_one_line(error))
        raise StoreUnreachable(f"{shown}: does not answer ({why}); is it running?") from None
    except OSError as error:  # of a file of certificates
        raise RegistryError(f"{shown}: {_in_one_line(error)}") from None


def _verify() -> bool | str:
    """How a server's certificate is checked, by the variables that MLflow's own client reads."""
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of the experiment `name`, which is created if it does not exist.

    Raises: RegistryError if the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    with store_errors():
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=_artifacts_of(name)))
            except MlflowException as error:
                # Another process created it between the lookup and the creation.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise RegistryError(f"MLflow experiment {name!r} was deleted; restore it or choose another")
    return str(found.experiment_id)


def _artifacts_of(experiment: str) -> str | None:
    """A folder beside a local database; None leaves the choice to a server."""
    database = local_database()
    if database is None:
        return None
    folder = database.parent / ARTIFACTS / re.sub(r"[^\w.-]", "_", experiment)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


def file_lock(name: str, timeout_s: float = -1) -> AbstractContextManager[object]:
    """Take runs/locks/<name>.lock until the end of the `with` block.

    The operating system frees the lock when the process ends, however it ends.

    Args:
        timeout_s: -1 waits without limit.

    Raises: LockHeld if the lock is not free in time; RegistryError if the file cannot be made.
    """
    path = LOCKS / f"{name}.lock"
    try:
        LOCKS.mkdir(parents=True, exist_ok=True)
        return FileLock(path).acquire(timeout=timeout_s)
    except Timeout:
        raise LockHeld(f"{path}: another process has held it for {timeout_s:.0f} s") from None
    except OSError as error:
        raise RegistryError(f"{path}: cannot be used as a lock ({error.strerror})") from None


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what MLflow raises into RegistryError, one line that names the store.

    Raises: StoreUnreachable, unless the store answers that something does not exist.
    """
    import mlflow.exceptions
    import requests
    import sqlalchemy.exc

    try:
        yield
    except (
        mlflow.exceptions.MlflowException,
        requests.RequestException,
        sqlalchemy.exc.SQLAlchemyError,
    ) as error:
        missing = getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
        kind = RegistryError if missing else StoreUnreachable
        raise kind(f"MLflow at {redact(tracking_uri())}: {redact(_in_one_line(error))}") from error


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines) or type(error).__name__
    return text if len(text) <= _MAX_ERROR_CHARS else f"{text[:_MAX_ERROR_CHARS]} ..."


def redact(text: str) -> str:
    """`text` without the user names, passwords and secret parameters of the addresses in it.

    Everything up to the last "@" of a word is removed, because a password may hold "/" and "@". A path
    with an "@" loses its first part as well.

    >>> redact("http://me:se/c@ret@host:5000/")
    'http://host:5000/'
    >>> redact("postgresql://host/x?user=me&password=s%20cret&connect_timeout=3")
    'postgresql://host/x?user=me&password=&connect_timeout=3'
    """
    return _SECRET_PARAMETER.sub(r"\1", re.sub(r"://\S+@", "://", text))


def this_process() -> str:
    """Host, pid, start time and kernel: an identity that no other process shares, then or later."""
    pid = os.getpid()
    return f"{socket.gethostname()} {pid} {_started(pid)} {_kernel()}"


def _started(pid: int) -> str:
    """When a process began, in kernel ticks, which a change of the clock does not affect.

    Raises: psutil.NoSuchProcess.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such process, or no Linux
        return f"{psutil.Process(pid).create_time():.2f}"
    return stat.rpartition(")")[2].split()[19]


def _kernel() -> str:
    """The scope in which pids are comparable: the boot of a kernel and a pid namespace.

    A host name does not identify it: machines and containers share names, and the containers of one
    machine share its boot.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return f"{uuid.getnode():012x}/{psutil.boot_time():.0f}"


def is_gone(process: str) -> bool:
    """True if `process` (from `this_process`) has certainly ended; never true of another kernel's."""
    _, pid, started, kernel = [*process.split(" "), "", "", "", ""][:4]
    if kernel != _kernel() or not pid.isdigit():
        return False
    try:
        zombie = psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
        return zombie or _started(int(pid)) != started
    except psutil.NoSuchProcess:
        return True
