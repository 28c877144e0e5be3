"""GRPO (arXiv 2402.03300) through TRL, over the one rollout loop.

TRL owns the update; this file owns what happens between a prompt and a reward. A group's rollouts are
told apart by position, never by text. The cost scale is frozen while a step is scored and extended after
it. Checkpoints live under the run's own folder, outside DVC's outputs, with everything needed to go on:
weights, optimiser, schedule, random states (transformers), cost statistics, the log so far and the best
weights (ours, written last: a checkpoint without them is not complete).
"""

import asyncio
import copy
import csv
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1.config import RewardParams, RolloutParams, TrainParams
from routerr1.data.contracts import require_tokens, require_trajectories
from routerr1.errors import BudgetExceeded, ConfigError, DataError
from routerr1.files import atomic_path, read_json, write_json
from routerr1.pool.budget import exhausted
from routerr1.pool.build import RUN_VARIABLE
from routerr1.pool.interface import Pool
from routerr1.prompt import Renderer
from routerr1.reward import CostScale, FrozenCostScale
from routerr1.rollout.loop import play, stream_seed
from routerr1.rollout.record import to_row
from routerr1.train.score import Score, batch_figures, best_model_share, score
from routerr1.types import Question, Trajectory

if TYPE_CHECKING:
    from routerr1.rollout.local import Loading

_STATE = "router_state.json"
_BEST = "best"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """A question and the candidates it may be put to."""

    question: Question
    pool: Pool


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays fixed over a training run.

    Attributes:
        names: candidates whose share of calls is logged; empty if every task has others.
        in_step: see `LocalGenerator`. For runs that are recorded or replayed: both then sample the same.
        how: where and in what the policy computes; None: float32 on the CPU.
    """

    tasks: Sequence[Task]
    validation: Sequence[Task]
    names: Sequence[str]
    render: Renderer
    rollout: RolloutParams
    reward: RewardParams
    train: TrainParams
    seed: int
    in_step: bool = False
    how: "Loading | None" = None


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the best weights lie, and how the run went.

    Attributes:
        rows: one mapping per step, the columns of log.csv; equal for equal params, data and seed.
        timing: seconds per step for generation (with calls and rewards) and for training; not equal from
            run to run.
    """

    folder: Path
    rows: list[dict[str, float]]
    timing: list[dict[str, float]]
    best_step: int
    best_reward: float
    cost_scale: CostScale


def train(
    start: Path,
    setting: Setting,
    folder: Path,
    *,
    progress: Callable[[dict[str, float]], None],
    log_step: Callable[[int, Mapping[str, float]], None] = lambda _step, _row: None,
    log_played: Callable[[int, Sequence[Trajectory]], None] = lambda _step, _played: None,
) -> Trained:
    """Train from the checkpoint `start`, working in `folder`; goes on from the last complete checkpoint there.

    The weights that count are those of the step with the highest mean validation reward (greedy, on
    `train.validation_questions` questions); of equal ones the later.

    Args:
        log_step: called with each step's figures and seconds.
        log_played: called with the trajectories that a step learns from.

    Raises:
        CheckpointError: `start` cannot be loaded.
        ConfigError: params ask for what these processes cannot do.
        BudgetExceeded: the pool's budget refused a call. No step was made with refused calls, and a
            checkpoint of the last step lies in `folder`.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from transformers import PrinterCallback

    from routerr1.rollout.local import Loading, LocalGenerator
    from routerr1.train.trainer import PackedTrainer

    how = setting.how or Loading()
    generator = LocalGenerator.load(
        start, how, in_step=setting.in_step, trained=setting.train.lora is None
    )
    by_prompt = _by_prompt(setting)
    player = _Player(setting, generator, by_prompt, log_played)
    if setting.train.steps == 0:
        return _as_it_is(start, player, progress)
    recorder = _recorder(player, folder, progress, log_step)
    trainer = PackedTrainer(
        model=generator.model,
        processing_class=generator.tokenizer,
        args=_config(setting, folder),
        train_dataset=_dataset(by_prompt),
        reward_funcs=_reward_functions(setting.train),
        rollout_func=player.rollouts,
        callbacks=[recorder],
        peft_config=_lora(setting.train),
    )
    player.trainer = trainer
    if trainer.is_fsdp_enabled and (setting.train.vllm is None or setting.train.lora):
        raise ConfigError(
            "params.yaml: train: FSDP shards the weights: it needs train.vllm to play and has no place for "
            "train.lora; adapters fit on one GPU each (accelerate/ddp.yaml)"
        )
    trainer.remove_callback(PrinterCallback)  # the log is ours
    last = _last_complete(folder)
    if last is not None:
        recorder.restore(last)
        _log.info("resuming from %s", last)
    try:
        # Resumed at its end, transformers would take one step too many.
        if not recorder.finished:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    except BudgetExceeded as stop:
        step = _save_now(trainer)
        raise BudgetExceeded(
            f"{stop}; training stopped after step {step} and kept it: raise pool.budget or name a new "
            f"run ({RUN_VARIABLE}), and train again to go on"
        ) from None
    return Trained(
        folder / _BEST, recorder.rows, recorder.timing, recorder.best_step, recorder.best_reward,
        player.scale,
    )  # fmt: skip


def _save_now(trainer: Any) -> int:
    """A checkpoint of the last finished step, which TRL would only make every so often; returns the step."""
    step = int(trainer.state.global_step)
    if step and not (Path(trainer.args.output_dir) / f"checkpoint-{step}" / _STATE).is_file():
        trainer._save_checkpoint(trainer.model, trial=None)
        trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
    return step


def _as_it_is(start: Path, player: "_Player", progress: Callable[..., None]) -> Trained:
    row = {"step": 0.0, **{f"validation/{k}": v for k, v in player.validate().items()}}
    progress({**row, "reward": row["validation/reward"], "em": row["validation/em"]})
    return Trained(start, [row], [], 0, row["validation/reward"], player.scale)


def _lora(params: TrainParams) -> Any:
    if params.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", r=params.lora.rank,
        lora_alpha=params.lora.alpha, lora_dropout=params.lora.dropout,
    )  # fmt: skip


def _config(setting: Setting, folder: Path) -> Any:
    from accelerate import PartialState
    from trl import GRPOConfig

    from routerr1.rollout.local import Loading

    params, how = setting.train, setting.how or Loading()
    on_cpu = how.device == "cpu"
    rounds = setting.rollout.max_rounds + 1
    batch = params.questions_per_step * params.rollouts_per_question
    processes = PartialState(cpu=on_cpu).num_processes
    share, left = divmod(params.questions_per_step, processes)
    share *= params.rollouts_per_question
    at_once = params.rollouts_per_pass or share
    if left or share % at_once:
        raise ConfigError(
            f"params.yaml: train: {batch} rollouts a step do not part into {processes} processes by whole "
            f"questions, and passes of {at_once}; change questions_per_step or rollouts_per_pass"
        )
    vllm: dict[str, Any] = {}
    if params.vllm is not None:
        vllm = {
            "use_vllm": True,
            "vllm_mode": params.vllm.mode,
            "vllm_server_base_url": params.vllm.url,
            "vllm_group_port": params.vllm.group_port,
            "vllm_gpu_memory_utilization": params.vllm.gpu_memory,
            "vllm_max_model_length": setting.rollout.max_tokens,
        }
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=params.steps,
        per_device_train_batch_size=at_once,
        num_generations=params.rollouts_per_question,
        gradient_accumulation_steps=share // at_once,
        max_completion_length=rounds * setting.rollout.max_new_tokens,
        temperature=setting.rollout.temperature,
        beta=params.kl_weight,
        loss_type=params.loss,
        multi_objective_aggregation=params.multi_objective_aggregation,
        learning_rate=params.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=params.warmup_steps,
        adam_beta2=params.adam_beta2,
        weight_decay=0.0,
        max_grad_norm=params.max_grad_norm,
        logging_steps=1,
        save_strategy="steps",
        save_steps=params.checkpoint_every,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        use_cpu=on_cpu,
        bf16=how.dtype == "bfloat16",
        activation_checkpointing=params.gradient_checkpointing,
        dataloader_pin_memory=False,  # prompts are text
        seed=setting.seed,
        shuffle_dataset=True,
        **vllm,
    )


def _by_prompt(setting: Setting) -> dict[str, Task]:
    by_prompt: dict[str, Task] = {}
    for task in setting.tasks:
        prompt = setting.render(task.question, task.pool.cards)
        if prompt in by_prompt:
            raise DataError(
                f"training questions {by_prompt[prompt].question.id} and {task.question.id} give the same "
                "prompt; remove one of them"
            )
        by_prompt[prompt] = task
    return by_prompt


def _dataset(by_prompt: Mapping[str, Task]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": list(by_prompt)})


def _reward(prompts: list[str], reward: list[float], **_: Any) -> list[float]:
    """Handed to TRL; the score was made with the trajectory at hand."""
    if len(reward) != len(prompts):
        raise RuntimeError(f"{len(reward)} rewards for {len(prompts)} rollouts")
    return reward


def _reward_functions(params: TrainParams) -> Any:
    """One for the whole; or one for each part, where TRL is to normalise them one by one."""
    if params.multi_objective_aggregation == "sum_then_normalize":
        return _reward
    return [partial(_part, place=place) for place in range(3)]


def _part(
    prompts: list[str], parts: list[tuple[float, ...]], *, place: int, **_: Any
) -> list[float]:
    return _reward(prompts, [each[place] for each in parts])


class _Player:
    """Plays a step's prompts, scores them, and remembers the costs."""

    def __init__(
        self,
        setting: Setting,
        generator: Any,
        by_prompt: Mapping[str, Task],
        log_played: Callable[[int, Sequence[Trajectory]], None],
    ) -> None:
        self.setting = setting
        self.generator = generator
        self.by_prompt = by_prompt
        self.log_played = log_played
        self.scale = CostScale(setting.reward.cost_window)
        self.figures: dict[str, float] = {}
        self.generation_s = 0.0
        self.trainer: Any = None  # once there is one

    def rollouts(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """TRL's `rollout_func`: one row per prompt received, in order."""
        began = time.perf_counter()
        tasks = [self.by_prompt[prompt] for prompt in prompts]
        seed = stream_seed(self.setting.seed, trainer.state.global_step)
        first = trainer.accelerator.process_index * len(tasks)
        played = self.play(tasks, seed, temperature=None, first=first)
        scores = self.score(tasks, played, self.scale.freeze())
        everyone = _gathered(list(zip(prompts, played, scores, strict=True)))
        self.scale.extend(s.cost for _, _, s in everyone)
        self.figures = self.summarise(
            [self.by_prompt[prompt] for prompt, _, _ in everyone],
            [trajectory for _, trajectory, _ in everyone],
            [s for _, _, s in everyone],
        )
        self.generation_s = time.perf_counter() - began
        columns = as_columns(played, scores, self.generator.tokenizer.eos_token_id)
        where = f"train, step {trainer.state.global_step}"
        # One group a step: enough to stop on a broken loop, too little to slow training down.
        group = played[: self.setting.train.rollouts_per_question]
        require_trajectories(map(to_row, group), tasks[0].pool.cards, where)
        require_tokens(columns["completion_ids"], columns["env_mask"], columns["logprobs"], where)
        self.log_played(trainer.state.global_step + 1, played)
        return columns

    def play(
        self, tasks: Sequence[Task], seed: int, temperature: float | None, first: int = 0
    ) -> list[Trajectory]:
        """Play with the weights as they are; `first` is the place of the first task among all processes'."""
        model, training = self.generator.model, self.generator.model.training

        async def playing() -> list[Trajectory]:
            async with self._generation() as generator:
                return await play(
                    [task.question for task in tasks],
                    generator,
                    [task.pool for task in tasks],
                    render=self.setting.render,
                    params=self.setting.rollout,
                    seed=seed,
                    temperature=temperature,
                    concurrency=max(1, len(tasks)),
                    first=first,
                )

        model.eval()
        try:
            played = asyncio.run(playing())
        finally:
            model.train(training)
        pools = {id(task.pool): task.pool for task in tasks}.values()
        # Whoever finds the money spent stops all processes: one alone would leave the others waiting.
        refused = [why for pool in pools if (why := exhausted(pool)) is not None]
        for why in _gathered(refused):
            raise BudgetExceeded(why)
        return played

    def _generation(self) -> AbstractAsyncContextManager[Any]:
        """What plays: this process's own weights, or vLLM's copy of them."""
        vllm = self.setting.train.vllm
        if vllm is None or self.trainer is None:
            return nullcontext(self.generator)
        from routerr1.rollout.vllm import ColocatedGenerator, ServerGenerator

        ours = self.generator
        if vllm.mode == "server":
            return ServerGenerator(
                vllm.url, ours.tokenizer, max_length=ours.max_length, chat=ours.chat
            )
        from vllm import SamplingParams

        engine = self.trainer.vllm_generation.llm
        return nullcontext(
            ColocatedGenerator(
                engine, SamplingParams, ours.tokenizer, max_length=ours.max_length, chat=ours.chat
            )
        )

    def score(
        self, tasks: Sequence[Task], played: Sequence[Trajectory], scale: FrozenCostScale
    ) -> list[Score]:
        """Score by one frozen scale."""
        return [
            score(trajectory, task.pool.cards, scale, self.setting.reward)
            for task, trajectory in zip(tasks, played, strict=True)
        ]

    def summarise(
        self, tasks: Sequence[Task], played: Sequence[Trajectory], scores: Sequence[Score]
    ) -> dict[str, float]:
        """The figures of a batch, by their names in log.csv."""
        figures = batch_figures(played, scores, self.setting.names)
        pools = [task.pool for task in tasks]
        best = best_model_share(list(zip(played, pools, strict=True)))
        return figures if best is None else {**figures, "best_model_share": best}

    def validate(self) -> dict[str, float]:
        """Greedy figures on the validation tasks; they neither read nor change training's cost scale."""
        everyone = self.setting.validation
        first, end = _share(len(everyone))
        if self.trainer is not None and self.trainer.use_vllm:
            # TRL brings vLLM the new weights when a step begins; validation comes at its end.
            self.trainer.vllm_generation.sync_weights()
            self.trainer._last_loaded_step = self.trainer.state.global_step
        own = self.play(everyone[first:end], self.setting.seed, temperature=0.0, first=first)
        tasks, played = everyone, _gathered(own)
        scale = CostScale(self.setting.reward.cost_window)
        scale.extend(s.cost for s in self.score(tasks, played, scale.freeze()))
        return self.summarise(tasks, played, self.score(tasks, played, scale.freeze()))


def _gathered(values: list[Any]) -> list[Any]:
    """The values of all processes, in the processes' order."""
    from accelerate.utils import gather_object

    found: list[Any] = gather_object(values)
    return found


def _share(count: int) -> tuple[int, int]:
    """This process's part of so many things: first and end."""
    from accelerate import PartialState

    state = PartialState()
    mine, processes = state.process_index, state.num_processes
    return count * mine // processes, count * (mine + 1) // processes


def as_columns(
    played: Sequence[Trajectory], scores: Sequence[Score], eos: int
) -> dict[str, list[Any]]:
    """Token columns for TRL. `env_mask` is 1 where the policy wrote the token.

    An answered trajectory is closed with the end token, mask 0: TRL counts one without it as cut off.
    """
    columns: dict[str, list[Any]] = {
        key: []
        for key in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "reward", "parts")
    }
    for trajectory, scored in zip(played, scores, strict=True):
        ids: list[int] = []
        logprobs: list[float] = []
        mask: list[int] = []
        for turn in trajectory.turns:
            said = turn.generation
            ids += (*said.token_ids, *turn.inserted_ids)
            logprobs += (*said.logprobs, *(0.0 for _ in turn.inserted_ids))
            mask += [1] * len(said.token_ids) + [0] * len(turn.inserted_ids)
        if trajectory.stopped == "answered":
            ids, logprobs, mask = [*ids, eos], [*logprobs, 0.0], [*mask, 0]
        columns["prompt_ids"].append(list(trajectory.prompt_ids))
        columns["completion_ids"].append(ids)
        columns["logprobs"].append(logprobs)
        columns["env_mask"].append(mask)
        columns["reward"].append(scored.reward)
        columns["parts"].append(scored.parts)
    return columns


_LOGGED = {
    "loss": "loss",
    "kl": "kl",
    "entropy": "entropy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "frac_reward_zero_std": "zero_variance_groups",
}


def _recorder(
    player: _Player,
    folder: Path,
    progress: Callable[[dict[str, float]], None],
    log_step: Callable[[int, Mapping[str, float]], None],
) -> Any:
    """A TrainerCallback, made here because its base class is heavy to import."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]
        """Writes what TRL and the rollouts report, validates, and completes checkpoints."""

        def __init__(self) -> None:
            self.rows: list[dict[str, float]] = []
            self.timing: list[dict[str, float]] = []
            self.best_step, self.best_reward = 0, float("-inf")

        def restore(self, checkpoint: Path) -> None:
            """Take back what `on_save` wrote."""
            state = read_json(checkpoint / _STATE)
            self.rows, self.timing = state["rows"], state["timing"]
            self.best_step, self.best_reward = state["best_step"], state["best_reward"]
            player.scale = CostScale.restore(state["cost_scale"])
            if player.trainer.accelerator.is_main_process:
                _copy(checkpoint / _BEST, folder / _BEST)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if not logs or "reward" not in logs:
                return
            row = {"step": float(state.global_step), **player.figures}
            row |= {ours: float(logs[theirs]) for theirs, ours in _LOGGED.items() if theirs in logs}
            playing, whole = player.generation_s, float(logs.get("step_time", 0.0))
            timing = {"generation_s": playing, "training_s": max(0.0, whole - playing)}
            self.timing.append({"step": row["step"], **timing})
            self.rows.append(row)
            params, step = player.setting.train, state.global_step
            if step % params.validate_every == 0 or (step == params.steps and not self.best_step):
                self._validate(step, row)
                control.should_training_stop |= self._stale()
            if state.is_world_process_zero:
                progress(row)
                log_step(state.global_step, row | timing)

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

        def _validate(self, step: int, row: dict[str, float]) -> None:
            figures = player.validate()
            row |= {f"validation/{key}": value for key, value in figures.items()}
            if figures["reward"] >= self.best_reward:
                self.best_step, self.best_reward = step, figures["reward"]
                self._keep()

        def _keep(self) -> None:
            accelerator = player.trainer.accelerator
            model, weights = _to_save(player.trainer)
            if accelerator.is_main_process:
                aside = folder / f".{_BEST}.tmp"
                shutil.rmtree(aside, ignore_errors=True)
                model.save_pretrained(aside, state_dict=weights)
                player.generator.tokenizer.save_pretrained(aside)
                shutil.rmtree(folder / _BEST, ignore_errors=True)
                aside.replace(folder / _BEST)
            accelerator.wait_for_everyone()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if not state.is_world_process_zero:
                return
            checkpoint = folder / f"checkpoint-{state.global_step}"
            if (folder / _BEST).is_dir():
                _copy(folder / _BEST, checkpoint / _BEST)
            write_json(
                checkpoint / _STATE,
                {
                    "rows": self.rows,
                    "timing": self.timing,
                    "best_step": self.best_step,
                    "best_reward": self.best_reward if self.best_step else -1.0,
                    "cost_scale": player.scale.state(),
                },
            )

    return Recorder()


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


def _last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that holds our state, which is written last."""
    found = [path for path in folder.glob("checkpoint-*") if (path / _STATE).is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def write_log(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Rows as CSV, seed and step first, then by name; empty where a row has no value."""
    names = {key for row in rows for key in row}
    columns = sorted(names, key=lambda key: (key != "seed", key != "step", key))
    with atomic_path(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
