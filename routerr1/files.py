"""Writing without leaving halves behind, and digests of what was written."""

import glob
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from routerr1.errors import DataError


def project_folder() -> Path:
    """The folder of everything that outlives an experiment: MLflow's store and the budget.

    It is the working directory or, in the temporary copy that `dvc exp run --temp` and `--queue`
    make and delete, the repository that was copied.
    """
    here = Path.cwd()
    for place in range(len(here.parts)):
        if here.parts[place : place + 3] == (".dvc", "tmp", "exps"):
            return Path(*here.parts[:place])
    return here


def _aside(path: Path) -> Path:
    """A new name beside `path` that names this process; files of killed writers of `path` are removed."""
    ours = f".{path.name}.{socket.gethostname()}."
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        known = re.fullmatch(rf"{re.escape(ours)}(\d+)\.[0-9a-f]{{8}}\.tmp", left.name)
        if known and not psutil.pid_exists(int(known[1])):
            _remove(left)
    return path.with_name(f"{ours}{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to it at the end, deleted on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write `content` so that a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as aside:
        aside.write_bytes(content)


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` in UTF-8."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` at the end; on an error `path` stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.mkdir()
    try:
        yield aside
        if path.exists():
            old = _aside(path)
            path.replace(old)
            aside.replace(path)
            shutil.rmtree(old)
        else:
            aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Canonical JSON (sorted keys, two-space indent, no NaN), written atomically.

    Raises: ValueError for a number that is not finite.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """The value in `path`.

    Raises: DataError naming the file, and the line where it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: is not JSON ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply to be read") from None


def read_yaml(path: Path) -> Any:
    """The value in `path`.

    Raises: DataError naming the file, and the line where it is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{line}: is not valid YAML") from None


def sha256(path: Path) -> str:
    """Hex digest of one file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(path: Path) -> str:
    """Hex digest of a file, or of a folder's file names and bytes in sorted order.

    Raises: DataError if there is nothing at `path`.
    """
    if path.is_file():
        return sha256(path)
    if not path.is_dir():
        raise DataError(f"{path}: not found")
    parts = [
        f"{file.relative_to(path).as_posix()} {sha256(file)}"
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
