"""TRL's GRPO trainer, reading a prompt once for the rollouts that share it.

Import it where training starts: TRL takes seconds.
"""

from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from routerr1.train.packing import Example, pack
from routerr1.train.rehearsal import Rehearsal
from routerr1.train.warmstart import packed_loss

_ROLLOUTS_PER_ROW = 4
_LARGEST_VOCABULARY = 8192  # the logits of all completions are held at once


class PackedTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL is Any to mypy
    """TRL's loss, up to rounding, from fewer tokens read and no logits of prompts.

    Packs a small policy on a CPU, in one process. Elsewhere TRL's own path is the better one: its kernels
    skip what is not scored, and hooks of distributed models sit on the forward that packing goes round.
    """

    rehearsal: Rehearsal | None = None
    rehearsal_weight = 0.0

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's loss and, where something is rehearsed, that of imitating it: once a step, in its last pass."""
        loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)
        if self.rehearsal is None or not model.training or not self.accelerator.sync_gradients:
            return loss
        examples = self.rehearsal(self.state.global_step, self.processing_class)
        # Beside DDP's own forward pass: gradients of both meet before they are summed over processes.
        imitating = packed_loss(self.accelerator.unwrap_model(model), examples)
        self._metrics["train"]["rehearsal_loss"].append(imitating.item())
        return loss.add(imitating, alpha=self.rehearsal_weight)

    # TRL has no public place for how log-probabilities are computed; this is the one private name used.
    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **rest: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities and entropies, (rollouts, logits_to_keep), 0 where a completion has ended."""
        if not self._packs():
            found: tuple[Tensor, Tensor | None, Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, **rest
                )
            )
            return found
        size = batch_size or len(input_ids)
        parts = [
            self._score(model, ids, seen, logits_to_keep)
            for ids, seen in zip(
                torch.split(input_ids, size), torch.split(attention_mask, size), strict=True
            )
        ]
        logps, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return logps, entropies, None

    def _packs(self) -> bool:
        config = self.model.config
        return bool(
            self.accelerator.num_processes == 1
            and self.accelerator.device.type == "cpu"
            and config.model_type == "llama"  # its attention is full, its logits are not rescaled
            and config.vocab_size <= _LARGEST_VOCABULARY
        )

    def _score(
        self, model: Any, input_ids: Tensor, seen: Tensor, width: int
    ) -> tuple[Tensor, Tensor]:
        start = input_ids.shape[1] - width
        examples = [
            Example(
                tuple(prompt[shown[:start]].tolist()),
                tuple(said[shown[start:]].tolist()),
                (1,) * int(shown[start:].sum()),
            )
            for prompt, said, shown in zip(
                input_ids[:, :start], input_ids[:, start:], seen.bool(), strict=True
            )
        ]
        # Equal prompts side by side, in an order that is the same every time.
        order = sorted(range(len(examples)), key=lambda i: examples[i].prompt_ids)
        packed = pack([examples[i] for i in order], _ROLLOUTS_PER_ROW)
        logps = torch.log_softmax(packed.logits(model) / self.temperature, dim=-1)
        places = torch.cat([torch.arange(len(examples[i].ids)) + i * width for i in order])

        def spread(values: Tensor) -> Tensor:
            empty = values.new_zeros(len(examples) * width)
            return empty.scatter(0, places, values).view(-1, width)

        chosen = logps.gather(1, packed.targets[:, None])[:, 0]
        return spread(chosen), spread(-(logps.exp() * logps).sum(-1))
