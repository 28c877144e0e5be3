"""A circuit breaker: a candidate that keeps failing is not called for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from routerr1.pool.failures import TryError
from routerr1.types import BreakerState


class Breaker:
    """Counts failures in a row, and refuses calls while there are too many.

    - closed: calls pass.
    - open: after `failures` failures in a row, no call passes for `pause_s` seconds.
    - half-open: one trial call passes; it closes the breaker or opens it again.

    Args:
        now: a monotonic clock, in seconds.
    """

    def __init__(self, failures: int, pause_s: float, now: Callable[[], float]) -> None:
        self._failures = failures
        self._pause_s = pause_s
        self._now = now
        self._in_a_row = 0
        self._opened_s: float | None = None
        self._on_trial = False
        self._opener: TryError | None = None

    @property
    def state(self) -> BreakerState:
        """The state at this moment."""
        if self._opened_s is None:
            return "closed"
        return "half-open" if self._now() - self._opened_s >= self._pause_s else "open"

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one try of a call; the exception it ends with, if any, decides the next state.

        A TryError counts as a failure if it is `ill`. Any other exception, such as a cancellation
        or a spent budget, says nothing about the candidate.

        Raises: TryError if the breaker lets no call pass.
        """
        state = self.state
        trial = state == "half-open"
        if state == "open" or (trial and self._on_trial):
            before = self._opener
            assert before is not None  # only a failure opens the circuit
            raise TryError(
                f"circuit {state}, not asked; before: {before.why}", said=before.said, ill=False
            )
        self._on_trial = self._on_trial or trial
        try:
            yield
        except BaseException as error:
            if isinstance(error, TryError) and error.ill:
                self._in_a_row += 1
                if trial or self._in_a_row >= self._failures:
                    self._opened_s = self._now()
                    self._opener = error
            if trial:
                self._on_trial = False
            raise
        self._in_a_row, self._opened_s, self._on_trial = 0, None, False
