"""Everything of TRL and transformers that training uses and they do not document, in one file.

TRL marks `rollout_func` as experimental. These private names are used; tests/train/test_trl_adapter.py
says what to look at when a new version changes one:
`GRPOTrainer._get_per_token_logps_and_entropies`, `GRPOTrainer._metrics`,
`GRPOTrainer._last_loaded_step`, `Trainer._load_from_checkpoint`, `Trainer._save_checkpoint`,
`VLLMGeneration._iter_named_params`.

Import this file where training starts: TRL takes seconds to import.
"""

import copy
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from routerr1.config import VllmParams
from routerr1.train.checkpoint import is_complete
from routerr1.train.packing import packed_logps
from routerr1.train.rehearsal import Rehearsal
from routerr1.train.rollouts import Generation, TrainedPolicy
from routerr1.train.warmstart import packed_loss

_LARGEST_VOCABULARY = 8192  # packing holds the logits of all completions at once


class PackedTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL is Any to mypy
    """TRL's loss, up to rounding, with fewer tokens read and logits only of what the policy wrote.

    Attributes:
        packing: whether rollouts are packed. The default packs a small policy on a CPU, in one process.
            Elsewhere TRL's own path is better: its kernels skip what is not scored, and distributed
            models have hooks on the forward pass that packing bypasses.
        rehearsal: demonstrations to imitate in each step; None for none.
        rehearsal_weight: of their loss.
        written: during a loss, 1 where the policy wrote a token of the completions.
    """

    rehearsal: Rehearsal | None = None
    rehearsal_weight = 0.0
    written: Tensor | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.model.config
        self.packing = (
            self.accelerator.num_processes == 1
            and self.accelerator.device.type == "cpu"
            and config.model_type == "llama"  # its attention is full, its logits are not rescaled
            and config.vocab_size <= _LARGEST_VOCABULARY
        )
        on_cpu = self.accelerator.device.type == "cpu"
        if self.use_vllm and self.vllm_mode == "colocate" and on_cpu:
            self.vllm_generation.sync_weights = partial(_reload_weights, self.vllm_generation)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's loss, and once a step, in its last pass, the loss of the rehearsal."""
        if self.packing:
            inputs = without_equal_rewards(self, inputs)
        self.written = inputs.get("tool_mask")
        try:
            loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.written = None  # TRL scores other completions too, such as the reference model's
        if self.rehearsal is None or not model.training or not self.accelerator.sync_gradients:
            return loss
        examples = self.rehearsal(self.state.global_step, self.processing_class)
        # Outside DDP's forward pass: both gradients are added before processes sum them.
        imitation = packed_loss(self.accelerator.unwrap_model(model), examples)
        self._metrics["train"]["rehearsal_loss"].append(imitation.item())
        return loss.add(imitation, alpha=self.rehearsal_weight)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **rest: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities and entropies, (rollouts, logits_to_keep); 0 where no loss is taken."""
        if not self.packing:
            found: tuple[Tensor, Tensor | None, Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, **rest
                )
            )
            return found
        size = batch_size or len(input_ids)
        written = self.written
        if written is None:
            written = attention_mask[:, -logits_to_keep:]
        parts = [
            packed_logps(model, ids, visible, wrote, self.temperature)
            for ids, visible, wrote in zip(
                *(torch.split(part, size) for part in (input_ids, attention_mask, written)),
                strict=True,
            )
        ]
        logps, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return logps, entropies, None


def without_equal_rewards(trainer: GRPOTrainer, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the rollouts whose advantage is 0, since all of their group have the same reward.

    Their gradient is 0 too. DAPO's loss is divided by the number of tokens that were generated, so
    leaving them out changes no other gradient; of other losses, and with KL, all rollouts are kept.
    """
    advantages = inputs["advantages"]
    kept = advantages.nonzero()[:, 0]
    if trainer.loss_type != "dapo" or trainer.beta or len(kept) == len(advantages):
        return inputs
    if not len(kept):
        kept = torch.arange(1)  # of an empty loss there is no gradient at all
    return {
        name: value[kept] if torch.is_tensor(value) and value.dim() else value
        for name, value in inputs.items()
    }


def _reload_weights(generation: Any) -> None:
    """Give the engine in this process the trainer's weights.

    TRL's `sync_weights` writes parameter by parameter into the engine's model. On a CPU the engine has
    replaced them by others in the layout of its kernels, and only its own reload makes that layout again.
    """
    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    runner.reload_weights(weights_iterator=generation._iter_named_params())
    generation.llm.reset_prefix_cache()


def load_weights(trainer: Any, checkpoint: Path) -> None:
    """Load the weights of a checkpoint outside training."""
    trainer._load_from_checkpoint(str(checkpoint))


def save_checkpoint(trainer: Any) -> None:
    """Save a checkpoint of the last finished step, unless it has one."""
    step = int(trainer.state.global_step)
    if step and not is_complete(Path(trainer.args.output_dir) / f"checkpoint-{step}"):
        trainer._save_checkpoint(trainer.model, trial=None)
        trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


def sync_vllm_weights(trainer: Any) -> None:
    """Bring vLLM the present weights; without vLLM there is nothing to do.

    TRL does this when a step begins, and validation comes at the end of a step.
    """
    if trainer.use_vllm:
        trainer.vllm_generation.sync_weights()
        trainer._last_loaded_step = trainer.state.global_step


def open_generation(trainer: Any, policy: TrainedPolicy, vllm: VllmParams | None) -> Generation:
    """What generates: the policy with this process's weights, or vLLM's copy of it."""
    if vllm is None:
        return nullcontext(policy)
    from routerr1.rollout.vllm import ColocatedGenerator, ServerGenerator

    if vllm.mode == "server":
        return ServerGenerator(
            vllm.url, policy.tokenizer, max_length=policy.max_length, chat=policy.chat
        )
    from vllm import SamplingParams

    return nullcontext(
        ColocatedGenerator(
            trainer.vllm_generation.llm, SamplingParams, policy.tokenizer,
            max_length=policy.max_length, chat=policy.chat,
        )
    )  # fmt: skip


def save_weights(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Save the policy as transformers loads it; every process must call this."""
    model, weights = _whole(trainer)
    if trainer.accelerator.is_main_process:
        aside = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        model.save_pretrained(aside, state_dict=weights)
        tokenizer.save_pretrained(aside)
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
    trainer.accelerator.wait_for_everyone()


def _whole(trainer: Any) -> tuple[Any, dict[str, Any] | None]:
    """The model to save, and its weights if the model holds only shards of them.

    Adapters are merged into a copy, because merging rounds.
    """
    from peft import PeftModel

    if trainer.is_fsdp_enabled:
        return trainer.model, trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if isinstance(trainer.model, PeftModel):
        return copy.deepcopy(trainer.model).merge_and_unload(), None
    return trainer.model, None
