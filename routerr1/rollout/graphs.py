"""One step of decoding as a CUDA graph.

A step of a small model is some thousand kernels of microseconds each, and to launch them one by one from
Python takes several times as long as they take; a graph launches them all at once. It is bound to shapes and
addresses: one is captured for each number of rows and each span, both rounded up, and all are dropped when
the cache has grown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from routerr1.rollout.cache import RaggedLayer

Run = Callable[[], Tensor]
Capture = Callable[[Run], Run]
"""Work on tensors that stay where they are, to what does it again."""

_ROWS = 8  # the fewest; more are a power of two
_SPAN = 128  # spans are multiples of it


def captured(run: Run) -> Run:
    """`run` as a graph; it is run once before, for what libraries set up at a first call.

    Raises: RuntimeError if something in it has to wait for the GPU.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


@dataclass(frozen=True, slots=True)
class _Graph:
    ids: Tensor
    positions: Tensor
    replay: Run


class DecodeGraphs:
    """Decodes a token of each of the cache's first rows.

    Args:
        forward: ids and positions, (rows, 1) each, and the span, to hidden states, (rows, hidden).
    """

    def __init__(
        self,
        forward: Callable[[Tensor, Tensor, int], Tensor],
        layers: Sequence[RaggedLayer],
        device: torch.device,
        capture: Capture,
    ) -> None:
        self._forward = forward
        self._layers = layers
        self._device = device
        self._capture = capture
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._keys: Tensor | None = None

    def decode(self, tokens: Sequence[int], read: Sequence[int]) -> Tensor:
        """Hidden states, (rows, hidden), overwritten by the next call.

        Args:
            read: how many tokens of each row the cache holds.

        Raises: RuntimeError if the model cannot be captured.
        """
        count = len(tokens)
        rows = max(_ROWS, 1 << (count - 1).bit_length())
        span = -(-(max(read) + 1) // _SPAN) * _SPAN
        for layer in self._layers:
            layer.reserve(rows, span)
        if self._layers[0].keys is not self._keys:
            self._graphs.clear()
            self._keys = self._layers[0].keys
        graph = self._graphs.get((rows, span))
        ids, positions = (
            (graph.ids, graph.positions)
            if graph
            else torch.zeros(2, rows, 1, dtype=torch.long, device=self._device)
        )
        # Rows beyond `count` belong to nobody: what is written there is overwritten before it is read.
        ids[:count, 0] = torch.tensor(tokens, device=self._device)
        positions[:count, 0] = torch.tensor(read, device=self._device)
        if graph is None:
            replay = self._capture(lambda: self._forward(ids, positions, span))
            graph = self._graphs[rows, span] = _Graph(ids, positions, replay)
        return graph.replay()[:count]
