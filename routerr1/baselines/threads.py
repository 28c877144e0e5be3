"""One thread for what baselines compute: on several, sums round otherwise, and close choices flip."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """All arithmetic inside on one thread; also a decorator. Takes some milliseconds: for training."""
    import torch  # noqa: F401 - what is inside may use it
    from threadpoolctl import threadpool_limits

    with torch_on_one_thread(), threadpool_limits(1):
        yield


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """The same for torch alone, at no cost: for single questions. It is limited only if it is imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
