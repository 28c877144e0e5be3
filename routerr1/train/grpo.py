"""GRPO (arXiv 2402.03300) through TRL, over the one rollout loop.

TRL owns the update, `player.py` what happens between a prompt and a reward, `recorder.py` what is written;
here they are put together.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from routerr1.config import TrainParams
from routerr1.errors import BudgetExceeded, ConfigError, DataError
from routerr1.pool.build import RUN_VARIABLE
from routerr1.reward import CostScale
from routerr1.train.player import Player
from routerr1.train.recorder import BEST, last_complete, recorder_of, save_now
from routerr1.train.setting import Setting, Task
from routerr1.types import Trajectory

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the best weights lie, and how the run went.

    Attributes:
        rows: one mapping per step, the columns of log.csv; equal for equal params, data and seed.
        start: validation figures of the policy that training began with, named as in `rows`.
        timing: seconds per step for generation (with calls and rewards), training and validation; not
            equal from run to run.
    """

    folder: Path
    rows: list[dict[str, float]]
    timing: list[dict[str, float]]
    start: Mapping[str, float]
    best_step: int
    best_reward: float
    cost_scale: CostScale

    @property
    def by_step(self) -> dict[float, Mapping[str, float]]:
        """The figures of every step, each once; the start is step 0."""
        return {0.0: self.start, **{row["step"]: row for row in self.rows}}


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
    `train.validation_questions` questions), the start and the last step among them; of equal ones the later.

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
    from routerr1.policy.load import LoadOptions
    from routerr1.rollout.local import LocalGenerator

    how = setting.how or LoadOptions()
    generator = LocalGenerator.load(
        start, how, lockstep=setting.lockstep, trained=setting.train.lora is None
    )
    prompts = [setting.render(task.question, task.pool.cards) for task in setting.tasks]
    by_prompt = _by_prompt(prompts, setting)
    player = Player(setting, generator, by_prompt, log_played)
    if setting.train.steps == 0:
        return _as_it_is(start, player, progress)
    recorder = recorder_of(player, folder, progress, log_step)
    trainer = player.trainer = _trainer(player, prompts, recorder, folder)
    last = last_complete(folder)
    if last is not None:
        recorder.restore(last)
        _log.info("resuming from %s", last)
    try:
        # Shards can only be loaded once training has begun; there the log lacks this validation.
        if last is not None and recorder.owes_validation and not trainer.is_fsdp_enabled:
            trainer._load_from_checkpoint(str(last))
            recorder.catch_up()
        # Resumed at its end, transformers would take one step too many.
        if not recorder.finished:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    except BudgetExceeded as stop:
        save_now(trainer)
        step = int(recorder.rows[-1]["step"]) if recorder.rows else 0
        done = f"after step {step} and kept it" if step else "before its first step"
        raise BudgetExceeded(
            f"{stop}; training stopped {done}: raise pool.budget or name a new run ({RUN_VARIABLE}), "
            "and train again to go on"
        ) from None
    return Trained(
        folder / BEST, recorder.rows, recorder.timing, recorder.start, recorder.best_step,
        recorder.best_reward, player.scale,
    )  # fmt: skip


def _trainer(player: Player, prompts: Sequence[str], recorder: Any, folder: Path) -> Any:
    """TRL's trainer around the player's policy.

    Raises: ConfigError for what does not go with FSDP.
    """
    from datasets import Dataset
    from transformers import PrinterCallback

    from routerr1.train.trainer import PackedTrainer

    setting, generator = player.setting, player.generator
    trainer = PackedTrainer(
        model=generator.model,
        processing_class=generator.tokenizer,
        args=_config(setting, folder),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        reward_funcs=_reward_functions(setting.train),
        rollout_func=player.rollouts,
        callbacks=[recorder],
        peft_config=_lora(setting.train),
    )
    if trainer.is_fsdp_enabled and (setting.train.vllm is None or setting.train.lora):
        raise ConfigError(
            "params.yaml: train: FSDP shards the weights: it needs train.vllm to play and has no place for "
            "train.lora; adapters fit on one GPU each (launch/ddp.yaml)"
        )
    if setting.rehearsal is not None:
        if trainer.is_fsdp_enabled:
            raise ConfigError("params.yaml: train.rehearsal_weight: not with FSDP; set it to 0")
        trainer.rehearsal = setting.rehearsal
        trainer.rehearsal_weight = setting.train.rehearsal_weight
    trainer.remove_callback(PrinterCallback)  # the log is ours
    return trainer


def _as_it_is(start: Path, player: Player, progress: Callable[..., None]) -> Trained:
    figures = {f"validation/{key}": value for key, value in player.validate().items()}
    row = {"step": 0.0, **figures}
    progress({**row, "reward": row["validation/reward"], "em": row["validation/em"]})
    return Trained(start, [row], [], figures, 0, row["validation/reward"], player.scale)


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

    from routerr1.policy.load import LoadOptions

    params, how = setting.train, setting.how or LoadOptions()
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
        scale_rewards=params.scale_rewards,
        multi_objective_aggregation=params.multi_objective_aggregation,
        reward_weights=_part_weights(setting),
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


def _by_prompt(prompts: Sequence[str], setting: Setting) -> dict[str, Task]:
    by_prompt: dict[str, Task] = {}
    for prompt, task in zip(prompts, setting.tasks, strict=True):
        known = by_prompt.setdefault(prompt, task)
        if known.question.id != task.question.id:
            raise DataError(
                f"training questions {known.question.id} and {task.question.id} give the same prompt; "
                "remove one of them"
            )
    return by_prompt


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


def _part_weights(setting: Setting) -> list[float] | None:
    """Of format, answer and cost once each is normalised, which takes alpha out of it; None for the sum."""
    if setting.train.multi_objective_aggregation == "sum_then_normalize":
        return None
    alpha = setting.reward.cost_weight
    return [1.0, 1.0 - alpha, alpha]


def _part(
    prompts: list[str], parts: list[tuple[float, ...]], *, place: int, **_: Any
) -> list[float]:
    return _reward(prompts, [each[place] for each in parts])
