"""For whom a call is made: budgets and recordings keep the calls of one trajectory apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# A context variable follows each asyncio task by itself, so `Pool.ask(name, query)` stays the one
# interface and no caller can hand one trajectory's key to another.
_key: ContextVar[str | None] = ContextVar("routerr1_asking_for", default=None)


@contextmanager
def asking_for(key: str) -> Iterator[None]:
    """Calls made inside (by this task and those it starts) belong to `key`.

    Args:
        key: one playing of one question, e.g. its id and the trajectory's seed. Played again with the
            same key, a recording answers as it did the first time, and the question's budget goes on.
            Inside another `asking_for` both keys count: who plays, and what.
    """
    outer = _key.get()
    token = _key.set(key if outer is None else f"{outer}/{key}")
    try:
        yield
    finally:
        _key.reset(token)


def asked_for() -> str | None:
    """The key of the `asking_for` blocks around this call, the outermost first; None outside."""
    return _key.get()
