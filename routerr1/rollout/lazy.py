"""Lazily created values; a resumed run may not need them."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from routerr1.rollout.generate import Generator, Session

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value made by `make` at the first call.

    Pickling makes the value first, so it is made once and sent to other processes.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []

    def __call__(self) -> T:
        """The value; raises what making it raises."""
        if not self._made:
            self._made.append(self._make())
        return self._made[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self(),)


def _made(value: T) -> Lazy[T]:
    lazy = Lazy(lambda: value)
    lazy()
    return lazy


class LazyGenerator:
    """A policy that is loaded when it is first played."""

    def __init__(self, load: Callable[[], Generator]) -> None:
        self._loaded = Lazy(load)

    def start(self, prompt: str, *, seed: int) -> Session:
        """See `Generator.start`; raises what loading raises."""
        return self._loaded().start(prompt, seed=seed)
