"""One decoding step as a CUDA graph.

A step of a small model is thousands of kernels of a few microseconds each. Launching them one by one
from Python takes several times as long as running them; a graph launches them all at once.

A graph is bound to shapes and addresses. One graph is captured for each number of rows and each span,
both rounded up; all graphs are dropped when the cache grows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from routerr1.rollout.engine.kv_cache import RaggedCache

Run = Callable[[], Tensor]
Capture = Callable[[Run, torch.device], Run]
"""Turns work on tensors with fixed addresses on a device into a function that repeats that work."""
Forward = Callable[[Tensor, Tensor, int], Tensor]
"""Ids and positions, (rows, 1) each, and the span, to hidden states, (rows, hidden)."""

_MIN_ROWS = 8  # row counts are powers of two from here
_SPAN_STEP = 128  # spans are multiples of this


class NotCapturable(Exception):
    """The forward pass does what a graph cannot hold, such as waiting for the GPU."""


def captured(run: Run, device: torch.device) -> Run:
    """`run` as a graph, after one plain run for what libraries set up at a first call.

    Raises: NotCapturable.
    """
    with torch.cuda.device(device):
        before = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
        side.wait_stream(before)
        with torch.cuda.stream(side):
            run()
        before.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise NotCapturable(str(error)) from error
        finally:
            torch.cuda.set_stream(before)  # torch stays on its own stream when a capture fails

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
    """Decodes one token for each of the cache's first rows."""

    def __init__(self, cache: RaggedCache, capture: Capture) -> None:
        self._cache = cache
        self._capture = capture
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._keys: list[Tensor] = []

    def decode(self, tokens: Sequence[int], starts: Sequence[int], forward: Forward) -> Tensor:
        """Hidden states, (rows, hidden); the next call overwrites them.

        All rows are computed, however few decode: for a small model this costs less than gathering.

        Args:
            starts: number of tokens that the cache holds of each row.

        Raises: NotCapturable.
        """
        count = len(tokens)
        rows = max(_MIN_ROWS, 1 << (count - 1).bit_length())
        span = -(-(max(starts) + 1) // _SPAN_STEP) * _SPAN_STEP
        if not self._cache.fits(rows, span):
            self._graphs.clear()  # first, or graphs would keep the old cache beside the new one
            self._cache.reserve(rows, span)
        keys = self._cache.keys()
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
        # Rows beyond `count` have no session. Stale positions write there, and a later prefill
        # overwrites them before they are read.
        ids[:count, 0] = torch.tensor(tokens, device=device)
        positions[:count, 0] = torch.tensor(starts, device=device)
        if graph is None:
            replay = self._capture(lambda: forward(ids, positions, span), device)
            graph = self._graphs[rows, span] = _Graph(ids, positions, replay)
        return graph.replay()[:count]
