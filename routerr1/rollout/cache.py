"""A KV cache whose rows grow each at its own pace, as a layer that transformers fills and reads."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


class RaggedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is Any to mypy
    """Keys and values of one layer, (rows, heads, capacity, head size); each row has its own length.

    Attributes:
        rows: those read, for the next forward pass: a slice where they are all that are in use.
        scatter_rows, positions: where the next keys and values go, (sessions,) and (sessions, width).
        height, span: rows and positions that the next pass needs; numbers of the host, since reading one
            back from a GPU, layer by layer, would make it wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: Tensor | slice = slice(0, 0)
        self.scatter_rows = torch.empty(0, dtype=torch.long)
        self.positions = torch.empty(0, dtype=torch.long)
        self.height = self.span = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        heads, size = key_states.shape[1], key_states.shape[3]
        # Rotated keys are float32 under autocast, where values are not; attention rounds them all the same.
        self.keys = value_states.new_zeros(0, heads, 0, size)
        self.values = value_states.new_zeros(0, heads, 0, value_states.shape[3])
        self.is_initialized = True

    def reserve(self, rows: int, length: int) -> None:
        """Grow to hold `rows` rows of `length` positions, keeping what is there."""
        if self.keys.shape[0] >= rows and self.keys.shape[2] >= length:
            return
        self.keys, self.values = (
            _grown(old, max(rows, old.shape[0]), max(length, old.shape[2]))
            for old in (self.keys, self.values)
        )

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.reserve(self.height, self.span)
        rows = self.scatter_rows[:, None]
        self.keys[rows, :, self.positions] = key_states.transpose(1, 2).to(self.keys.dtype)
        self.values[rows, :, self.positions] = value_states.transpose(1, 2)
        return self.keys[self.rows, :, : self.span], self.values[self.rows, :, : self.span]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one row's first `length` positions over another's."""
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, _query_length: int) -> tuple[int, int]:
        return self.span, 0

    def get_seq_length(self) -> int:
        return self.span

    def get_max_length(self) -> int:
        return -1


def _grown(old: Tensor, rows: int, length: int) -> Tensor:
    # In steps, so that growing token by token does not copy token by token.
    new = old.new_zeros(_step_up(rows, 32), old.shape[1], _step_up(length, 64), old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new


def _step_up(value: int, step: int) -> int:
    return -(-value // step) * step
