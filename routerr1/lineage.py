"""What a trained policy came from: commit, dvc.lock, data, pool. Read from git and DVC's own files."""

import getpass
import hashlib
import json
import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routerr1 import files
from routerr1.errors import DataError
from routerr1.types import Card

DVC_LOCK = Path("dvc.lock")

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
    """Every uncommitted change of a tracked file, as git tells it; dvc.lock aside, which a run itself rewrites.

    Raises: DataError if git cannot tell.
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

    What `dvc repro --allow-missing --dry` goes by, stage for stage. The command itself fails at the first
    stage that has changed and whose data are not there: it looks for these in its cache of runs.

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
