"""The next token of each session."""

import torch
from torch import Tensor


def sample(logits: Tensor, temperatures: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids and their log-probabilities, (sessions,) each.

    Sampling inverts the cumulative distribution at the session's own draw. A session therefore depends
    on the rest of the batch only through rounding in `logits`.

    Args:
        logits: (sessions, vocabulary), float32.
        temperatures: (sessions,); 0 takes the most likely token.
        draws: (sessions,), uniform in [0, 1).
    """
    warm = temperatures > 0
    logprobs = torch.log_softmax(logits / temperatures.where(warm, 1.0)[:, None], dim=-1)
    mass = logprobs.exp().cumsum(-1)
    sampled = torch.searchsorted(mass, (draws * mass[:, -1])[:, None], right=True)[:, 0]
    ids = torch.where(warm, sampled.clamp(max=logits.shape[-1] - 1), logits.argmax(-1))
    return ids, logprobs.gather(1, ids[:, None])[:, 0]
