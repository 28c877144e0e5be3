"""Time of a training step by part: generation, pool, reward, update, and the rest.

Trains for some steps from the warm start that `dvc repro warmstart` left, as the train stage does,
and times the parts by wrapping their functions. Validation and checkpoints are left out. Prints
one JSON object, seconds as medians over steps. `useful` is the share of a step in which one of the
four parts runs; `ratio` is a step over generation and update alone.

    python -m benchmarks.train --steps 30 --out docs/results/train.json
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from benchmarks import shared
from routerr1.config import load_params
from routerr1.lineage import PATHS
from routerr1.stages.train import training_context
from routerr1.train import grpo, rollouts
from routerr1.workspace import Workspace

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARM_UP = 3  # steps not counted: imports, first allocations


class Stopwatch:
    """Seconds by part; a part that runs inside another is counted in both."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)

    def time(self, owner: Any, method: str, part: str) -> None:
        """Count what `owner.method` takes as `part` from now on."""
        plain: Callable[..., Any] = getattr(owner, method)

        @wraps(plain)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.clock()
            try:
                return plain(*args, **kwargs)
            finally:
                self.seconds[part] += self.clock() - began

        setattr(owner, method, timed)

    def time_async(self, owner: Any, method: str, part: str) -> None:
        """The same for a coroutine; what runs while it waits is counted too, so use it on what does not."""
        plain: Callable[..., Awaitable[Any]] = getattr(owner, method)

        @wraps(plain)
        async def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.clock()
            try:
                return await plain(*args, **kwargs)
            finally:
                self.seconds[part] += self.clock() - began

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        """What was counted since the last call."""
        taken, self.seconds = self.seconds, defaultdict(float)
        return taken


class Enough(Exception):
    """As many steps as were asked for."""


def measure(steps: int, seed: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Train and time."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from trl import GRPOTrainer

    from routerr1.rollout.engine.scheduler import Scheduler
    from routerr1.simulation.pool import SimulatedPool
    from routerr1.train.trl_adapter import PackedTrainer

    params = load_params()
    never = {"steps": steps + WARM_UP + 1, "validate_every": 10**6, "checkpoint_every": 10**6}
    params = params.replace(train=params.train.replace(**never))
    workspace = Workspace(params)
    pool = workspace.open_pool(workspace.cards)
    watch = Stopwatch(clock)
    watch.time(Scheduler, "_step", "generation")
    watch.time_async(SimulatedPool, "ask", "pool")
    watch.time(rollouts, "score_batch", "reward")
    watch.time(rollouts.StepRollouts, "__call__", "rollouts")
    watch.time(GRPOTrainer, "_generate_and_score_completions", "prepared")
    watch.time(PackedTrainer, "compute_loss", "loss")
    watch.time(Accelerator, "backward", "backward")
    watch.time(AcceleratedOptimizer, "step", "optimizer")
    measured: list[dict[str, float]] = []
    last = clock()

    def progress(row: dict[str, float]) -> None:
        nonlocal last
        taken = watch.take()
        taken["step"] = clock() - last
        taken["reference"] = taken["prepared"] - taken["rollouts"]
        taken["update"] = sum(taken[p] for p in ("reference", "loss", "backward", "optimizer"))
        taken["other"] = taken["step"] - sum(
            taken[p] for p in ("generation", "pool", "reward", "update")
        )
        measured.append(taken)
        if row["step"] == steps + WARM_UP:
            raise Enough
        last = clock()

    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        grpo.train(
            PATHS.warmstart / f"seed-{seed}", training_context(workspace, pool, seed),
            Path(folder), progress=progress,
        )  # fmt: skip
    return figures(
        measured[WARM_UP:], params.train.questions_per_step * params.train.rollouts_per_question
    )


def figures(measured: list[dict[str, float]], rollouts: int) -> dict[str, Any]:
    """Medians over steps, and what follows from them."""
    parts = (
        "step", "generation", "pool", "reward", "update", "reference", "loss", "backward",
        "optimizer", "other",
    )  # fmt: skip
    median = {part: statistics.median(taken[part] for taken in measured) for part in parts}
    alone = median["generation"] + median["update"]
    return {
        "seconds": {part: round(value, 4) for part, value in median.items()},
        "rollouts_per_s": round(rollouts / median["step"], 1),
        "useful": round(1 - median["other"] / median["step"], 3),
        "ratio": round(median["step"] / alone, 3),
    }


def main() -> None:
    """Measure, print JSON, write it where asked."""
    parser = shared.parser(__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: of all threads, where others use the machine too",
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {
        "preset": load_params().preset, "steps": args.steps, "seed": args.seed,
        "threads": args.threads, "clock": args.clock,
        **measure(args.steps, args.seed, CLOCKS[args.clock]),
    }  # fmt: skip
    shared.report(found, args.out)


if __name__ == "__main__":
    main()
