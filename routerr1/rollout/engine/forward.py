"""Forward passes of a policy over the rows of its KV cache."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from routerr1.rollout.engine.cuda_graph import Capture, DecodeGraphs, NotCapturable
from routerr1.rollout.engine.kv_cache import RaggedCache

_log = logging.getLogger(__name__)


class ModelRunner:
    """A transformers model with full attention, and the cache of its sessions.

    Args:
        autocast: type of the computation where the weights have another one.
        capture: makes CUDA graphs of decoding steps; None launches kernels one by one.
    """

    def __init__(
        self, model: Any, *, autocast: torch.dtype | None = None, capture: Capture | None = None
    ) -> None:
        self.model = model
        self.autocast = autocast
        self.cache = RaggedCache(model.config.num_hidden_layers)
        self._graphs = DecodeGraphs(self.cache, capture) if capture else None

    def read(
        self,
        rows: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        in_use: int,
    ) -> Tensor:
        """Read tokens into rows; the hidden state at the last token of each, (sessions, hidden).

        Args:
            starts: number of tokens that the cache holds of each row.
            in_use: number of rows that have a session.
        """
        device = self.model.device
        width = max(map(len, tokens))
        ids = torch.tensor([[*each, *[0] * (width - len(each))] for each in tokens], device=device)
        start = torch.tensor(starts, device=device)
        at = torch.tensor(rows, device=device)
        hidden = self._forward(
            ids,
            start[:, None] + torch.arange(width, device=device),
            at,
            slice(0, in_use) if list(rows) == list(range(in_use)) else at,
            height=max(rows) + 1,
            span=max(starts) + width,
        )
        last = torch.tensor([len(each) - 1 for each in tokens], device=device)
        return hidden[torch.arange(len(tokens), device=device), last]

    def replay(self, tokens: Sequence[int], starts: Sequence[int]) -> Tensor | None:
        """Read a token into each of the first rows by a CUDA graph; hidden states, (rows, hidden).

        Returns: None if decoding is not captured.
        """
        if self._graphs is None:
            return None
        try:
            return self._graphs.decode(tokens, starts, self._forward_one)
        except NotCapturable as error:
            _log.warning(
                "%s: decodes slowly, since it cannot be captured as a CUDA graph (%s)",
                type(self.model).__name__,
                " ".join(str(error).split())[:200],
            )
            self._graphs = None
            return None

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, (sessions, vocabulary), float32."""
        scores: Tensor = self.model.get_output_embeddings()(hidden)
        return scores.float()

    def _forward_one(self, ids: Tensor, positions: Tensor, span: int) -> Tensor:
        count = len(ids)
        rows = torch.arange(count, device=ids.device)
        return self._forward(ids, positions, rows, slice(0, count), height=count, span=span)[:, 0]

    def _forward(
        self,
        ids: Tensor,
        positions: Tensor,
        rows: Tensor,
        read_rows: Tensor | slice,
        *,
        height: int,
        span: int,
    ) -> Tensor:
        """Hidden states, (rows, width, hidden), of `ids` at `positions`, both (rows, width).

        Args:
            read_rows, height, span: see `Placement`.
        """
        self.cache.place(read_rows, rows, positions, height=height, span=span)
        visible = torch.arange(span, device=ids.device)[None, None] <= positions[:, :, None]
        mask = _additive(visible, self.autocast or self.model.dtype)[:, None]
        # A graph must not keep cast weights beyond its capture, and each weight is used only once.
        cast = (
            torch.autocast(ids.device.type, self.autocast, cache_enabled=False)
            if self.autocast
            else nullcontext()
        )
        with cast:
            states: Tensor = self.model.get_decoder()(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache.for_model,
                use_cache=True,
            ).last_hidden_state
        return states


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as what is added to attention scores."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )
