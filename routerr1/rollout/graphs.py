"""One step of decoding as a CUDA graph.

A step of a small model is some thousand kernels of microseconds each, and to launch them one by one from
Python takes several times as long as they take; a graph launches them all at once. It is bound to shapes and
addresses: one is captured for each number of rows and each span, both rounded up, and all are dropped when
the cache has grown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from routerr1.rollout.cache import RaggedLayer

Run = Callable[[], Tensor]
Capture = Callable[[Run, torch.device], Run]
"""Work on tensors that stay where they are on a device, to what does it again."""
Forward = Callable[[Tensor, Tensor, int], Tensor]
"""Ids and positions, (rows, 1) each, and the span, to hidden states, (rows, hidden)."""

_ROWS = 8  # the fewest; more are a power of two
_SPAN = 128  # spans are multiples of it


class NotCapturable(Exception):
    """A model does in its forward pass what a graph cannot hold, such as waiting for the GPU."""


def captured(run: Run, device: torch.device) -> Run:
    """`run` as a graph; it is run once before, for what libraries set up at a first call.

    Raises: NotCapturable.
    """
    with torch.cuda.device(device):
        before = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
        aside.wait_stream(before)
        with torch.cuda.stream(aside):
            run()
        before.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise NotCapturable(str(error)) from error
        finally:
            torch.cuda.set_stream(before)  # torch stays on its own where a capture fails

    def replay() -> Tensor:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay


@dataclass(frozen=True, slots=True)
class _Graph:
    ids: Tensor
    positions: Tensor
    replay: Run


class DecodeGraphs:
    """Decodes a token of each of the cache's first rows."""

    def __init__(self, layers: Sequence[RaggedLayer], capture: Capture) -> None:
        self._layers = layers
        self._capture = capture
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._keys: list[Tensor] = []

    def decode(self, tokens: Sequence[int], read: Sequence[int], forward: Forward) -> Tensor:
        """Hidden states, (rows, hidden), overwritten by the next call.

        All rows are computed, however few decode: for a small model that costs less than to gather them.

        Args:
            read: how many tokens of each row the cache holds.

        Raises: NotCapturable.
        """
        count = len(tokens)
        rows = max(_ROWS, 1 << (count - 1).bit_length())
        span = -(-(max(read) + 1) // _SPAN) * _SPAN
        for layer in self._layers:
            if layer.keys.shape[0] < rows or layer.keys.shape[2] < span:
                self._graphs.clear()  # before there are two caches
            layer.reserve(rows, span)
        keys = [layer.keys for layer in self._layers]
        if any(old is not new for old, new in zip_longest(self._keys, keys)):
            self._graphs.clear()
            self._keys = keys
        device = keys[0].device
        graph = self._graphs.get((rows, span))
        ids, positions = (
            (graph.ids, graph.positions)
            if graph
            else torch.zeros(2, rows, 1, dtype=torch.long, device=device)
        )
        # Rows beyond `count` belong to nobody: what is written there, at positions of earlier calls of the
        # same span, is overwritten before it is read.
        ids[:count, 0] = torch.tensor(tokens, device=device)
        positions[:count, 0] = torch.tensor(read, device=device)
        if graph is None:
            replay = self._capture(lambda: forward(ids, positions, span), device)
            graph = self._graphs[rows, span] = _Graph(ids, positions, replay)
        return graph.replay()[:count]
