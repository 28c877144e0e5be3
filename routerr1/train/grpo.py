"""GRPO (arXiv 2402.03300) through TRL, over the one rollout loop.

TRL computes the update. This file connects the parts of a run: rollouts, validation, callbacks and
the state that checkpoints keep.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from routerr1.config import TrainParams
from routerr1.errors import BudgetExceeded, ConfigError
from routerr1.pool.build import RUN_VARIABLE
from routerr1.reward import CostScale, FrozenCostScale
from routerr1.rollout.local import LocalGenerator
from routerr1.train.checkpoint import BEST, TrainingState, last_complete, restore_best
from routerr1.train.context import TrainingContext
from routerr1.train.rollouts import RolloutWorker, StepRollouts, TrainedPolicy
from routerr1.train.validation import validate
from routerr1.types import Trajectory

LogStep = Callable[[int, Mapping[str, float]], None]
LogRollouts = Callable[[int, Sequence[Trajectory]], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trained:
    """The best weights of a run, and its figures.

    Attributes:
        folder: of the best weights.
        rows: one mapping per step, the columns of log.csv; equal for equal params, data and seed.
        timing: seconds per step of generation (with calls and rewards), training and validation;
            they differ from run to run.
        start: validation figures of the policy before training, named as in `rows`.
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
    context: TrainingContext,
    folder: Path,
    *,
    policy: TrainedPolicy | None = None,
    progress: Callable[[dict[str, float]], None],
    log_step: LogStep = lambda _step, _row: None,
    log_rollouts: LogRollouts = lambda _step, _trajectories: None,
) -> Trained:
    """Train from the checkpoint `start` in `folder`, or resume its last complete checkpoint there.

    The best weights are those of the step with the highest mean validation reward (greedy, on
    `train.validation_questions` questions). The start and the last step are candidates; the later
    of equal ones wins.

    Args:
        policy: what `start` holds, loaded; its weights are trained in place. None loads it.
        log_step: called with the figures and seconds of each step.
        log_rollouts: called with the trajectories that a step learns from.

    Raises:
        CheckpointError: `start` cannot be loaded.
        ConfigError: params ask for what these processes cannot do.
        BudgetExceeded: the pool's budget refused a call. No step used refused calls, and `folder`
            holds a checkpoint of the last step.
    """
    if policy is None:
        policy = LocalGenerator.load(
            start, context.load, lockstep=context.lockstep, trained=context.train.lora is None
        )
    if context.train.steps == 0:
        return _untrained(start, policy, context, progress)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from routerr1.train import trl_adapter
    from routerr1.train.callbacks import TrainingCallback

    vllm = context.train.vllm
    last = last_complete(folder)
    state = TrainingState.load(last) if last else TrainingState(_new_scale(context))
    worker = RolloutWorker(context, policy)
    # TRL hands back what it was given: the task's place, since the prompt does not tell its pool.
    places = {f"task {place}": task for place, task in enumerate(context.tasks)}
    rollouts = StepRollouts(
        context, worker, places, state,
        eos=policy.tokenizer.eos_token_id,
        open_generation=lambda trainer: trl_adapter.open_generation(trainer, policy, vllm),
        log_rollouts=log_rollouts,
    )  # fmt: skip
    trainer = _trainer(policy, context, list(places), rollouts, folder)

    def validated(scale: FrozenCostScale | None) -> tuple[dict[str, float], FrozenCostScale]:
        trl_adapter.sync_vllm_weights(trainer)
        generation = trl_adapter.open_generation(trainer, policy, vllm)
        return validate(context, worker, generation, scale)

    callback = TrainingCallback(
        context.train, state, folder,
        report=lambda: rollouts.report,
        validate=validated,
        save_weights=partial(trl_adapter.save_weights, trainer, policy.tokenizer),
        progress=progress, log_step=log_step,
    )  # fmt: skip
    trainer.add_callback(callback)
    if last is not None:
        if trainer.accelerator.is_main_process:
            restore_best(last, folder)
        _log.info("resuming from %s", last)
    try:
        # FSDP loads shards only once training has begun; its log lacks this validation.
        if last is not None and callback.owes_validation and not trainer.is_fsdp_enabled:
            trl_adapter.load_weights(trainer, last)
            callback.catch_up()
        # transformers would take one step too many if it resumed at the end.
        if not callback.finished:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    except BudgetExceeded as stop:
        trl_adapter.save_checkpoint(trainer)
        step = int(state.rows[-1]["step"]) if state.rows else 0
        done = f"after step {step} and kept it" if step else "before its first step"
        raise BudgetExceeded(
            f"{stop}; training stopped {done}: raise pool.budget or name a new run ({RUN_VARIABLE}), "
            "and train again to resume"
        ) from None
    return Trained(
        folder / BEST, state.rows, state.timing, state.start, state.best_step, state.best_reward,
        state.cost_scale,
    )  # fmt: skip


def _trainer(
    policy: TrainedPolicy,
    context: TrainingContext,
    prompts: Sequence[str],
    rollouts: StepRollouts,
    folder: Path,
) -> Any:
    """TRL's trainer around the policy.

    Raises: ConfigError for what FSDP does not support.
    """
    from datasets import Dataset
    from transformers import PrinterCallback

    from routerr1.train.trl_adapter import PackedTrainer

    trainer = PackedTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        args=grpo_config(context, folder),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        reward_funcs=_reward_functions(context.train),
        rollout_func=rollouts,
        peft_config=_lora(context.train),
    )
    if trainer.is_fsdp_enabled and (context.train.vllm is None or context.train.lora):
        raise ConfigError(
            "params.yaml: train: FSDP shards the weights: it needs train.vllm to generate and does not "
            "support train.lora; adapters fit on one GPU each (launch/ddp.yaml)"
        )
    if context.rehearsal is not None:
        if trainer.is_fsdp_enabled:
            raise ConfigError(
                "params.yaml: train.rehearsal_weight: FSDP does not support it; set it to 0"
            )
        trainer.rehearsal = context.rehearsal
        trainer.rehearsal_weight = context.train.rehearsal_weight
    trainer.remove_callback(PrinterCallback)  # TrainingCallback logs
    return trainer


def _untrained(
    start: Path,
    policy: TrainedPolicy,
    context: TrainingContext,
    progress: Callable[[dict[str, float]], None],
) -> Trained:
    """The start itself, validated."""
    found, _ = validate(context, RolloutWorker(context, policy), nullcontext(policy), None)
    figures = {f"validation/{key}": value for key, value in found.items()}
    row = {"step": 0.0, **figures}
    progress({**row, "reward": found["reward"], "em": found["em"]})
    return Trained(start, [row], [], figures, 0, found["reward"], _new_scale(context))


def _new_scale(context: TrainingContext) -> CostScale:
    return CostScale(context.reward.cost_window)


def _lora(params: TrainParams) -> Any:
    if params.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", r=params.lora.rank,
        lora_alpha=params.lora.alpha, lora_dropout=params.lora.dropout,
    )  # fmt: skip


def grpo_config(context: TrainingContext, folder: Path) -> Any:
    """TRL's configuration of a run in `folder`.

    Raises: ConfigError if a step does not divide into these processes and passes.
    """
    from accelerate import PartialState
    from trl import GRPOConfig

    params, load = context.train, context.load
    on_cpu = load.device == "cpu"
    rounds = context.rollout.max_rounds + 1
    batch = params.questions_per_step * params.rollouts_per_question
    processes = PartialState(cpu=on_cpu).num_processes
    share, left = divmod(params.questions_per_step, processes)
    share *= params.rollouts_per_question
    at_once = params.rollouts_per_pass or share
    if left or share % at_once:
        raise ConfigError(
            f"params.yaml: train: {batch} rollouts a step do not divide into {processes} processes of whole "
            f"questions and passes of {at_once}; change questions_per_step or rollouts_per_pass"
        )
    vllm: dict[str, Any] = {}
    if params.vllm is not None:
        vllm = {
            "use_vllm": True,
            "vllm_mode": params.vllm.mode,
            "vllm_server_base_url": params.vllm.url,
            "vllm_group_port": params.vllm.group_port,
            "vllm_gpu_memory_utilization": params.vllm.gpu_memory,
            "vllm_max_model_length": context.rollout.max_tokens,
        }
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=params.steps,
        per_device_train_batch_size=at_once,
        num_generations=params.rollouts_per_question,
        gradient_accumulation_steps=share // at_once,
        max_completion_length=rounds * context.rollout.max_new_tokens,
        temperature=context.rollout.temperature,
        beta=params.kl_weight,
        loss_type=params.loss,
        scale_rewards=params.scale_rewards,
        multi_objective_aggregation=params.multi_objective_aggregation,
        reward_weights=_part_weights(context),
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
        bf16=load.dtype == "bfloat16",
        activation_checkpointing=params.gradient_checkpointing,
        dataloader_pin_memory=False,  # prompts are text
        seed=context.seed,
        shuffle_dataset=False,  # tasks come in a drawn order
        **vllm,
    )


def _reward(prompts: list[str], reward: list[float], **_: Any) -> list[float]:
    """The rewards that came with the rollouts."""
    if len(reward) != len(prompts):
        raise RuntimeError(f"{len(reward)} rewards for {len(prompts)} rollouts")
    return reward


def _reward_functions(params: TrainParams) -> Any:
    """One function for the whole reward, or one for each part that TRL normalises by itself."""
    if params.multi_objective_aggregation == "sum_then_normalize":
        return _reward
    return [partial(_part, place=place) for place in range(3)]


def _part_weights(context: TrainingContext) -> list[float] | None:
    """Weights of format, answer and cost after each is normalised, which removes alpha; None for a sum."""
    if context.train.multi_objective_aggregation == "sum_then_normalize":
        return None
    alpha = context.reward.cost_weight
    return [1.0, 1.0 - alpha, alpha]


def _part(
    prompts: list[str], parts: list[tuple[float, ...]], *, place: int, **_: Any
) -> list[float]:
    return _reward(prompts, [each[place] for each in parts])
