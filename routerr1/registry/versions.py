"""Versions of the policy in MLflow's registry: made once per state of the chain, and checked file by file.

A version is a pyfunc model that holds the checkpoint, the cards it was trained with, the parameters, and the
samples it is judged by. `promotion.py` decides which one is champion.
"""

import hashlib
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1 import files, lineage
from routerr1.config import Params
from routerr1.errors import CheckpointError, RegistryError, StoreUnreachable
from routerr1.fingerprints import hash_of, sections
from routerr1.registry import evidence, gate
from routerr1.registry.lock import registry_lock
from routerr1.tracking.runs import flatten, resume_run
from routerr1.tracking.store import (
    experiment_id,
    file_lock,
    is_gone,
    open_client,
    store_errors,
    this_process,
)
from routerr1.train.checkpoint import MANIFEST, read_manifest, write_manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
_KEY, _MODEL_ID, _CONTEXT = "routerr1.key", "routerr1.model_id", "routerr1.context"
_PROCESS = "routerr1.process"
_ABANDONED_S = 7 * 86400.0  # of another machine, where nothing tells that an upload is dead
_MAX_DIFF_BYTES = 1_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the chain's stages leave what a version is made of."""

    checkpoint: Path = Path("models/policy")
    cards: Path = Path("data/pool/cards.json")
    questions: Path = Path("data/questions")
    rows: Path = Path("data/eval/rows.parquet")
    unseen_rows: Path = Path("data/generalize/rows.parquet")
    run_file: Path = Path("data/train/run.json")
    train_metrics: Path = Path("data/train/metrics.json")
    report: Path = Path("data/report")


@dataclass(frozen=True, slots=True)
class _State:
    """What a version is made of: commit, digest of dvc.lock, digest of uncommitted changes ("" without any)."""

    commit: str
    dvc_lock: str
    changes: str

    @classmethod
    def now(cls) -> "_State":
        """The state of the working directory.

        Raises: RegistryError without a commit; DataError if git cannot tell.
        """
        commit = lineage.git_commit()
        if commit is None:
            raise RegistryError("no git commit here; a version needs one to be traced to")
        diff = lineage.git_diff()
        changes = hashlib.sha256(diff).hexdigest()[:12] if diff else ""
        return cls(commit, files.sha256(lineage.DVC_LOCK), changes)

    @property
    def key(self) -> str:
        """One text for all of it."""
        return ".".join(filter(None, (self.commit, self.dvc_lock, self.changes)))


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version.

    Attributes:
        tags: lineage, figures and the gate's verdict, as stored.
        created_s: when it was made, seconds since 1970.
    """

    name: str
    number: int
    aliases: tuple[str, ...]
    run_id: str | None
    model_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    created_s: float = 0.0


def register(params: Params, outputs: Outputs | None = None) -> Version:
    """Make the state of the chain a version, alias challenger; the same state twice is one version.

    The state is dvc.lock's hash and the git commit. What an earlier, killed call left is removed first. A
    version whose files are broken or away is never touched: the state is registered again beside it.

    Raises: RegistryError if outputs differ from dvc.lock, or changed meanwhile, the logged model is not READY,
        a file differs from its manifest, or the state's version is champion and broken; CheckpointError,
        DataError for outputs that cannot be used.
    """
    made_of = outputs or Outputs()
    _refuse_stale_outputs()
    judged_by = _evidence(params, made_of)
    tags = lineage_tags(params, made_of, judged_by)
    client = open_client()
    name = params.registry.model
    with file_lock(f"{name}.register", timeout_s=1800):
        experiment = experiment_id(client, params.registry.experiment)
        with store_errors():
            remove_abandoned(client, name, experiment)
        known = _of_state(client, name, tags)
        found = _first_whole(client, known)
        if found is None:
            model_id = _log_model(client, params, made_of, judged_by, tags)
            _refuse_another_state(tags)
            found = _create_version(client, name, model_id, tags, known)
        with registry_lock(client, name), store_errors():
            if CHAMPION not in found.aliases:
                client.set_registered_model_alias(name, CHALLENGER, str(found.number))
    return get_version(client, name, found.number)


def _refuse_stale_outputs() -> None:
    behind = lineage.changed_stages()
    if behind:
        raise RegistryError(
            f"{lineage.DVC_LOCK}: does not describe the outputs of {', '.join(behind)}; run `dvc repro`"
        )


def _refuse_another_state(tags: Mapping[str, str]) -> None:
    """What was copied may be of another state than what was read before: nobody keeps stages from running."""
    _refuse_stale_outputs()
    if _State.now().key != tags[_KEY]:
        raise RegistryError(
            f"{lineage.DVC_LOCK}: the state of the chain changed while it was registered; register again"
        )


def _evidence(params: Params, outputs: Outputs) -> gate.Evidence:
    samples, unseen = evidence.read_samples(outputs.rows, outputs.unseen_rows, params.seeds[0])
    pool = files.sha256(outputs.cards)
    file = params.generalize.file
    decides = {
        "cards": pool,
        "file": None if file is None else files.sha256(file),
        "seeds": [params.pool.seed, params.evaluate.seed],
        **sections(params, "generalize", "profile_pool"),
    }
    return gate.Evidence(samples, unseen, pool, hash_of(decides))


def lineage_tags(params: Params, outputs: Outputs, judged_by: gate.Evidence) -> dict[str, str]:
    """Where a version comes from and how it did, as strings.

    Raises: RegistryError without a commit; DataError, CheckpointError naming the file that cannot be read.
    """
    from routerr1.pool.cards import read_cards

    state = _State.now()
    cards = read_cards(outputs.cards)
    manifest = read_manifest(outputs.checkpoint)
    trained = files.read_json(outputs.train_metrics)
    figures = asdict(gate.measure(judged_by, gate.sampling_of(params.evaluate)))
    measured = flatten({"train": trained, "metric": figures})
    tags = {
        _KEY: state.key,
        "git_commit": state.commit,
        "git_dirty": str(bool(state.changes)).lower(),
        "dvc_lock": state.dvc_lock,
        "data_digest": lineage.dvc_digest(outputs.questions),
        "pool_digest": judged_by.pool,
        "price_book_digest": lineage.price_book_digest(cards),
        "preset": params.preset,
        "seeds": ",".join(map(str, params.seeds)),
    }
    tags |= {
        f"checkpoint.{key}": str(value)
        for key, value in flatten(manifest).items()
        if isinstance(value, str | int | float) and not key.startswith(("files.", "params."))
    }
    return tags | {key: f"{value:.6g}" for key, value in measured.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _log_model(
    client: "MlflowClient",
    params: Params,
    outputs: Outputs,
    judged_by: gate.Evidence,
    tags: Mapping[str, str],
) -> str:
    """Log the pyfunc model to the run that trained it; its id, once it is READY and whole."""
    import mlflow

    package = Path(__file__).parents[1]
    with (
        resume_run(params.registry, outputs.run_file) as run,
        _context_folder(params, outputs, judged_by) as context,
    ):
        with store_errors(), _active(run.id), warnings.catch_warnings():
            # Of its own hints, when it is imported.
            warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType")
            from routerr1.registry import serving

            own = {_PROCESS: this_process(), _CONTEXT: files.sha256(context / MANIFEST)}
            logged = mlflow.pyfunc.log_model(
                name=params.registry.model,
                python_model=str(package / "registry" / "serving.py"),
                artifacts={"checkpoint": str(outputs.checkpoint), "context": str(context)},
                code_paths=[str(package)],
                model_config=serving.SETTINGS,
                pip_requirements=serving.requirements(),
                tags={**tags, **own},
            )
        if outputs.report.is_dir():
            run.log_artifact(outputs.report)
    model_id = str(logged.model_id)
    verify(client, model_id)
    return model_id


@contextmanager
def _active(run_id: str) -> Iterator[None]:
    """Make a run the one that MLflow's fluent functions log to, without ending it."""
    import mlflow

    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        yield


@contextmanager
def _context_folder(params: Params, outputs: Outputs, judged_by: gate.Evidence) -> Iterator[Path]:
    """Everything but the weights that a version carries: what it is played with, judged by, and made of."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "context"
        folder.mkdir()
        (folder / "cards.json").write_bytes(outputs.cards.read_bytes())
        if params.pool.file is not None:
            (folder / "pool.yaml").write_bytes(params.pool.file.read_bytes())
        if params.prompt.file is not None:
            (folder / "prompt.txt").write_bytes(params.prompt.file.read_bytes())
        files.write_json(folder / "params.json", params.model_dump(mode="json"))
        evidence.write_evidence(folder / "evidence.json", judged_by)
        (folder / "dvc.lock").write_bytes(lineage.DVC_LOCK.read_bytes())
        if diff := lineage.git_diff():
            cut = f"\n... cut: {len(diff)} bytes in all\n".encode()
            whole = len(diff) <= _MAX_DIFF_BYTES
            (folder / "uncommitted.diff").write_bytes(
                diff if whole else diff[:_MAX_DIFF_BYTES] + cut
            )
        write_manifest(folder, {})
        yield folder


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
    with _whole(model_id, "artifacts/policy"):
        pass
    with _context(model_id, logged.tags.get(_CONTEXT)):
        pass


@contextmanager
def _whole(model_id: str, path: str) -> Iterator[Path]:
    """A local copy of a folder of a logged model, checked against the manifest in it."""
    with fetched(model_id, path) as folder:
        try:
            read_manifest(folder)
        except CheckpointError as error:
            # What the message advises is for a folder of the workspace.
            told = str(error).replace(str(folder), path).partition("; ")[0]
            raise RegistryError(f"logged model {model_id}: {told}") from None
        yield folder


@contextmanager
def _context(model_id: str, digest: str | None) -> Iterator[Path]:
    """A local copy of a model's context, which is what it was when it had this digest."""
    with _whole(model_id, "artifacts/context") as folder:
        if files.sha256(folder / MANIFEST) != digest:
            raise RegistryError(f"logged model {model_id}: artifacts/context was changed")
        yield folder


@contextmanager
def fetched(model_id: str, path: str) -> Iterator[Path]:
    """A local copy of what a logged model holds at `path`.

    Raises: RegistryError if it is not there; StoreUnreachable if that cannot be told.
    """
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as temporary:
        with store_errors():
            root = open_client().get_logged_model(model_id).artifact_location
            try:
                found = download_artifacts(artifact_uri=f"{root}/{path}", dst_path=temporary)
            except Exception as error:
                told = f"logged model {model_id}: "
                if _says_missing(error):
                    raise RegistryError(f"{told}lacks {path}") from None
                if isinstance(error, OSError) and error.strerror:
                    raise StoreUnreachable(
                        f"{told}{path} cannot be read ({error.strerror})"
                    ) from None
                raise
        yield Path(found)


def _says_missing(error: Exception) -> bool:
    """Whether a store's answer is that something is not there, and not that it cannot answer."""
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
    """Make the logged model a version, unless one of its state came to those `known` since."""
    from mlflow.exceptions import MlflowException

    with store_errors():
        logged = client.get_logged_model(model_id)
    own = {**tags, _MODEL_ID: model_id, _CONTEXT: logged.tags[_CONTEXT]}
    with registry_lock(client, name) as lease, store_errors():
        try:
            client.create_registered_model(name)
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
            model_id=model_id,
        )
        return _version(made)


def _of_state(client: "MlflowClient", name: str, tags: Mapping[str, str]) -> list[Version]:
    """The versions of one state of the chain, newest first."""
    return [found for found in list_versions(client, name) if found.tags.get(_KEY) == tags[_KEY]]


def _first_whole(client: "MlflowClient", versions: Sequence[Version]) -> Version | None:
    """The first version with all its files; broken ones are passed over.

    Raises: RegistryError if a broken one is champion: its files may only be away for the moment, and they
        are worth more than another version. StoreUnreachable if it cannot be told.
    """
    for found in versions:
        try:
            verify(client, found.model_id)
        except StoreUnreachable:
            raise
        except RegistryError as error:
            told = f"version {found.number} of {found.name}"
            if CHAMPION in found.aliases:
                raise RegistryError(
                    f"{told}: is champion, but {error}; bring its files back, or delete the version to "
                    "have it made again"
                ) from None
            _log.warning("%s is passed over: %s", told, error)
            continue
        return found
    return None


def remove_abandoned(client: "MlflowClient", name: str, experiment: str) -> list[str]:
    """Delete logged models that no version refers to and whose process is gone; their ids."""
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

    Raises: RegistryError naming the versions that there are.
    """
    versions = list_versions(client, name)
    for version in versions:
        if str(version.number) == str(which) or which in version.aliases:
            return version
    known = ", ".join(str(version.number) for version in reversed(versions)) or "none"
    raise RegistryError(f"model {name!r}: has no version {which} (there are: {known})")


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
    )


def read_version_evidence(version: Version) -> gate.Evidence:
    """The samples kept with a version.

    Raises: RegistryError if they are not those that were registered.
    """
    with _context(version.model_id, version.tags.get(_CONTEXT)) as folder:
        return evidence.read_evidence(folder / "evidence.json")
