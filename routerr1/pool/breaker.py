"""A circuit breaker: a candidate that keeps failing is left alone for a while."""

from collections.abc import Callable

from routerr1.types import Circuit


class Breaker:
    """Closed: calls pass. Open, after `failures` failures in a row: none do, for `pause_s` seconds. Then
    half-open: one call is let through, and closes the circuit or opens it again.

    Args:
        now: a clock in seconds that never goes back.
    """

    def __init__(self, failures: int, pause_s: float, now: Callable[[], float]) -> None:
        self._failures = failures
        self._pause_s = pause_s
        self._now = now
        self._in_a_row = 0
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> Circuit:
        """As it is now."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._now() - self._opened >= self._pause_s else "open"

    def admit(self) -> bool:
        """May a call be made? If so, `succeeded`, `failed` or `forget` must follow."""
        match self.state:
            case "closed":
                return True
            case "open":
                return False
            case "half-open":
                if self._trying:
                    return False
                self._trying = True
                return True

    def succeeded(self) -> None:
        """The candidate answered, or refused for reasons of the request or of its rate."""
        self._in_a_row, self._opened, self._trying = 0, None, False

    def failed(self) -> None:
        """The candidate did not do its work."""
        self._in_a_row += 1
        if self._trying or self._in_a_row >= self._failures:
            self._opened, self._trying = self._now(), False

    def forget(self) -> None:
        """The call told nothing of the candidate's health (it was cancelled, or throttled)."""
        self._trying = False
