"""A KV cache whose rows have lengths of their own, in the form that transformers reads and fills."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


@dataclass(slots=True)
class Placement:
    """Where the next forward pass reads and writes; shared by all layers of a cache.

    Attributes:
        read_rows: rows that attention reads; a slice if they are all rows in use.
        write_rows: rows that new keys and values are written to, (sessions,).
        positions: positions that they are written to, (sessions, width).
        height, span: number of rows and positions that the pass needs. They are Python numbers,
            because reading them back from a GPU in every layer would stall it.
    """

    read_rows: Tensor | slice = field(default_factory=lambda: slice(0, 0))
    write_rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    positions: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    height: int = 0
    span: int = 0


class RaggedCache:
    """Keys and values of every layer; one row for each session."""

    def __init__(self, num_layers: int) -> None:
        self.placement = Placement()
        self.layers: Sequence[RaggedLayer] = [
            RaggedLayer(self.placement) for _ in range(num_layers)
        ]
        self.for_model = Cache(layers=self.layers)

    def place(
        self,
        read_rows: Tensor | slice,
        write_rows: Tensor,
        positions: Tensor,
        *,
        height: int,
        span: int,
    ) -> None:
        """Set the `Placement` of the next forward pass."""
        at = self.placement
        at.read_rows, at.write_rows, at.positions = read_rows, write_rows, positions
        at.height, at.span = height, span

    def fits(self, rows: int, length: int) -> bool:
        """Whether `rows` rows of `length` positions need no larger cache."""
        return all(
            layer.keys.shape[0] >= rows and layer.keys.shape[2] >= length for layer in self.layers
        )

    def reserve(self, rows: int, length: int) -> None:
        """Grow to hold `rows` rows of `length` positions; the content is kept."""
        for layer in self.layers:
            layer.reserve(rows, length)

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of row `source` to row `target`."""
        for layer in self.layers:
            layer.copy_row(source, target, length)

    def keys(self) -> list[Tensor]:
        """The key tensor of each layer; a cache that grew has other tensors."""
        return [layer.keys for layer in self.layers]


class RaggedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is Any to mypy
    """Keys and values of one layer, (rows, heads, capacity, head size)."""

    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self._placement = placement

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make empty tensors of the model's type and shape."""
        heads, size = key_states.shape[1], key_states.shape[3]
        # Under autocast rotated keys are float32 and values are not. Attention rounds keys anyway,
        # so both are stored in the type of the values.
        self.keys = value_states.new_zeros(0, heads, 0, size)
        self.values = value_states.new_zeros(0, heads, 0, value_states.shape[3])
        self.is_initialized = True

    def reserve(self, rows: int, length: int) -> None:
        """See `RaggedCache.reserve`."""
        if self.keys.shape[0] >= rows and self.keys.shape[2] >= length:
            return
        self.keys, self.values = (
            _grown(old, max(rows, old.shape[0]), max(length, old.shape[2]))
            for old in (self.keys, self.values)
        )

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values; returns those that attention reads."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        at = self._placement
        self.reserve(at.height, at.span)
        rows = at.write_rows[:, None]
        self.keys[rows, :, at.positions] = key_states.transpose(1, 2).to(self.keys.dtype)
        self.values[rows, :, at.positions] = value_states.transpose(1, 2)
        return self.keys[at.read_rows, :, : at.span], self.values[at.read_rows, :, : at.span]

    def copy_row(self, source: int, target: int, length: int) -> None:
        """See `RaggedCache.copy_row`."""
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, _query_length: int) -> tuple[int, int]:
        """Length and offset of what attention reads."""
        return self._placement.span, 0

    def get_seq_length(self) -> int:
        """Length of what attention reads."""
        return self._placement.span

    def get_max_length(self) -> int:
        """No limit."""
        return -1


def _grown(old: Tensor, rows: int, length: int) -> Tensor:
    # Capacity grows in steps, so that a new token does not copy the cache.
    new = old.new_zeros(_step_up(rows, 32), old.shape[1], _step_up(length, 64), old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new


def _step_up(value: int, step: int) -> int:
    return -(-value // step) * step
