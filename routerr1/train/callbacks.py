"""What happens at each step and each checkpoint of a run: log, validation, best weights, state."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from routerr1.config import TrainParams
from routerr1.reward import FrozenCostScale
from routerr1.train.checkpoint import BEST, TrainingState
from routerr1.train.rollouts import StepReport

Validate = Callable[[FrozenCostScale | None], tuple[dict[str, float], FrozenCostScale]]
"""See `validation.validate`; given the scale of the first validation, or None."""

_FROM_TRL = ("loss", "rehearsal_loss", "kl", "entropy", "grad_norm", "learning_rate")


class TrainingCallback(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Logs steps, validates, keeps the best weights, and completes checkpoints.

    Args:
        state: is read and extended.
        folder: of the run.
        report: what the rollouts of the last step came to.
        save_weights: saves the policy's present weights in a folder; every process must call it.
        progress: called with each step's figures.
        log_step: called with each step and its figures and seconds.
    """

    def __init__(
        self,
        params: TrainParams,
        state: TrainingState,
        folder: Path,
        *,
        report: Callable[[], StepReport],
        validate: Validate,
        save_weights: Callable[[Path], None],
        progress: Callable[[dict[str, float]], None],
        log_step: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        self._params = params
        self._state = state
        self._folder = folder
        self._report = report
        self._validate = validate
        self._save_weights = save_weights
        self._progress = progress
        self._log_step = log_step

    @property
    def owes_validation(self) -> bool:
        """Whether a spent budget prevented the validation of the last step."""
        rows = self._state.rows
        return bool(rows) and self._due() and "validation/reward" not in rows[-1]

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        rows = self._state.rows
        return bool(rows) and (rows[-1]["step"] >= self._params.steps or self._stale())

    def catch_up(self) -> None:
        """Validate the last step now; the weights must be those of that step."""
        self._validate_last()
        self._log_last()

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Validate the start, once in a run."""
        if not self._state.start:
            self._state.start = self._validated(0)

    def on_log(self, _args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Add the step's row; validate if it is due, and stop if validation stays worse."""
        if not logs or "reward" not in logs:
            return
        report = self._report()
        row = {"step": float(state.global_step), **report.figures}
        row |= {name: float(logs[name]) for name in _FROM_TRL if name in logs}
        step_s = float(logs.get("step_time", 0.0))
        self._state.rows.append(row)
        self._state.timing.append(
            {
                "step": row["step"],
                "generation_s": report.generation_s,
                "training_s": max(0.0, step_s - report.generation_s),
                "validation_s": 0.0,
            }
        )
        if self._due():
            self._validate_last()
            control.should_training_stop |= self._stale()
        self._log_last()

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Complete the checkpoint, once every process has written its random states."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = self._folder / f"checkpoint-{state.global_step}"
            self._state.save(checkpoint, self._folder / BEST)

    def _due(self) -> bool:
        """Whether the last step is one to validate."""
        step = self._state.rows[-1]["step"]
        return step % self._params.validate_every == 0 or step == self._params.steps

    def _stale(self) -> bool:
        """Whether the last `train.patience` validations brought nothing better."""
        patience, best = self._params.patience, self._state.best_step
        since = sum("validation/reward" in r and r["step"] > best for r in self._state.rows)
        return patience is not None and since >= patience

    def _validate_last(self) -> None:
        began = time.perf_counter()
        row = self._state.rows[-1]
        row.update(self._validated(int(row["step"])))
        self._state.timing[-1]["validation_s"] = time.perf_counter() - began

    def _validated(self, step: int) -> dict[str, float]:
        state = self._state
        figures, state.validation_scale = self._validate(state.validation_scale)
        if figures["reward"] >= state.best_reward:
            state.best_step, state.best_reward = step, figures["reward"]
            self._save_weights(self._folder / BEST)
        return {f"validation/{key}": value for key, value in figures.items()}

    def _log_last(self) -> None:
        if PartialState().is_main_process:
            row = self._state.rows[-1]
            self._progress(row)
            self._log_step(int(row["step"]), row | self._state.timing[-1])
