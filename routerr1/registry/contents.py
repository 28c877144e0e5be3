"""What a version is made of: the outputs of the stages, their state, and the folder that goes with the weights."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from routerr1 import files, lineage
from routerr1.baselines.likeness import topics_of
from routerr1.baselines.saved import SavedRouter, router_name, save_router
from routerr1.config import Params, PoolParams, flatten
from routerr1.data.imported import named_by_digest
from routerr1.errors import ConfigError, DataError, RegistryError
from routerr1.evaluate.controls import BEST_SINGLE, POLICY, fixed
from routerr1.evaluate.results import EvaluationTable
from routerr1.lineage import hash_of, sections
from routerr1.pool.cards import read_cards
from routerr1.pool.pool_file import read_pool_file
from routerr1.registry import evidence, gate
from routerr1.registry.model_card import model_card
from routerr1.registry.samples import SIMULATED, Evidence, sampling_of
from routerr1.registry.sbom import sbom
from routerr1.registry.served import MATRIX, TOPICS
from routerr1.train.checkpoint import read_manifest, write_manifest

KEY_TAG = "routerr1.key"
MODEL_CARD, SBOM = "model-card.md", "sbom.cdx.json"
_MAX_DIFF_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the stages leave what a version is made of."""

    checkpoint: Path = Path("models/policy")
    cards: Path = Path("data/pool/cards.json")
    questions: Path = Path("data/questions")
    rows: Path = Path("data/eval/rows.parquet")
    unseen_rows: Path = Path("data/generalize/rows.parquet")
    run_file: Path = Path("data/train/run.json")
    train_results: Path = Path("data/train/results.json")
    report: Path = Path("data/report")
    matrix: Path = Path("data/pool/matrix.parquet")
    table: Path = Path("data/eval/table.json")


@dataclass(frozen=True, slots=True)
class State:
    """What identifies a version.

    Attributes:
        changes: digest of the uncommitted changes; "" without any.
    """

    commit: str
    dvc_lock: str
    changes: str

    @classmethod
    def now(cls) -> "State":
        """The state of the working directory.

        Raises: RegistryError without a commit; DataError with git's reason if git refuses.
        """
        commit = lineage.git_commit()
        if commit is None:
            raise RegistryError("no git commit here; a version has to name one, so commit first")
        diff = lineage.git_diff()
        changes = hashlib.sha256(diff).hexdigest()[:12] if diff else ""
        return cls(commit, files.sha256(lineage.DVC_LOCK), changes)

    @property
    def key(self) -> str:
        """The state as one text."""
        return ".".join(filter(None, (self.commit, self.dvc_lock, self.changes)))


def router_to_register(params: Params, outputs: Outputs, asked: str | None) -> str:
    """The router that becomes a version, as in the rows.

    Args:
        asked: as a user names it; None: the policy, or without one the router that the evaluation prefers.

    Raises: ConfigError if there is no such router, or it needs a policy and is not the policy itself;
        DataError if nothing was evaluated.
    """
    if asked == POLICY and not params.has_policy:
        raise ConfigError("params.yaml: model.init is none, so there is no policy to register")
    if asked == POLICY or (asked is None and params.has_policy):
        return POLICY
    if params.has_policy and not params.looks_up_questions:
        raise ConfigError(
            f"--router {asked}: was evaluated with a policy that reads the replies; set model.init to none, run "
            "`dvc repro` and register again"
        )
    if asked is None:
        return EvaluationTable.read(outputs.table).reference
    return router_name(asked, [card.name for card in read_cards(outputs.cards)])


def key_of(state: State, router: str) -> str:
    """What identifies a version: the state, and the router if it is not the policy."""
    return state.key if router == POLICY else f"{state.key}.{router}"


def evidence_of(params: Params, outputs: Outputs, router: str = POLICY) -> Evidence:
    """What the gate judges a version by.

    Raises: DataError naming the file that cannot be read, or the rows if they hold none of the router.
    """
    from routerr1.evaluate.rows import read_rows

    seed, rows = params.seeds[0], read_rows(outputs.rows)
    samples = evidence.samples_of(rows, seed, router)
    if not samples:
        raise DataError(
            f"{outputs.rows}: holds no row of the router {router}, seed {seed}, on its own pool"
        )
    changed = read_rows(outputs.unseen_rows) if router == POLICY else []
    pool = files.sha256(outputs.cards)
    file = params.generalize.file
    decides = {
        "cards": pool,
        "file": None if file is None else files.sha256(file),
        "seeds": [params.pool.seed, params.evaluate.seed],
        **sections(params, "generalize", "profile_pool"),
    }
    return Evidence(
        samples=samples,
        unseen=evidence.unseen_samples_of(changed, seed),
        pool=pool,
        unseen_pool=hash_of(decides),
        router=router,
        worst_change=evidence.worst_change(changed, seed),
        rivals=evidence.rivals_of(rows, seed, router),
        simulated=params.pool.kind == SIMULATED,
        odd_prices=_odd_prices(params.pool),
        whole_replies=router != POLICY or params.looks_up_questions,
    )


def _odd_prices(params: PoolParams) -> tuple[str, ...]:
    if params.kind == SIMULATED or params.file is None:
        return ()
    return read_pool_file(params.file, max_reply_tokens=params.max_reply_tokens).odd_prices


def tags_of(
    params: Params, outputs: Outputs, judged_by: Evidence, train_hours: float | None
) -> dict[str, str]:
    """The tags of a version, grouped by prefix: lineage, train, metric.

    Args:
        train_hours: None if the store does not know the run that trained.

    Raises: RegistryError without a commit; DataError, CheckpointError naming the file that cannot
        be read.
    """
    state, router = State.now(), judged_by.router
    manifest = read_manifest(outputs.checkpoint) if router == POLICY else {}
    found = {
        KEY_TAG: key_of(state, router),
        "lineage.router": router,
        "lineage.git_commit": state.commit,
        "lineage.git_dirty": str(bool(state.changes)).lower(),
        "lineage.dvc_lock": state.dvc_lock,
        "lineage.data_digest": lineage.dvc_digest(outputs.questions),
        "lineage.pool": params.pool.kind,
        "lineage.pool_digest": judged_by.pool,
        "lineage.price_book_digest": lineage.price_book_digest(read_cards(outputs.cards)),
        "lineage.prompt_hash": str(manifest.get("prompt", "unknown")),
        "lineage.preset": params.preset,
        "lineage.seeds": ",".join(map(str, params.seeds)),
    }
    if params.dataset.imported:
        found["lineage.imported"] = named_by_digest(params.dataset.imported)
    trained = flatten(files.read_json(outputs.train_results))
    first = f"seed_{params.seeds[0]}"
    figures = {
        "train.hours": train_hours,
        "train.cost_usd": trained.get("train_cost_usd"),
        "train.steps": trained.get(f"{first}.steps"),
        "train.best_step": trained.get(f"{first}.best_step"),
        "train.validation_em": trained.get(f"{first}.validation/em"),
    }
    measured = asdict(gate.measure(judged_by, sampling_of(params.evaluate)))
    figures |= {f"metric.{name}": value for name, value in measured.items()}
    return found | {
        name: f"{value:.6g}" for name, value in figures.items() if isinstance(value, int | float)
    }


def commit_of(tags: Mapping[str, str]) -> str:
    """The beginning of a version's commit, with a + if changes were not committed.

    >>> commit_of({"lineage.git_commit": "4958310c", "lineage.git_dirty": "true"})
    '4958310+'
    """
    dirty = tags.get("lineage.git_dirty") == "true"
    return tags.get("lineage.git_commit", "?")[:7] + ("+" if dirty else "")


def description_of(tags: Mapping[str, str]) -> str:
    """One line for the lists of a registry."""
    cost = float(tags.get("metric.cost_usd", "nan"))
    return (
        f"Router {tags['lineage.router']}, preset {tags['lineage.preset']}, seeds {tags['lineage.seeds']}: "
        f"exact match {tags.get('metric.em', 'unknown')}, {cost * 1000:.4g} USD per 1000 questions; "
        f"commit {commit_of(tags)}. "
        f"Model card and SBOM: artifacts/context/{MODEL_CARD}, {SBOM}; report: artifacts/report."
    )


@contextmanager
def packed(
    params: Params, outputs: Outputs, judged_by: Evidence, tags: Mapping[str, str]
) -> Iterator[dict[str, Path]]:
    """The folders of a version by name: `checkpoint`, `context` and, if there is one, `report`.

    The checkpoint is the policy, or what another router is fitted on. The context holds what it is
    run with, judged by and made from. Folders with symbolic links, as a shared DVC cache makes them,
    are copied first, because MLflow refuses links.
    """
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary) / "context"
        context.mkdir()
        checkpoint = outputs.checkpoint
        if judged_by.router != POLICY:
            checkpoint = Path(temporary) / outputs.checkpoint.name
            save_router(
                checkpoint, _saved(params, outputs, judged_by.router), outputs.matrix, outputs.cards
            )
        _write_context(context, params, outputs, judged_by, tags, checkpoint)
        folders = {"checkpoint": checkpoint, "report": outputs.report}
        yield {"context": context} | {
            name: _without_links(folder, Path(temporary) / folder.name)
            for name, folder in folders.items()
            if folder.is_dir()
        }


def _saved(params: Params, outputs: Outputs, router: str) -> SavedRouter:
    """The router to save; the best single model is saved as the candidate that was evaluated."""
    seed = params.seeds[0]
    if router == BEST_SINGLE:
        router = fixed(EvaluationTable.read(outputs.table).best_single[seed])
    return SavedRouter(router=router, seed=seed, baselines=params.baselines)


def _without_links(folder: Path, copy: Path) -> Path:
    if not any(path.is_symlink() for path in (folder, *folder.rglob("*"))):
        return folder
    shutil.copytree(folder, copy)  # follows links
    return copy


def _write_context(
    folder: Path,
    params: Params,
    outputs: Outputs,
    judged_by: Evidence,
    tags: Mapping[str, str],
    checkpoint: Path,
) -> None:
    shutil.copyfile(outputs.cards, folder / "cards.json")
    if outputs.matrix.is_file():
        files.write_json(folder / TOPICS, topics_of(outputs.matrix))
    if params.looks_up_questions:
        shutil.copyfile(outputs.matrix, folder / MATRIX)
    if params.pool.file is not None:
        shutil.copyfile(params.pool.file, folder / "pool.yaml")
    if params.prompt.file is not None:
        shutil.copyfile(params.prompt.file, folder / "prompt.txt")
    shutil.copyfile(lineage.DVC_LOCK, folder / "dvc.lock")
    files.write_json(folder / "params.json", params.model_dump(mode="json"))
    evidence.write_evidence(folder / "evidence.json", judged_by)
    metrics = gate.measure(judged_by, sampling_of(params.evaluate))
    page = model_card(params, read_cards(outputs.cards), metrics, tags)
    files.atomic_write_text(folder / MODEL_CARD, page)
    weights: dict[str, str] = read_manifest(checkpoint)["files"]
    bill = sbom(params.registry.model, tags[KEY_TAG], weights)
    files.atomic_write_text(folder / SBOM, bill)
    if diff := lineage.git_diff():
        cut = f"\n... cut: {len(diff)} bytes in all\n".encode()
        whole = len(diff) <= _MAX_DIFF_BYTES
        stored = diff if whole else diff[:_MAX_DIFF_BYTES] + cut
        (folder / "uncommitted.diff").write_bytes(stored)
    write_manifest(folder, {})
