"""Versions of the policy in MLflow's registry: one per state of the outputs, verified file by file.

A version is a pyfunc model that holds the checkpoint, the cards it was trained with, the parameters, and the
samples it is judged by. `promotion.py` decides which version is champion.
"""

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1 import files, lineage
from routerr1.config import Params
from routerr1.errors import CheckpointError, NoSuchVersion, RegistryError, StoreUnreachable
from routerr1.registry import contents, evidence
from routerr1.registry.contents import KEY_TAG, Outputs, State
from routerr1.registry.lock import registry_lock
from routerr1.registry.samples import Evidence
from routerr1.tracking.runs import find_run, read_training, resume_run
from routerr1.tracking.store import (
    experiment_id,
    file_lock,
    is_gone,
    open_client,
    store_errors,
    this_process,
)
from routerr1.train.checkpoint import MANIFEST, read_manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
_MODEL_ID, _CONTEXT, _PROCESS = "routerr1.model_id", "routerr1.context", "routerr1.process"
REPORTS = Path("runs/reports")
_ABOUT = "Routers of questions over a pool of models, trained policies or others. The gate decides which one is champion."
_ABANDONED_S = 7 * 86400.0  # after this an upload of another machine counts as dead

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version.

    Attributes:
        tags: lineage, training, metrics and the gate's verdict; see `contents.tags_of`.
        created_s: seconds since 1970.
    """

    name: str
    number: int
    aliases: tuple[str, ...]
    run_id: str | None
    model_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    created_s: float = 0.0
    description: str = ""


def register(
    params: Params, outputs: Outputs | None = None, *, router: str | None = None
) -> Version:
    """Register the outputs of the stages as a version with the alias challenger.

    The same state (git commit, dvc.lock, uncommitted changes) is one version, however often it is registered.
    What a killed call left behind is removed first. A version with broken or missing files is never changed;
    its state is registered again beside it.

    Args:
        router: see `contents.router_to_register`. Each router of one state is a version of its own.

    Raises: RegistryError if the outputs differ from dvc.lock or change meanwhile, if the logged model is not
        READY or a file differs from its manifest, or if the state's version is champion and broken;
        CheckpointError, DataError for outputs that cannot be used.
    """
    made_of = outputs or Outputs()
    _refuse_stale_outputs()
    chosen = contents.router_to_register(params, made_of, router)
    judged_by = contents.evidence_of(params, made_of, chosen)
    client = open_client()
    name = params.registry.model
    with file_lock(f"{name}.register", timeout_s=1800):
        experiment = experiment_id(client, params.registry.experiment)
        tags = contents.tags_of(
            params, made_of, judged_by, _train_hours(client, experiment, made_of.run_file)
        )
        with store_errors():
            remove_abandoned(client, name, experiment)
        known = _of_state(client, name, tags)
        found = _first_whole(client, known)
        if found is None:
            model_id = _log_model(client, params, made_of, judged_by, tags)
            _refuse_another_state(tags, chosen)
            found = _create_version(client, name, model_id, tags, known)
        with registry_lock(client, name), store_errors():
            if CHAMPION not in found.aliases:
                client.set_registered_model_alias(name, CHALLENGER, str(found.number))
    return get_version(client, name, found.number)


def _refuse_stale_outputs() -> None:
    behind = lineage.changed_stages()
    files = [name.removesuffix(".dvc") for name in behind if name.endswith(".dvc")]
    if files:  # `dvc repro` leaves these as they are
        raise RegistryError(
            f"{', '.join(files)}: changed since `dvc add`; run `dvc add {' '.join(files)}`, then `dvc repro`"
        )
    if behind:
        raise RegistryError(
            f"{lineage.DVC_LOCK}: does not describe the outputs of {', '.join(behind)}; run `dvc repro`"
        )


def _refuse_another_state(tags: Mapping[str, str], router: str) -> None:
    """The outputs are not locked, so a stage may have rewritten them while they were copied."""
    _refuse_stale_outputs()
    if contents.key_of(State.now(), router) != tags[KEY_TAG]:
        raise RegistryError(
            f"{lineage.DVC_LOCK}: the outputs changed while they were registered; register again"
        )


def _train_hours(client: "MlflowClient", experiment: str, run_file: Path) -> float | None:
    """Hours of training, from the run that trained; None if this store does not know it."""
    with store_errors():
        run_id = find_run(client, experiment, read_training(run_file))
        found = client.get_run(run_id).data.metrics if run_id is not None else {}
    return found.get("train_hours")


def _log_model(
    client: "MlflowClient",
    params: Params,
    outputs: Outputs,
    judged_by: Evidence,
    tags: Mapping[str, str],
) -> str:
    """Log the pyfunc model to the run that trained it; returns its id once it is READY and whole."""
    import mlflow

    package = Path(__file__).parents[1]
    with (
        resume_run(params.registry, outputs.run_file) as run,
        contents.packed(params, outputs, judged_by, tags) as folders,
    ):
        with store_errors(), _active(run.id), warnings.catch_warnings():
            # MLflow warns of its own type hints when it is imported.
            warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType")
            from routerr1.registry import serving

            own = {_PROCESS: this_process(), _CONTEXT: files.sha256(folders["context"] / MANIFEST)}
            logged = mlflow.pyfunc.log_model(
                name=params.registry.model,
                python_model=str(package / "registry" / "serving.py"),
                artifacts={name: str(folder) for name, folder in folders.items()},
                code_paths=[str(package)],
                model_config=serving.SETTINGS,
                pip_requirements=serving.requirements(),
                tags={**tags, **own},
            )
        if "report" in folders:
            run.log_artifact(folders["report"])
    model_id = str(logged.model_id)
    verify(client, model_id)
    return model_id


@contextmanager
def _active(run_id: str) -> Iterator[None]:
    """Make a run the one that MLflow's fluent functions log to, without ending it."""
    import mlflow

    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        yield


def verify(client: "MlflowClient", model_id: str) -> None:
    """Check that a logged model is READY, and that checkpoint and context equal their manifests.

    A killed log leaves a model that is PENDING and partly copied, and MLflow would register it.
    Raises: RegistryError naming the model and what is wrong with it.
    """
    with store_errors():
        logged = client.get_logged_model(model_id)
    if str(logged.status) != "READY":
        raise RegistryError(
            f"logged model {model_id}: is {logged.status}, not READY; register again"
        )
    with _verified(model_id, "artifacts/policy"):
        pass
    with _context(model_id, logged.tags.get(_CONTEXT)):
        pass


@contextmanager
def _verified(model_id: str, path: str) -> Iterator[Path]:
    """A local copy of a folder of a logged model, verified against the manifest in it."""
    with fetched(model_id, path) as folder:
        try:
            read_manifest(folder)
        except CheckpointError as error:
            # The advice of the message is for a folder of the workspace.
            reason = str(error).replace(str(folder), path).partition("; ")[0]
            raise RegistryError(f"logged model {model_id}: {reason}") from None
        yield folder


@contextmanager
def _context(model_id: str, digest: str | None) -> Iterator[Path]:
    """A local copy of a model's context, if its manifest still has this digest."""
    with _verified(model_id, "artifacts/context") as folder:
        if files.sha256(folder / MANIFEST) != digest:
            raise RegistryError(f"logged model {model_id}: artifacts/context was changed")
        yield folder


@contextmanager
def fetched(model_id: str, path: str) -> Iterator[Path]:
    """A local copy of the artifact `path` of a logged model.

    Raises: RegistryError if the model lacks it; StoreUnreachable if the store cannot tell.
    """
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as temporary:
        with store_errors():
            root = open_client().get_logged_model(model_id).artifact_location
            try:
                found = download_artifacts(artifact_uri=f"{root}/{path}", dst_path=temporary)
            except Exception as error:
                model = f"logged model {model_id}: "
                if _says_missing(error):
                    raise RegistryError(f"{model}lacks {path}") from None
                if isinstance(error, OSError) and error.strerror:
                    raise StoreUnreachable(
                        f"{model}{path} cannot be read ({error.strerror})"
                    ) from None
                raise
        yield Path(found)


def _says_missing(error: Exception) -> bool:
    """True if the store answered that something does not exist, false if it could not answer."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")
    if isinstance(error, requests.RequestException):
        answer = error.response
        return answer is not None and answer.status_code == requests.codes.not_found
    return isinstance(error, FileNotFoundError)


def _create_version(
    client: "MlflowClient",
    name: str,
    model_id: str,
    tags: Mapping[str, str],
    known: Sequence[Version],
) -> Version:
    """Make the logged model a version, unless its state was registered since `known` was read."""
    from mlflow.exceptions import MlflowException

    with store_errors():
        logged = client.get_logged_model(model_id)
    own = {**tags, _MODEL_ID: model_id, _CONTEXT: logged.tags[_CONTEXT]}
    with registry_lock(client, name) as lease, store_errors():
        try:
            client.create_registered_model(name, description=_ABOUT)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        before = {version.number for version in known}
        meanwhile = [v for v in _of_state(client, name, tags) if v.number not in before]
        if meanwhile:
            client.delete_logged_model(model_id)
            return meanwhile[0]
        lease.check()
        made = client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=logged.source_run_id,
            tags=own,
            description=contents.description_of(tags),
            model_id=model_id,
        )
        return _version(made)


def _of_state(client: "MlflowClient", name: str, tags: Mapping[str, str]) -> list[Version]:
    """The versions of one state, newest first."""
    return [
        found for found in list_versions(client, name) if found.tags.get(KEY_TAG) == tags[KEY_TAG]
    ]


def _first_whole(client: "MlflowClient", versions: Sequence[Version]) -> Version | None:
    """The first version with all its files; broken versions are skipped.

    Raises: RegistryError if a broken version is champion, because its files may be back soon and matter
        more than another version; StoreUnreachable if the store cannot tell.
    """
    for found in versions:
        try:
            verify(client, found.model_id)
        except StoreUnreachable:
            raise
        except RegistryError as error:
            version = f"version {found.number} of {found.name}"
            if CHAMPION in found.aliases:
                raise RegistryError(
                    f"{version}: is champion, but {error}; bring its files back, or delete the version "
                    "and register again"
                ) from None
            _log.warning("%s is skipped: %s", version, error)
            continue
        return found
    return None


def remove_abandoned(client: "MlflowClient", name: str, experiment: str) -> list[str]:
    """Delete logged models without a version whose process has ended; returns their ids."""
    kept = {version.model_id for version in list_versions(client, name)}
    removed = []
    for logged in client.search_logged_models([experiment], f"name = '{name}'", max_results=1000):
        process = logged.tags.get(_PROCESS, "")
        age_s = time.time() - logged.creation_timestamp / 1000
        if logged.model_id in kept or _PROCESS not in logged.tags:
            continue
        if process == this_process() or is_gone(process) or age_s > _ABANDONED_S:
            client.delete_logged_model(logged.model_id)
            removed.append(str(logged.model_id))
            _log.info("removed the unfinished model %s", logged.model_id)
    return removed


def list_versions(client: "MlflowClient", name: str) -> list[Version]:
    """All versions, newest first, with their aliases; none if the model does not exist."""
    from mlflow.exceptions import MlflowException

    with store_errors():
        try:
            aliases: dict[str, Any] = client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise
        found = []
        token: str | None = None
        while token is None or token:
            page = client.search_model_versions(
                f"name = '{name}'", order_by=["version_number DESC"], page_token=token
            )
            found += [_version(made, aliases) for made in page]
            token = page.token or ""
    return sorted(found, key=lambda version: -version.number)


def get_version(client: "MlflowClient", name: str, which: int | str) -> Version:
    """A version by its number or alias.

    Raises: NoSuchVersion naming the versions that exist; RegistryError if the store does not answer.
    """
    versions = list_versions(client, name)
    for version in versions:
        if str(version.number) == str(which) or which in version.aliases:
            return version
    known = ", ".join(str(version.number) for version in reversed(versions)) or "none"
    raise NoSuchVersion(
        f"model {name!r}: has no version {which} (there are: {known}){_remedy(versions, which)}"
    )


def _remedy(versions: Sequence[Version], which: int | str) -> str:
    """The command that makes what is missing; empty if the name is at fault."""
    if not versions or which == CHALLENGER:
        return "; run `routerr1 register`"
    return "; run `routerr1 promote`, or name a version by its number" if which == CHAMPION else ""


def _version(made: "ModelVersion", aliases: Mapping[str, Any] | None = None) -> Version:
    number = int(made.version)
    return Version(
        name=made.name,
        number=number,
        aliases=tuple(sorted(alias for alias, at in (aliases or {}).items() if int(at) == number)),
        run_id=made.run_id or None,
        model_id=made.tags.get(_MODEL_ID) or "",
        tags=dict(made.tags),
        created_s=made.creation_timestamp / 1000,
        description=made.description or "",
    )


def save_report(version: Version) -> Path:
    """Copy the report that was registered with a version to runs/reports; returns its page.

    The folder data/report holds the report of the last `dvc repro`, whatever the gate decided since.

    Raises: RegistryError if the version was registered without a report.
    """
    target = REPORTS / f"version-{version.number}"
    with (
        fetched(version.model_id, "artifacts/report") as folder,
        files.atomic_directory(target) as to,
    ):
        shutil.copytree(folder, to, dirs_exist_ok=True)
    return target / "index.html"


@contextmanager
def version_files(version: Version) -> Iterator[tuple[Path, Path]]:
    """Verified local copies of a version's checkpoint and of the context that goes with it.

    Raises: RegistryError if a file is missing or was changed since the version was registered.
    """
    with (
        _verified(version.model_id, "artifacts/policy") as checkpoint,
        _context(version.model_id, version.tags.get(_CONTEXT)) as context,
    ):
        yield checkpoint, context


def read_version_evidence(version: Version) -> Evidence:
    """What a version was judged by.

    Raises: RegistryError if it was changed since the version was registered.
    """
    with _context(version.model_id, version.tags.get(_CONTEXT)) as folder:
        return evidence.read_evidence(folder / "evidence.json")
