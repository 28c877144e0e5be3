"""What a training run writes as it goes: its log, its best weights, and checkpoints to go on from.

Checkpoints live under the run's own folder, outside DVC's outputs, with everything needed to go on:
weights, optimiser, schedule, random states (transformers), cost statistics, the log so far and the best
weights (ours). Our state is written last, with checksums: a checkpoint without it is not complete, and one
that differs from it is not gone on from.
"""

import copy
import csv
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from routerr1.errors import CheckpointError, DataError
from routerr1.files import atomic_path, read_json, write_json
from routerr1.lineage import hash_of
from routerr1.reward import CostScale, FrozenCostScale
from routerr1.train.checkpoint import checksums, first_broken
from routerr1.train.player import Player

_log = logging.getLogger(__name__)

BEST = "best"  # folder of the best weights, in a run's folder and in each of its checkpoints
_STATE = "router_state.json"
_PARTS = ("generation", "training", "validation")  # of a step's seconds
_LOGGED = {
    "loss": "loss",
    "rehearsal_loss": "rehearsal_loss",
    "kl": "kl",
    "entropy": "entropy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


def recorder_of(
    player: Player,
    folder: Path,
    progress: Callable[[dict[str, float]], None],
    log_step: Callable[[int, Mapping[str, float]], None],
) -> Any:
    """A TrainerCallback, made here because its base class is heavy to import."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
        """Writes what TRL and the rollouts report, validates, and completes checkpoints."""

        def __init__(self) -> None:
            self.rows: list[dict[str, float]] = []
            self.timing: list[dict[str, float]] = []
            self.start: dict[str, float] = {}
            self.best_step, self.best_reward = 0, float("-inf")

        def restore(self, checkpoint: Path) -> None:
            """Take back what `on_save` wrote; `checkpoint` is from `last_complete`, which checked it."""
            state = read_json(checkpoint / _STATE)
            self.rows, self.timing, self.start = state["rows"], state["timing"], state["start"]
            player.validation_scale = FrozenCostScale(**state["validation_scale"])
            self.best_step, self.best_reward = state["best_step"], state["best_reward"]
            player.scale = CostScale.restore(state["cost_scale"])
            if player.trainer.accelerator.is_main_process:
                _copy(checkpoint / BEST, folder / BEST)

        def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            if not self.start:
                self.start = self._validate(0)

        def on_log(self, _args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "reward" not in logs:
                return
            row = {"step": float(state.global_step), **player.figures}
            row |= {ours: float(logs[theirs]) for theirs, ours in _LOGGED.items() if theirs in logs}
            playing, whole = player.generation_s, float(logs.get("step_time", 0.0))
            self.rows.append(row)
            self.timing.append(
                {
                    "step": row["step"],
                    "generation_s": playing,
                    "training_s": max(0.0, whole - playing),
                    "validation_s": 0.0,
                }
            )
            if self._due():
                self._validate_last()
                control.should_training_stop |= self._stale()
            self._report()

        def _due(self) -> bool:
            """Is the last step one that is validated?"""
            step, params = self.rows[-1]["step"], player.setting.train
            return step % params.validate_every == 0 or step == params.steps

        def _validate_last(self) -> None:
            began = time.perf_counter()
            self.rows[-1].update(self._validate(int(self.rows[-1]["step"])))
            self.timing[-1]["validation_s"] = time.perf_counter() - began

        def _report(self) -> None:
            if player.trainer.accelerator.is_main_process:
                row = self.rows[-1]
                progress(row)
                log_step(int(row["step"]), row | self.timing[-1])

        @property
        def owes_validation(self) -> bool:
            """Was the last step's validation refused, for want of money?"""
            return bool(self.rows) and self._due() and "validation/reward" not in self.rows[-1]

        def catch_up(self) -> None:
            """Make up for that validation; the weights must be those of the last step."""
            self._validate_last()
            self._report()

        @property
        def finished(self) -> bool:
            """Is there no step left to take?"""
            steps = player.setting.train.steps
            return bool(self.rows) and (self.rows[-1]["step"] >= steps or self._stale())

        def _stale(self) -> bool:
            """Has validation brought nothing better for `train.patience` times in a row?"""
            patience = player.setting.train.patience
            since = sum("validation/reward" in r and r["step"] > self.best_step for r in self.rows)
            return patience is not None and since >= patience

        def _validate(self, step: int) -> dict[str, float]:
            figures = player.validate()
            if figures["reward"] >= self.best_reward:
                self.best_step, self.best_reward = step, figures["reward"]
                self._keep()
            return {f"validation/{key}": value for key, value in figures.items()}

        def _keep(self) -> None:
            accelerator = player.trainer.accelerator
            model, weights = _to_save(player.trainer)
            if accelerator.is_main_process:
                aside = folder / f".{BEST}.tmp"
                shutil.rmtree(aside, ignore_errors=True)
                model.save_pretrained(aside, state_dict=weights)
                player.generator.tokenizer.save_pretrained(aside)
                shutil.rmtree(folder / BEST, ignore_errors=True)
                aside.replace(folder / BEST)
            accelerator.wait_for_everyone()

        def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            # Each process writes random states of its own.
            player.trainer.accelerator.wait_for_everyone()
            if not state.is_world_process_zero:
                return
            assert player.validation_scale is not None  # the start was validated
            checkpoint = folder / f"checkpoint-{state.global_step}"
            if (folder / BEST).is_dir():
                _copy(folder / BEST, checkpoint / BEST)
            ours = {
                "rows": self.rows,
                "timing": self.timing,
                "best_step": self.best_step,
                "best_reward": self.best_reward,
                "start": self.start,
                "cost_scale": player.scale.state(),
                "validation_scale": asdict(player.validation_scale),
                "files": checksums(checkpoint, _STATE),
            }
            write_json(checkpoint / _STATE, {**ours, "hash": hash_of(ours)})

    return Recorder()


def save_now(trainer: Any) -> None:
    """A checkpoint of the last finished step, which TRL would only make every so often."""
    step = int(trainer.state.global_step)
    if step and not (Path(trainer.args.output_dir) / f"checkpoint-{step}" / _STATE).is_file():
        trainer._save_checkpoint(trainer.model, trial=None)
        trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


def _to_save(trainer: Any) -> tuple[Any, dict[str, Any] | None]:
    """The policy as transformers saves it, and its weights if the model does not hold them whole.

    All processes must ask: shards are gathered. Adapters are merged into a copy, as merging rounds.
    """
    from peft import PeftModel

    if trainer.is_fsdp_enabled:
        return trainer.model, trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if isinstance(trainer.model, PeftModel):
        return copy.deepcopy(trainer.model).merge_and_unload(), None
    return trainer.model, None


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, target)


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written; a warning names what is wrong with a newer one."""
    finished = [path for path in folder.glob("checkpoint-*") if (path / _STATE).is_file()]
    for path in sorted(finished, key=_step_of, reverse=True):
        try:
            _verify(path)
        except (CheckpointError, DataError) as error:
            _log.warning("%s; not going on from step %d", error, _step_of(path))
        else:
            return path
    return None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _verify(checkpoint: Path) -> None:
    """Raises: CheckpointError, DataError naming the file that is not as `on_save` left it."""
    state = read_json(checkpoint / _STATE)
    if not isinstance(state, dict) or state.pop("hash", None) != hash_of(state):
        raise CheckpointError(f"{checkpoint / _STATE}: is corrupt")
    broken = first_broken(checkpoint, state["files"])
    if broken is not None:
        raise CheckpointError(broken)


def train_hours(timing: Iterable[Mapping[str, float]]) -> float:
    """Hours that these steps took, whichever process made them; loading, and steps lost to a kill, are not in it."""
    return sum(row[f"{part}_s"] for row in timing for part in _PARTS) / 3600


def train_cost_usd(rows: Iterable[Mapping[str, float]], rollouts: int, validated: int) -> float:
    """USD for the calls of these steps: `rollouts` in each, and `validated` questions where it was validated."""
    per_row = (("cost_usd", rollouts), ("validation/cost_usd", validated))
    return sum(row.get(name, 0.0) * count for row in rows for name, count in per_row)


def write_log(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Rows as CSV, seed and step first, then by name; empty where a row has no value."""
    names = {key for row in rows for key in row}
    columns = sorted(names, key=lambda key: (key != "seed", key != "step", key))
    with atomic_path(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
