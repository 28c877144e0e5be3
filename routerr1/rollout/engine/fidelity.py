"""Refuse a model that the engine would not play as its authors made it.

The engine lays one full-attention mask over every layer and reads scores off the output embeddings. A model with
attention windows, soft caps or scaled scores computes something else, and would be sampled from and trained on
wrong probabilities without a sign.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routerr1.errors import CheckpointError
from routerr1.rollout.engine.forward import ModelRunner

_CHUNKS = (7, 1, 5)  # a prompt, a sampled token, an inserted reply
_FLOAT32_LIMIT = 1e-3  # log-probability
_HALF_LIMIT = 0.25  # rounding of bfloat16 and float16 over a few layers


def position_limit(model: Any) -> int | None:
    """Number of positions that the configuration allows; None if it names no limit."""
    found = getattr(model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def attention_window(model: Any) -> int | None:
    """Tokens that a layer of `model` looks back at most; None if every layer looks back to the start."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not isinstance(window, int):
        return None
    if kinds is not None:
        return window if "sliding_attention" in kinds else None
    return window if getattr(config, "use_sliding_window", True) else None


def require_fidelity(source: Path | str, model: Any, max_length: int) -> None:
    """Compare the engine with the model's own forward pass on a few tokens.

    Args:
        max_length: tokens that a session may hold.

    Raises: CheckpointError naming `source`, the difference and the remedy.
    """
    kind = getattr(model.config, "model_type", type(model).__name__)
    window = attention_window(model)
    if window is not None and window < max_length:
        raise CheckpointError(
            f"{source}: {kind} attends to the last {window} tokens and a session may hold {max_length}; "
            f"set rollout.max_tokens to at most {window}, or let vLLM play it (train.vllm)"
        )
    try:
        gap = _largest_gap(model, min(max_length, sum(_CHUNKS)))
    except Exception as error:  # a model's own code raises what it likes
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{source}: the local generator cannot play {kind} ({type(error).__name__}: {reason}); "
            "take another model, or let vLLM play it (train.vllm)"
        ) from error
    limit = _FLOAT32_LIMIT if model.dtype == torch.float32 else _HALF_LIMIT
    if not gap <= limit:  # nan is no agreement
        raise CheckpointError(
            f"{source}: the local generator gives log-probabilities that differ from those of {kind} by {gap:.3g}; "
            "take another model, or let vLLM play it (train.vllm)"
        )


@torch.no_grad()
def _largest_gap(model: Any, length: int) -> float:
    """Largest difference of a log-probability between the engine and the model, over all chunks."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = [(7 * place + 3) % vocabulary for place in range(length)]
    own = _log_softmax(model(input_ids=torch.tensor([ids], device=model.device)).logits[0])
    runner = ModelRunner(model)
    gap, start = 0.0, 0
    for size in _CHUNKS:
        chunk = ids[start : start + size]
        if not chunk:
            break
        hidden = runner.read([0], [start], [chunk], in_use=1)
        start += len(chunk)
        gap = max(gap, float((_log_softmax(runner.logits(hidden)[0]) - own[start - 1]).abs().max()))
    return gap


def _log_softmax(scores: Tensor) -> Tensor:
    return torch.log_softmax(scores.float(), dim=-1)
