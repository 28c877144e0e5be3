"""The latest of what canary and champion did, counted here and by the gateways that share the database."""

from dataclasses import dataclass, field
from typing import TypeVar

from routerr1.serve.store import Store

MOST = 500  # latest requests of each side that are compared
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """How a request ended."""

    failed: bool
    seconds: float


def _both() -> dict[bool, dict[str, float]]:
    return {True: {}, False: {}}


@dataclass
class Windows:
    """Figures by request, the latest last. The key True is the canary's side, False the champion's.

    Attributes:
        scores: users' latest words.
        right: whether answers are right by references of requests.
        verdicts: how much better the canary's answer is than the champion's, in [-1, 1].
    """

    seen: dict[bool, dict[str, Seen]] = field(default_factory=lambda: {True: {}, False: {}})
    scores: dict[bool, dict[str, float]] = field(default_factory=_both)
    right: dict[bool, dict[str, float]] = field(default_factory=_both)
    verdicts: dict[str, float] = field(default_factory=dict)

    def forget_champion(self) -> None:
        """Forget what an earlier champion did."""
        for side in (self.seen[False], self.scores[False], self.right[False], self.verdicts):
            side.clear()

    def merge(self, other: "Windows") -> None:
        """Take in what was read from the database; it holds the later word on a request."""
        for side in (True, False):
            add(self.seen[side], other.seen[side])
            add(self.scores[side], other.scores[side])
            add(self.right[side], other.right[side])
        add(self.verdicts, other.verdicts)


def add(window: dict[str, T], new: dict[str, T]) -> None:
    """Put the latest into a window, which forgets the first where it grows too long."""
    window.update(new)
    for number in list(window)[: max(len(window) - MOST, 0)]:
        del window[number]


def read_windows(store: Store, canary: str, champion: str, model: str, since_s: float) -> Windows:
    """What all gateways kept since a time of two versions that were asked as `model`."""
    found = Windows()
    for side, version in ((True, canary), (False, champion)):
        for number, status, seconds in store.outcomes(version, model, since_s, MOST):
            found.seen[side][number] = Seen(status >= 500, seconds)
        found.scores[side] = store.scores(version, model, since_s, MOST)
        found.right[side] = store.trial_values(canary, "reference", version, since_s, MOST)
    found.verdicts = store.trial_values(canary, "judge", champion, since_s, MOST)
    return found
