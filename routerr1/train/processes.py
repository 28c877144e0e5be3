"""The processes of a distributed run; a plain run is the only one."""

from typing import TypeVar

T = TypeVar("T")


def gathered(values: list[T]) -> list[T]:
    """The values of all processes, in the order of the processes."""
    from accelerate.utils import gather_object

    found: list[T] = gather_object(values)
    return found


def own_share(count: int) -> tuple[int, int]:
    """First and end of this process's part of `count` items."""
    from accelerate import PartialState

    state = PartialState()
    index, processes = state.process_index, state.num_processes
    return count * index // processes, count * (index + 1) // processes
