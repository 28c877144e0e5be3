"""Where results lie and what they come from: paths, code, parameters, dvc.lock, commit, data and pool."""

import getpass
import hashlib
import json
import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from routerr1 import files
from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.types import Card

DVC_FILE = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Paths:
    """Where stages read and write, relative to the repository's root, as in dvc.yaml.

    Files that must survive a kill lie under `runs`: DVC deletes a stage's outputs before it runs the stage.

    Attributes:
        policy: policy of the first training seed.
        other_policies: a folder for each other seed.
        data_docs: pages of the checks, which name the time at which they were made.
        train_seconds: of every step; they differ from run to run.
        embedded: vectors of probe questions, for `ask`.
        warmstarted: seeds that are warm-started, until all of them are.
        probed: calls of the profile stage; they answer if the stage runs again.
        calls: paid calls of an evaluation under way; see `Workspace.keep_calls`.
    """

    questions: Path = Path("data/questions")
    checks: Path = Path("data/checks")
    pool: Path = Path("data/pool")
    cards: Path = Path("data/pool/cards.json")
    matrix: Path = Path("data/pool/matrix.parquet")
    warmstart: Path = Path("models/warmstart")
    warmstart_metrics: Path = Path("data/warmstart/metrics.json")
    policy: Path = Path("models/policy")
    other_policies: Path = Path("models/seeds")
    train: Path = Path("data/train")
    run: Path = Path("data/train/run.json")
    evaluate: Path = Path("data/eval")
    rows: Path = Path("data/eval/rows.parquet")
    generalize: Path = Path("data/generalize")
    report: Path = Path("data/report")
    runs: Path = Path("runs")
    data_docs: Path = Path("runs/data-docs")
    train_seconds: Path = Path("runs/train/seconds.csv")
    warmstarted: Path = Path("runs/warmstart")
    embedded: Path = Path("runs/embedded")
    probed: Path = Path("runs/profile")
    calls: Path = Path("runs/calls")


PATHS = Paths()


def hash_of(value: object) -> str:
    """Sixteen hex digits for a JSON value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(params: Params, *names: str) -> str:
    """Digest of `sections`."""
    return hash_of(sections(params, *names))


def sections(params: Params, *names: str) -> dict[str, Any]:
    """Sections of the parameters as JSON values, without what changes no result.

    Budgets and concurrency are left out: raising one does not invalidate finished work.
    """
    found = {name: getattr(params, name).model_dump(mode="json") for name in names}
    if "pool" in found:
        for key in ("budget", "max_concurrency"):
            del found["pool"][key]
    return found


def stage_inputs(stage: str, params: Params, file: Path = DVC_FILE) -> dict[str, Any]:
    """The code and the parameters that a stage depends on, as dvc.yaml lists them.

    The code is that of the installed package. Where `file` is missing or does not list code or parameters for the
    stage, all of the package or all sections count: work is then repeated too often, never too seldom.

    Raises: DataError naming `file` if it is malformed, or a file or section that it lists and that does not exist.
    """
    listed = _stage_of(stage, file)
    every = [name for name, value in params if isinstance(value, BaseModel)]
    keys = {str(key).partition(".")[0] for key in listed.get("params", ()) if isinstance(key, str)}
    deps = [Path(dep) for dep in listed.get("deps", ()) if isinstance(dep, str)]
    code = [_PACKAGE.parent / dep for dep in deps if dep.parts[0] == _PACKAGE.name]
    return {
        "code": code_digest(code or [_PACKAGE]),
        "params": sections(params, *([name for name in every if name in keys] or every)),
    }


def code_digest(roots: Sequence[Path]) -> str:
    """Digest of every Python file among `roots` and in the folders among them.

    Raises: DataError if a root does not exist.
    """
    found: set[Path] = set()
    for root in roots:
        if not root.exists():
            raise DataError(f"{root}: not found; correct the stage's deps in {DVC_FILE}")
        found |= {root} if root.is_file() else set(root.rglob("*.py"))
    return hash_of([files.digest(path) for path in sorted(found)])


def _stage_of(stage: str, file: Path) -> dict[str, Any]:
    """What `file` says of a stage; empty if it says nothing."""
    if not file.is_file():
        return {}
    content = files.read_yaml(file)
    stages = content.get("stages") if isinstance(content, dict) else None
    found = stages.get(stage, {}) if isinstance(stages, dict) else None
    if not isinstance(found, dict):
        raise DataError(f"{file}: stages: must map names of stages to their `cmd` and `deps`")
    return found


_log = logging.getLogger(__name__)


def git_commit() -> str | None:
    """Hex id of HEAD in the working directory; None outside a repository or before a first commit.

    Raises: DataError with git's reason if it refuses, e.g. because the folder belongs to another user.
    """
    command = ["git", "rev-parse", "--verify", "-q", "HEAD"]
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    except OSError:  # no git
        return None
    if found.returncode == 0:
        return found.stdout.strip()
    reason = " ".join(found.stderr.split())
    if not reason or "not a git repository" in reason:
        return None
    raise DataError(f"`{' '.join(command)}` failed: {reason}")


def known_commit() -> str | None:
    """`git_commit`, for records that are kept without one too: a refusal of git is a warning."""
    try:
        return git_commit()
    except DataError as error:
        _log.warning("the commit is not recorded: %s", error)
        return None


def user_name() -> str:
    """ROUTERR1_USER, or the account's name, or the account's number if it has no name, as in containers."""
    if given := os.environ.get("ROUTERR1_USER"):
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        return f"uid-{os.getuid()}"


def read_lock(path: Path = DVC_LOCK) -> dict[str, Any]:
    """The stages of dvc.lock.

    Raises: DataError naming the file if it is missing or malformed.
    """
    try:
        stages = files.read_yaml(path)["stages"]
    except DataError as error:
        raise DataError(f"{error}; run `dvc repro`") from None
    except (KeyError, TypeError):
        raise DataError(f"{path}: is not a dvc.lock; run `dvc repro`") from None
    if not isinstance(stages, dict):
        raise DataError(f"{path}: holds no stages; run `dvc repro`")
    return stages


def dvc_digest(path: Path, lock: Path = DVC_LOCK) -> str:
    """The md5 under which dvc.lock keeps `path`; an md5 of its content if no stage writes it."""
    if lock.is_file():
        for stage in read_lock(lock).values():
            for out in stage.get("outs", ()):
                if Path(out["path"]) == path and "md5" in out:
                    return str(out["md5"])
    return hashlib.md5(files.digest(path).encode(), usedforsecurity=False).hexdigest()


def git_diff() -> bytes:
    """The uncommitted changes of tracked files, without dvc.lock, which a run rewrites.

    Raises: DataError with git's reason if it fails.
    """
    command = ["git", "diff", "HEAD", "--", ".", ":!dvc.lock"]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise DataError(f"`{' '.join(command)}` failed: {said[-1]}")
    return found.stdout


def price_book_digest(cards: Sequence[Card]) -> str:
    """Hex digest of every candidate's prices; those that are not given are no part of it."""
    prices = {
        card.name: (
            card.prompt_usd_per_mtok,
            card.completion_usd_per_mtok,
            *_optional_prices(card).items(),
        )
        for card in cards
    }
    return hashlib.sha256(json.dumps(prices, sort_keys=True).encode()).hexdigest()


def _optional_prices(card: Card) -> dict[str, float]:
    optional = {
        "cached_prompt_usd_per_mtok": card.cached_prompt_usd_per_mtok,
        "reasoning_usd_per_mtok": card.reasoning_usd_per_mtok,
        "request_usd": card.request_usd or None,
    }
    return {name: price for name, price in optional.items() if price is not None}


def changed_stages() -> list[str]:
    """Stages whose dependencies, parameters or outputs differ from dvc.lock, by `dvc status`.

    Raises: DataError if this is no DVC repository or dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return sorted(repo.status())
    except DvcException as error:
        raise DataError(f"DVC: {error}") from None


def stages_to_run() -> list[str]:
    """Stages that `dvc repro` would run, judged by dvc.lock, code and parameters; no data are needed.

    As `dvc repro --allow-missing --dry`, stage by stage. That command itself fails at the first changed
    stage without data, because it looks for the data in its cache of runs.

    Raises: DataError if this is no DVC repository or dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    if not DVC_LOCK.is_file():
        raise DataError(f"{DVC_LOCK}: not found; run `dvc repro` and commit it")
    try:
        with Repo() as repo, repo.lock:
            graph = repo.index.graph
            return [
                stage.addressing
                for stage in plan_repro(graph)
                if stage.changed(allow_missing=True, upstream=list(graph.successors(stage)))
            ]
    except DvcException as error:
        raise DataError(f"DVC: {error.__cause__ or error}") from None
