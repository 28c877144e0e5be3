"""A saved policy: what transformers loads, and routerr1.json, which says what it is and that it is whole."""

import shutil
from pathlib import Path
from typing import Any

from routerr1.errors import CheckpointError, DataError
from routerr1.files import atomic_directory, read_json, sha256, write_json

MANIFEST = "routerr1.json"


def save_policy(source: Path, target: Path, about: dict[str, Any]) -> None:
    """Copy a checkpoint folder to `target` with its manifest; `target` changes at once or not at all.

    Args:
        about: what goes into the manifest beside `files` (name -> SHA-256).
    """
    with atomic_directory(target) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)
        write_manifest(aside, about)


def write_manifest(folder: Path, about: dict[str, Any]) -> None:
    """Say in `folder` what it is (`about`) and which files it consists of."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    listed = {name: sha256(folder / name) for name in names if name != MANIFEST}
    write_json(folder / MANIFEST, {**about, "files": listed})


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
    for name, wanted in listed.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: is missing; restore it with `dvc checkout`")
        if sha256(folder / name) != wanted:
            raise CheckpointError(f"{folder / name}: is corrupt; restore it with `dvc checkout`")
    return dict(manifest)
