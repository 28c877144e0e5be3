"""What can go wrong, one class per boundary it crossed.

The command line prints any of these as one line and exits with status 2; anything else is a bug and
keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class RouterError(Exception):
    """A problem the user can act on; the message names the file, key, line or model."""


class ConfigError(RouterError):
    """params.yaml, a preset or the environment holds something that cannot be used."""


class DataError(RouterError):
    """A question file, split or stage output is missing, malformed or contradicts the parameters."""


class CheckFailed(DataError):
    """The data were read, but an expectation about them does not hold."""


class PoolError(RouterError):
    """The pool file, a card, or a candidate's endpoint cannot be used."""


class BudgetExceeded(PoolError):
    """The next call could cost more than what is left; it was not made."""


class BudgetUnavailable(PoolError):
    """The database of the budget is locked or does not answer; no call is made without it."""


class CheckpointError(RouterError):
    """A saved policy is missing, incomplete, corrupt, or made for another pool or prompt."""


class RegistryError(RouterError):
    """The model registry refused, or a version does not hold what it claims."""


class NoSuchVersion(RegistryError):
    """The registry answers, and holds no version of this number or alias."""


class StoreUnreachable(RegistryError):
    """The tracking server or its files do not answer; nothing is known of what they hold."""


class LockHeld(RouterError):
    """Another process is doing this very thing now."""


@contextmanager
def ungrouped() -> Iterator[None]:
    """Around a task group: re-raise its first RouterError alone, without the cancellations that it caused."""
    try:
        yield
    except BaseExceptionGroup as failed:
        first: BaseException | None = failed.subgroup(RouterError)
        if first is None:
            raise
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
