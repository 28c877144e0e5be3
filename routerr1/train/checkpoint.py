"""Saved policies, and what a training run keeps to continue after a kill.

A saved policy is what transformers loads, and routerr1.json: what the policy is, and a checksum for each
file.

Checkpoints of a run live in the run's own folder, outside DVC's outputs. transformers writes weights,
optimiser, schedule and random states. `TrainingState` adds the cost scales, the log so far and the best
weights. It is written last, with checksums: a checkpoint without it is incomplete, and one that fails
its checksums is never resumed.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from routerr1.errors import CheckpointError, DataError
from routerr1.files import atomic_directory, read_json, sha256, write_json
from routerr1.lineage import hash_of
from routerr1.reward import CostScale, FrozenCostScale

MANIFEST = "routerr1.json"
BEST = "best"  # folder of the best weights, in a run's folder and in each of its checkpoints
_STATE = "router_state.json"
_log = logging.getLogger(__name__)


def save_policy(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """Copy a checkpoint folder to `target` with its manifest, in one atomic change."""
    with atomic_directory(target) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)
        write_manifest(aside, about)


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest of `folder`: `about`, and `files` (name -> SHA-256)."""
    write_json(folder / MANIFEST, {**about, "files": checksums(folder, MANIFEST)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a saved policy, or of another folder that has one, with every file checked.

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
    """SHA-256 of every file under `folder` but `without`, by its path relative to the folder."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: sha256(folder / name) for name in names if name != without}


def first_broken(folder: Path, listed: Mapping[str, str]) -> str | None:
    """Why the first file that differs from its checksum does; None if all files match."""
    for name, wanted in listed.items():
        if not (folder / name).is_file():
            return f"{folder / name}: is missing"
        if sha256(folder / name) != wanted:
            return f"{folder / name}: is corrupt"
    return None


@dataclass(slots=True)
class TrainingState:
    """What a run must keep beside weights, optimiser, schedule and random states.

    Attributes:
        cost_scale: of training; grows with each step.
        validation_scale: of the first validation, whose scale serves all later ones.
        rows: figures of each step, the columns of log.csv.
        timing: seconds of each step.
        start: figures of the first validation.
        best_step, best_reward: of the best validation so far.
    """

    cost_scale: CostScale
    validation_scale: FrozenCostScale | None = None
    rows: list[dict[str, float]] = field(default_factory=list)
    timing: list[dict[str, float]] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    best_reward: float = float("-inf")

    def save(self, checkpoint: Path, best: Path) -> None:
        """Complete a checkpoint that transformers wrote.

        Args:
            best: folder of the best weights, which is copied into the checkpoint.
        """
        assert self.validation_scale is not None  # the start was validated
        if best.is_dir():
            _replace_folder(best, checkpoint / BEST)
        state = {
            "rows": self.rows,
            "timing": self.timing,
            "best_step": self.best_step,
            "best_reward": self.best_reward,
            "start": self.start,
            "cost_scale": self.cost_scale.state(),
            "validation_scale": asdict(self.validation_scale),
            "files": checksums(checkpoint, _STATE),
        }
        write_json(checkpoint / _STATE, {**state, "hash": hash_of(state)})

    @classmethod
    def load(cls, checkpoint: Path) -> "TrainingState":
        """The state in a checkpoint that `last_complete` found."""
        state = read_json(checkpoint / _STATE)
        return cls(
            CostScale.restore(state["cost_scale"]),
            FrozenCostScale(**state["validation_scale"]),
            state["rows"],
            state["timing"],
            state["start"],
            state["best_step"],
            state["best_reward"],
        )


def is_complete(checkpoint: Path) -> bool:
    """Whether the state of a checkpoint was written; it is the last file."""
    return (checkpoint / _STATE).is_file()


def restore_best(checkpoint: Path, folder: Path) -> None:
    """Take the best weights of a checkpoint back into the run's folder."""
    _replace_folder(checkpoint / BEST, folder / BEST)


def last_complete(folder: Path) -> Path | None:
    """The newest intact checkpoint of a run; a warning names what is wrong with a newer one."""
    finished = [path for path in folder.glob("checkpoint-*") if is_complete(path)]
    for path in sorted(finished, key=_step_of, reverse=True):
        try:
            _verify(path)
        except (CheckpointError, DataError) as error:
            _log.warning("%s; not resuming from step %d", error, _step_of(path))
        else:
            return path
    return None


def _replace_folder(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, target)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _verify(checkpoint: Path) -> None:
    """Raises: CheckpointError, DataError naming the file that differs from what `save` left."""
    state = read_json(checkpoint / _STATE)
    if not isinstance(state, dict) or state.pop("hash", None) != hash_of(state):
        raise CheckpointError(f"{checkpoint / _STATE}: is corrupt")
    broken = first_broken(checkpoint, state["files"])
    if broken is not None:
        raise CheckpointError(broken)
