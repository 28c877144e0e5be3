"""Trainings of the ci preset that are killed: a process that imports everything once and forks each of them.

    python -m tests.stages.killed FOLDER

FOLDER holds `whole`, `broken` and `seeds`, working folders alike; `seeds` has a second warm start. Prints as JSON which steps each training played.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What training imports when it comes to it, imported once, before the forks.
import mlflow.pyfunc
import mlflow.store.tracking.sqlalchemy_store
import mlflow.system_metrics.system_metrics_monitor  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import routerr1.train.trl_adapter  # noqa: F401
from routerr1.config import Params, load_params
from routerr1.errors import LockHeld
from routerr1.rollout.engine.scheduler import Scheduler
from routerr1.stages.dataset import dataset
from routerr1.stages.train import train as train_stage
from routerr1.train import checkpoint
from routerr1.train import process_lock as guard
from routerr1.train.rollouts import StepRollouts

PLAYED = Path("played.txt")
HELD = 7


def child(folder: Path, work: Callable[[Params], object]) -> int:
    """Fork; `work` on the parameters of `folder`, in it. Returns the process."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.chdir(folder)
        PLAYED.unlink(missing_ok=True)
        work(load_params())
        code = 0
    except LockHeld:
        code = HELD
    finally:
        os._exit(code)


def end(process: int) -> int:
    """Wait for its end; the exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(moment: Callable[[int], None] | None = None) -> Callable[[Params], None]:
    """Train, noting every step that is played; `moment` is called in the middle of playing a step."""

    def work(params: Params) -> None:
        rollouts = StepRollouts.__call__
        generate = Scheduler._step
        playing = [-1]

        def noted(self: Any, prompts: list[str], trainer: Any) -> Any:
            playing[0] = trainer.state.global_step
            with PLAYED.open("a") as stream:
                stream.write(f"{playing[0]}\n")
            found = rollouts(self, prompts, trainer)
            playing[0] = -1
            return found

        def step(self: Any) -> None:
            generate(self)
            if moment is not None and playing[0] >= 0:
                moment(playing[0])

        StepRollouts.__call__ = noted  # type: ignore[method-assign]
        Scheduler._step = step  # type: ignore[method-assign]
        train_stage(params)

    return work


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_in_step_3(step: int) -> None:
    if step == 3:
        Path("waiting").touch()
        signal.pause()


def die_while_saving(params: Params) -> None:
    """Killed once the weights of the checkpoint of step 4 are written, and our state is not."""
    write = checkpoint.write_json

    def written(path: Path, value: Any) -> None:
        if path.parent.name == "checkpoint-4":
            die()
        write(path, value)

    checkpoint.write_json = written  # type: ignore[assignment]
    train()(params)


def try_once(params: Params) -> None:
    guard._WAIT_S = 0.2
    train()(params)


def other_weight(params: Params) -> None:
    reward = params.reward.model_copy(update={"cost_weight": 0.3})
    train(lambda _: die())(params.model_copy(update={"reward": reward}))


def other_data(params: Params) -> None:
    shutil.copytree("data/questions", "kept")
    data = params.dataset.model_copy(update={"seed": params.dataset.seed + 1})
    dataset(params.model_copy(update={"dataset": data}))
    train(lambda _: die())(params)


def with_a_second_seed(work: Callable[[Params], object]) -> Callable[[Params], object]:
    """Two seeds, of one step each."""

    def both(params: Params) -> None:
        short = params.train.model_copy(update={"steps": 1})
        work(params.model_copy(update={"seeds": (1, 2), "train": short}))

    return both


def die_in_the_second_seed(_: int) -> None:
    if PLAYED.read_text().split() == ["0", "0"]:
        die()


def main(root: Path) -> dict[str, Any]:
    """All of it in turn."""
    found: dict[str, Any] = {}

    def note(name: str, folder: Path, code: int) -> None:
        played = (folder / PLAYED).read_text() if (folder / PLAYED).exists() else ""
        found[name] = {"code": code, "played": [int(line) for line in played.split()]}

    whole, broken = root / "whole", root / "broken"
    note("whole", whole, end(child(whole, train())))
    first = child(broken, train(wait_in_step_3))
    while not (broken / "waiting").exists():
        if os.waitpid(first, os.WNOHANG)[0]:
            raise SystemExit("the first training ended by itself")
        time.sleep(0.05)
    played = (broken / PLAYED).read_text()
    note("second trainer", broken, end(child(broken, try_once)))
    (broken / PLAYED).write_text(played)
    os.kill(first, signal.SIGKILL)
    note("killed while playing", broken, end(first))
    note("other parameter", broken, end(child(broken, other_weight)))
    note("other data", broken, end(child(broken, other_data)))
    shutil.rmtree(broken / "data/questions")
    (broken / "kept").rename(broken / "data/questions")
    note("killed while saving", broken, end(child(broken, die_while_saving)))
    note("resumed", broken, end(child(broken, train())))
    seeds = with_a_second_seed(train(die_in_the_second_seed))
    note("second seed killed", root / "seeds", end(child(root / "seeds", seeds)))
    seeds = with_a_second_seed(train())
    note("second seed resumed", root / "seeds", end(child(root / "seeds", seeds)))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
