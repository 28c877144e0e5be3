"""A saved policy: what transformers loads, and routerr1.json, which says what it is and that it is whole."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from routerr1.errors import CheckpointError, DataError
from routerr1.files import atomic_directory, read_json, sha256, write_json

MANIFEST = "routerr1.json"


def save_policy(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """Copy a checkpoint folder to `target` with its manifest; `target` changes at once or not at all."""
    with atomic_directory(target) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)
        write_manifest(aside, about)


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Say in `folder` what it holds: `about`, and `files` (name -> SHA-256)."""
    write_json(folder / MANIFEST, {**about, "files": checksums(folder, MANIFEST)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a saved policy, or of another folder with one, after checking every file it lists.

    Raises: CheckpointError naming the folder and the file that is missing or differs.
    """
    try:
        manifest = read_json(folder / MANIFEST)
    except DataError as error:
        raise CheckpointError(f"{error}; run the stage that writes {folder} again") from None
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict):
        raise CheckpointError(f"{folder / MANIFEST}: lists no files")
    broken = first_broken(folder, listed)
    if broken is not None:
        raise CheckpointError(f"{broken}; restore it with `dvc checkout`")
    return dict(manifest)


def checksums(folder: Path, without: str) -> dict[str, str]:
    """SHA-256 of every file under `folder`, by its path there; the file `without` is left out."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: sha256(folder / name) for name in names if name != without}


def first_broken(folder: Path, listed: Mapping[str, str]) -> str | None:
    """What is wrong with the first file that is not as in `checksums`; None if all are."""
    for name, wanted in listed.items():
        if not (folder / name).is_file():
            return f"{folder / name}: is missing"
        if sha256(folder / name) != wanted:
            return f"{folder / name}: is corrupt"
    return None
