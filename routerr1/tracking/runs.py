"""One MLflow run per execution of the chain, found again through a stage output.

`train` opens the run and writes its id to data/train/run.json; later stages resume that very id. A stage
that DVC restores from its cache runs no process, so nothing may look for "the latest run".
"""

import os
import re
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel

from routerr1 import files
from routerr1.config import RegistryParams
from routerr1.errors import DataError, LockHeld, RegistryError, StoreUnreachable
from routerr1.types import Trajectory

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCKS = Path("runs/locks")
_PROCESS_TAG = "routerr1.process"
_RESTORED_TAG = "routerr1.restored_from"
_MAX_PARAM_CHARS = 6000  # MLflow refuses longer parameter values


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file mlflow.db in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


def open_client() -> "MlflowClient":
    """A client of the tracking store, whose tables are made on first use; also MLflow's default store.

    Raises: RegistryError naming the store if it does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    # A caller reads our own log lines; alembic's list of migrations is not one.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING", "false")
    # Spans to a transaction: by MLflow's five a trace costs half as much again.
    os.environ.setdefault("MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE", "50")
    import mlflow

    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    # Two processes that make the same new tables at once would both fail.
    with store_errors(), acquire_lock("tracking-store"):
        client.search_experiments(max_results=1)
    return client


def acquire_lock(name: str, timeout_s: float = -1) -> AbstractContextManager[object]:
    """Take runs/locks/<name>.lock, held until the end of the `with` it is used in, or of the process.

    Args:
        timeout_s: -1 waits for ever.

    Raises: LockHeld if it is not free in time; RegistryError if the file cannot be made.
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

    Raises: StoreUnreachable, unless the store answers that something is not there.
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
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        missing = getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
        kind = RegistryError if missing else StoreUnreachable
        raise kind(f"MLflow at {redact(tracking_uri())}: {redact(first)}") from error


def redact(text: str) -> str:
    """`text` with user names and passwords taken out of its addresses.

    Up to the last "@" of a word: a password may hold "/" and "@". So may a path, of which the part before
    its "@" is lost then; better that than half a password.

    >>> redact("http://me:se/c@ret@host:5000/")
    'http://host:5000/'
    """
    return re.sub(r"://\S+@", "://", text)


def this_process() -> str:
    """host, pid, start time, kernel: no later process, and none elsewhere, can be mistaken for this one."""
    pid = os.getpid()
    return f"{socket.gethostname()} {pid} {_started(pid)} {_kernel()}"


def _started(pid: int) -> str:
    """When a process began: in ticks of its kernel's life, which setting the clock does not change.

    Raises: psutil.NoSuchProcess.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such process, or no Linux
        return f"{psutil.Process(pid).create_time():.2f}"
    return stat.rpartition(")")[2].split()[19]


def _kernel() -> str:
    """What pids can be compared in: this boot of this machine's kernel and the namespace of its pids.

    A host's name will not do: machines and containers share names, and containers of one machine its boot.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return f"{uuid.getnode():012x}/{psutil.boot_time():.0f}"


def is_gone(process: str) -> bool:
    """True if `process` (from `this_process`) surely is no longer there: one elsewhere never is."""
    _, pid, started, kernel = [*process.split(" "), "", "", "", ""][:4]
    if kernel != _kernel() or not pid.isdigit():
        return False
    try:
        zombie = psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
        return zombie or _started(int(pid)) != started
    except psutil.NoSuchProcess:
        return True


class Run:
    """An open MLflow run; every method raises RegistryError if the store refuses."""

    def __init__(self, client: "MlflowClient", run_id: str, experiment: str) -> None:
        self._client = client
        self.id = run_id
        self._experiment = experiment

    def log_params(self, params: Mapping[str, Any] | BaseModel) -> None:
        """Log a section or mapping, nested keys joined by dots; a value logged before is kept."""
        from mlflow.entities import Param

        nested = params.model_dump(mode="json") if isinstance(params, BaseModel) else params
        with store_errors():
            known = self._client.get_run(self.id).data.params
            new = [
                Param(key, str(value)[:_MAX_PARAM_CHARS])
                for key, value in flatten(nested).items()
                if key not in known
            ]
            for start in range(0, len(new), 100):  # the store's limit for one batch
                self._client.log_batch(self.id, params=new[start : start + 100])

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers, nested keys joined by dots; what is no number (None, text) is left out."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = [
            Metric(key, float(value), now, step or 0)
            for key, value in flatten(metrics).items()
            if isinstance(value, int | float)
        ]
        with store_errors():
            for start in range(0, len(numbers), 1000):
                self._client.log_batch(self.id, metrics=numbers[start : start + 1000])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder with all it holds, into the run.

        Raises: DataError if there is nothing at `path`.
        """
        if not path.exists():
            raise DataError(f"{path}: not found, so it cannot be logged to run {self.id}")
        with store_errors():
            if path.is_dir():
                inside = f"{folder}/{path.name}" if folder else path.name
                self._client.log_artifacts(self.id, str(path), inside)
            else:
                self._client.log_artifact(self.id, str(path), folder)

    def log_dataset(self, path: Path, context: str) -> None:
        """Record DVC-versioned inputs by digest; `context` says their use, e.g. "training".

        A folder of questions is one input per data set, anything else one by its path.
        """
        from routerr1.data.lineage import inputs

        with store_errors():
            self._client.log_inputs(self.id, inputs(path, context))

    def log_traces(
        self,
        played: Sequence[Trajectory],
        tags: Mapping[str, str],
        *,
        sample: int | None = None,
    ) -> None:
        """Log trajectories as traces of this run; see `tracing.log_traces`."""
        from routerr1.tracking.traces import log_traces

        log_traces(played, self._experiment, run_id=self.id, sample=sample, tags=tags)

    def hand_over_traces(self, played: Sequence[Trajectory], tags: Mapping[str, str]) -> None:
        """Log a few trajectories as traces of this run without waiting; see `tracing.hand_over`."""
        from routerr1.tracking.traces import hand_over

        hand_over(played, self._experiment, run_id=self.id, tags=tags)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; an earlier value of the same key is replaced."""
        from mlflow.entities import RunTag

        with store_errors():
            self._client.log_batch(self.id, tags=[RunTag(key, tags[key]) for key in tags])


def flatten(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one level, keys joined by dots.

    >>> flatten({"train": {"steps": 3}, "preset": "ci"})
    {'train.steps': 3, 'profile': 'ci'}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


@contextmanager
def open_run(
    params: RegistryParams, run_file: Path, *, resume: bool, tags: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """Open a run for one stage; it ends FINISHED, FAILED on an exception, KILLED on an interrupt.

    Args:
        run_file: where the run's id stands. Written if `resume` is false, read if it is true.
        resume: log to the run named in `run_file`. A store that does not know it (another machine made
            the stage's outputs) gets one new run, tagged with the id that it stands for.

    A run whose process was killed is left RUNNING; opening the next one marks it KILLED.
    Raises: DataError if `run_file` cannot be read; RegistryError if the store refuses.
    """
    client = open_client()
    with store_errors():
        experiment = _experiment(client, params.experiment)
        _close_killed(client, experiment)
        own = {_PROCESS_TAG: this_process(), **(tags or {})}
        run_id = _resumed(client, experiment, run_file, own) if resume else None
        if run_id is None:
            run_id = client.create_run(experiment, tags=_standard_tags() | own).info.run_id
    if not resume:
        uri = tracking_uri()
        # A SQLite path is this machine's own and says nothing elsewhere.
        shown = "sqlite:///mlflow.db" if uri.startswith("sqlite") else redact(uri)
        files.write_json(run_file, {"run_id": run_id, "tracking_uri": shown})
    monitor = None if resume else _system_metrics(run_id)
    status = "FAILED"
    try:
        yield Run(client, run_id, experiment)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if monitor is not None:
            monitor.finish()
        with store_errors():
            client.set_terminated(run_id, status)


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of the experiment called `name`, made if there is none."""
    with store_errors():
        return _experiment(client, name)


def _experiment(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            # Another process made it between the look and the making.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise RegistryError(f"MLflow experiment {name!r} was deleted; restore it or choose another")
    return str(found.experiment_id)


def _resumed(
    client: "MlflowClient", experiment: str, run_file: Path, tags: Mapping[str, str]
) -> str | None:
    stored = files.read_json(run_file)
    if not isinstance(stored, dict) or not isinstance(stored.get("run_id"), str):
        raise DataError(f"{run_file}: holds no run_id; run the train stage again")
    run_id = _known_run(client, experiment, stored["run_id"])
    if run_id is None:
        restored = {_RESTORED_TAG: stored["run_id"]}
        return str(
            client.create_run(experiment, tags={**_standard_tags(), **restored, **tags}).info.run_id
        )
    client.update_run(run_id, status="RUNNING")
    for key, value in tags.items():
        client.set_tag(run_id, key, value)
    return run_id


def _known_run(client: "MlflowClient", experiment: str, run_id: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(run_id).info.lifecycle_stage == "active":
            return run_id
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    safe = run_id.replace("'", "")
    found = client.search_runs([experiment], f"tags.`{_RESTORED_TAG}` = '{safe}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _close_killed(client: "MlflowClient", experiment: str) -> None:
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if is_gone(run.data.tags.get(_PROCESS_TAG, "")):
            client.set_terminated(run.info.run_id, "KILLED")


def _standard_tags() -> dict[str, str]:
    from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER

    from routerr1.lineage import git_commit, user_name

    tags = {
        MLFLOW_USER: user_name(),
        MLFLOW_SOURCE_NAME: Path(sys.argv[0]).name or "routerr1",
        MLFLOW_SOURCE_TYPE: "LOCAL",
    }
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _system_metrics(run_id: str) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor: Any = SystemMetricsMonitor  # untyped in MLflow
    started = monitor(run_id, tracking_uri=tracking_uri())
    started.start()
    return started
