"""One MLflow run per training, which the later stages find by what was trained.

`train` writes a digest of everything that decides its result to data/train/run.json and tags its
run with it. Later stages look the run up by that tag. The file holds no id and no time, so the same
training leaves the same bytes; and a stage that DVC restores from its cache, which starts no
process, still has its run.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from routerr1 import files
from routerr1.config import RegistryParams, flatten
from routerr1.errors import DataError
from routerr1.tracking import traces
from routerr1.tracking.store import (
    experiment_id,
    is_gone,
    open_client,
    store_errors,
    this_process,
    tracking_uri,
)
from routerr1.types import Trajectory

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRAINING_TAG = "routerr1.training"
"""Tag of a run: the digest in data/train/run.json."""

_PROCESS_TAG = "routerr1.process"
_RESTORED_TAG = "routerr1.restored"
_MAX_PARAM_CHARS = 6000  # MLflow refuses longer parameter values


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
        """Log numbers, nested keys joined by dots; other values (None, text) are left out."""
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
        """Copy a file, or a folder with everything in it, into the run.

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
        """Record DVC-versioned inputs by digest.

        A folder of questions is one input per data set; anything else is one input.

        Args:
            context: the use of the data, e.g. "training".
        """
        from routerr1.data.lineage import inputs

        with store_errors():
            self._client.log_inputs(self.id, inputs(path, context))

    def log_traces(
        self,
        trajectories: Sequence[Trajectory],
        tags: Mapping[str, str],
        *,
        sample: int | None = None,
    ) -> None:
        """Log trajectories as traces of this run; see `traces.log_traces`."""
        traces.log_traces(trajectories, self._experiment, run_id=self.id, sample=sample, tags=tags)

    def hand_over_traces(self, trajectories: Sequence[Trajectory], tags: Mapping[str, str]) -> None:
        """Log a few trajectories as traces of this run without waiting; see `traces.hand_over`."""
        traces.hand_over(trajectories, self._experiment, run_id=self.id, tags=tags)


@contextmanager
def new_run(
    params: RegistryParams,
    run_file: Path,
    training: str,
    *,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Open a run for a training; it ends FINISHED, FAILED on an exception, KILLED on an interrupt.

    A run whose process was killed stays RUNNING until the next run is opened, which marks it
    KILLED.

    Args:
        run_file: where later stages read `training`.
        training: digest of everything that decides what is trained.
        name: shown in MLflow's lists; None leaves the choice to MLflow.

    Raises: RegistryError if the store refuses.
    """
    client, experiment = _open(params)
    with store_errors():
        own = {TRAINING_TAG: training, _PROCESS_TAG: this_process(), **(tags or {})}
        created = client.create_run(experiment, tags=_standard_tags() | own, run_name=name)
    run_id = str(created.info.run_id)
    files.write_json(run_file, {"training": training})
    monitor = _system_metrics(run_id)
    try:
        with _until_the_end(client, run_id):
            yield Run(client, run_id, experiment)
    finally:
        monitor.finish()


@contextmanager
def resume_run(
    params: RegistryParams, run_file: Path, *, tags: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """Reopen the last run of the training that `run_file` names; it ends as `new_run` says.

    A store without such a run, because another machine trained, gets one with the tag
    `routerr1.restored`.

    Raises: DataError if `run_file` cannot be read; RegistryError if the store refuses.
    """
    training = read_training(run_file)
    client, experiment = _open(params)
    own = {_PROCESS_TAG: this_process(), **(tags or {})}
    with store_errors():
        run_id = find_run(client, experiment, training)
        if run_id is None:
            restored = {TRAINING_TAG: training, _RESTORED_TAG: "true"}
            all_tags = _standard_tags() | restored | own
            name = f"restored {training[:7]}"
            run_id = str(client.create_run(experiment, tags=all_tags, run_name=name).info.run_id)
        else:
            client.update_run(run_id, status="RUNNING")
            for key, value in own.items():
                client.set_tag(run_id, key, value)
    with _until_the_end(client, run_id):
        yield Run(client, run_id, experiment)


@contextmanager
def _until_the_end(client: "MlflowClient", run_id: str) -> Iterator[None]:
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with store_errors():
            client.set_terminated(run_id, status)


def _open(params: RegistryParams) -> tuple["MlflowClient", str]:
    """The store and the experiment, in which runs of killed processes are marked."""
    client = open_client()
    experiment = experiment_id(client, params.experiment)
    with store_errors():
        for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            if is_gone(run.data.tags.get(_PROCESS_TAG, "")):
                client.set_terminated(run.info.run_id, "KILLED")
    return client, experiment


def read_training(run_file: Path) -> str:
    """The digest of the training in the workspace.

    Raises: DataError if `run_file` cannot be read or holds none.
    """
    stored = files.read_json(run_file)
    if not isinstance(stored, dict) or not isinstance(stored.get("training"), str):
        raise DataError(f"{run_file}: holds no training; run the train stage again")
    return str(stored["training"])


def find_run(client: "MlflowClient", experiment: str, training: str) -> str | None:
    """The id of the last run of a training, or None."""
    safe = training.replace("'", "")
    found = client.search_runs(
        [experiment],
        f"tags.`{TRAINING_TAG}` = '{safe}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None


def _standard_tags() -> dict[str, str]:
    from mlflow.utils.mlflow_tags import (
        MLFLOW_GIT_COMMIT,
        MLFLOW_SOURCE_NAME,
        MLFLOW_SOURCE_TYPE,
        MLFLOW_USER,
    )

    from routerr1.lineage import known_commit, user_name

    tags = {
        MLFLOW_USER: user_name(),
        MLFLOW_SOURCE_NAME: Path(sys.argv[0]).name or "routerr1",
        MLFLOW_SOURCE_TYPE: "LOCAL",
    }
    commit = known_commit()
    return tags | ({MLFLOW_GIT_COMMIT: commit} if commit else {})


def _system_metrics(run_id: str) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor: Any = SystemMetricsMonitor  # untyped in MLflow
    started = monitor(run_id, tracking_uri=tracking_uri())
    started.start()
    return started
