"""The one interface to candidates; everything that answers questions for money or for free has it."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from routerr1.types import Card, Reply


class Pool(Protocol):
    """Candidates that can be asked.

    `ask` never raises for what a candidate does: a failure is a Reply with `failure` set, so that no
    caller can mistake it for an answer. It raises only for misuse (a closed pool).
    """

    @property
    def cards(self) -> Sequence[Card]:
        """One card per candidate, in the order the prompt shows them."""
        ...

    async def ask(self, name: str, query: str) -> Reply:
        """Put `query` to the candidate with canonical name `name`."""
        ...

    async def aclose(self) -> None:
        """Release connections and files."""
        ...


Told = Callable[[str, str, Reply], None]
"""Called with (name, query, reply)."""


@runtime_checkable
class Telling(Protocol):
    """A pool whose replies come in a thread of its own, where `on_reply` is told of each at once.

    Whoever asked hears of it only when his event loop has time, which a policy that computes may not leave it.
    """

    on_reply: Told | None
