"""One thread for what baselines compute: on several, sums round otherwise, and close choices flip."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """All arithmetic inside on one thread; also a decorator. Takes some milliseconds: for training."""
    from threadpoolctl import threadpool_limits

    with torch_on_one_thread(), threadpool_limits(1):
        yield


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """The same for torch alone, at no cost: for single questions."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
