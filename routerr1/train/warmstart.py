"""Supervised warm start: imitate trajectories whose routing is random, on the policy's own tokens.

Examples are packed: a row holds the cards once and several examples behind them, each seeing the cards
and itself. This saves most of the work where the prompt is long and the rest short.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from routerr1.config import WarmstartParams
from routerr1.types import Trajectory

_EXAMPLES_PER_ROW = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one trajectory; `mask` is 1 where the policy wrote the token, over `ids`."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    mask: tuple[int, ...]


def encode(trajectory: Trajectory, prompt: str, tokenizer: Any) -> Example:
    """Tokenise piece by piece, as a rollout does: text is never tokenised across an insertion."""

    def ids_of(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    ids: list[int] = []
    mask: list[int] = []
    for turn in trajectory.turns:
        for text, weight in ((turn.generation.text, 1), (turn.inserted, 0)):
            piece = ids_of(text)
            ids += piece
            mask += [weight] * len(piece)
    return Example(tuple(ids_of(prompt)), tuple(ids), tuple(mask))


def fit(
    model: Any,
    examples: Iterator[Example],
    params: WarmstartParams,
    *,
    progress: Callable[[float], None],
) -> list[float]:
    """Take `params.steps` steps of `params.batch_size` examples; returns the loss of each.

    Matrices are updated by Muon, the rest by AdamW; the rate rises over `warmup_steps`, then falls to 0
    as half a cosine. Raises: ValueError if `examples` runs out.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "head" not in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=params.learning_rate, weight_decay=0.01,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=params.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]  # fmt: skip
    model.train()
    losses = []
    for step in range(params.steps):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = params.learning_rate * _schedule(step, params)
        batch = [next(examples, None) for _ in range(params.batch_size)]
        if None in batch:
            raise ValueError(f"examples ran out at step {step}")
        loss = packed_loss(model, [example for example in batch if example is not None])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        progress(losses[-1])
    model.eval()
    return losses


def _schedule(step: int, params: WarmstartParams) -> float:
    rise = min(1.0, (step + 1) / max(1, params.warmup_steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / params.steps))


def packed_loss(model: Any, batch: Sequence[Example]) -> Tensor:
    """Mean negative log-likelihood of the tokens the policy wrote."""
    shared = _common_prefix([example.prompt_ids for example in batch])
    rows = [batch[i : i + _EXAMPLES_PER_ROW] for i in range(0, len(batch), _EXAMPLES_PER_ROW)]
    length = max(shared + sum(len(e.prompt_ids) - shared + len(e.ids) for e in row) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(ids)
    owner = torch.full_like(ids, -1)  # 0: shared; n: the n-th example; -1: padding
    sources: list[int] = []
    targets: list[int] = []
    for r, row in enumerate(rows):
        ids[r, :shared] = torch.tensor(row[0].prompt_ids[:shared])
        positions[r, :shared] = torch.arange(shared)
        owner[r, :shared] = 0
        at = shared
        for n, example in enumerate(row, start=1):
            tail = example.prompt_ids[shared:]
            piece = (*tail, *example.ids)
            end = at + len(piece)
            ids[r, at:end] = torch.tensor(piece)
            positions[r, at:end] = torch.arange(shared, shared + len(piece))
            owner[r, at:end] = n
            for place, (token, weight) in enumerate(zip(example.ids, example.mask, strict=True)):
                if weight:
                    sources.append(r * length + at + len(tail) + place - 1)
                    targets.append(token)
            at = end
    hidden = model.get_decoder()(
        input_ids=ids, position_ids=positions, attention_mask=_packed_mask(owner), use_cache=False
    ).last_hidden_state
    logits = model.get_output_embeddings()(hidden.flatten(0, 1)[sources])
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(targets))


def _packed_mask(owner: Tensor) -> Tensor:
    """Additive (rows, 1, length, length): each token sees the shared prefix and its own example so far."""
    length = owner.shape[1]
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = (same & causal) | torch.eye(length, dtype=torch.bool)
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[:, None]


def _common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix, but short of every prompt's last token."""
    shortest, longest = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    for place in range(most):
        if shortest[place] != longest[place]:
            return place
    return most
