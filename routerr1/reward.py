"""Format, answer and cost, and how they fold into one number (Router-R1, arXiv 2506.09033)."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Self

import numpy as np

_LOW, _HIGH, _FLAT = 5, 95, 1e-8  # percentiles of the scale; spread under which it says nothing


def hierarchical(format_valid: bool, answer: float, cost_score: float, alpha: float) -> float:
    """Fold three signals into one number; each counts only if the one before it did.

    Args:
        format_valid: the trajectory kept the tag protocol (`protocol.check`).
        answer: exact match or F1 against the best gold answer, in [0, 1].
        cost_score: cheapness of the pool calls, in [0, 1]; 1 = free, 0 = most expensive.
        alpha: weight of cost_score, in [0, 1]; 0 trains for answers alone.

    Returns: -1 if not format_valid; 0 if format_valid but wrong, however cheap; else in [0, 1].
    Raises: ValueError if an argument is outside its range.

    >>> hierarchical(True, answer=1.0, cost_score=0.5, alpha=0.2)
    0.9
    """
    return sum(components(format_valid, answer, cost_score, alpha))


def components(
    format_valid: bool, answer: float, cost_score: float, alpha: float
) -> tuple[float, float, float]:
    """What format, answer and cost add to `hierarchical`, whose arguments these are."""
    for name, value in (("answer", answer), ("cost_score", cost_score), ("alpha", alpha)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is {value}, outside [0, 1]")
    if not format_valid:
        return -1.0, 0.0, 0.0
    if answer == 0.0:
        return 0.0, 0.0, 0.0
    return 0.0, (1 - alpha) * answer, alpha * cost_score


def alpha_at(level: int, cost_weight: float, frugal_weight: float | None) -> float:
    """The weight of the cost at a spend level from 0 to 10: `frugal_weight` at 0, `cost_weight` at 10, linear between.

    >>> alpha_at(5, 0.0, 0.8), alpha_at(10, 0.0, 0.8), alpha_at(0, 0.1, None)
    (0.4, 0.0, 0.1)
    """
    if frugal_weight is None:
        return cost_weight
    return cost_weight + (frugal_weight - cost_weight) * (1 - level / 10)


@dataclass(frozen=True, slots=True)
class FrozenCostScale:
    """Thrift by fixed bounds: equal costs score equally, whatever was scored before.

    `low` and `high` are on the square-root scale of micro-dollars.
    """

    low: float
    high: float

    def score(self, cost: float) -> float:
        """Thrift of `cost` micro-dollars, in [0, 1]; 0.5 while the bounds are too close to tell."""
        _require_cost(cost)
        spread = self.high - self.low
        if spread < _FLAT:
            return 0.5
        return 1.0 - min(max((sqrt(cost) - self.low) / spread, 0.0), 1.0)


class CostScale:
    """Thrift relative to the last `window` costs, on a square-root scale between the 5th and 95th percentile.

    `score` takes one cost at a time, adding it before it is scored, as the reference does. Training
    freezes the scale for a step and adds the step's costs afterwards: otherwise two equal costs of
    one GRPO group would earn different rewards. Training and evaluation each keep their own scale.
    """

    def __init__(self, window: int = 1000, costs: Iterable[float] = ()) -> None:
        if window < 1:
            raise ValueError(f"window is {window}, must be at least 1")
        self.window = window
        self._roots: deque[float] = deque(maxlen=window)
        self.extend(costs)

    def score(self, cost: float) -> float:
        """Add `cost` (micro-dollars) and return its cost_score, in [0, 1]."""
        self.extend([cost])
        return self.freeze().score(cost)

    def extend(self, costs: Iterable[float]) -> None:
        """Add costs (micro-dollars), oldest first; those beyond `window` are forgotten."""
        for cost in costs:
            _require_cost(cost)
            self._roots.append(sqrt(cost))

    def freeze(self) -> FrozenCostScale:
        """The present scale, for a whole training step; all-equal while it is empty."""
        if not self._roots:
            return FrozenCostScale(0.0, 0.0)
        low, high = np.percentile(np.fromiter(self._roots, float), [_LOW, _HIGH])
        return FrozenCostScale(float(low), float(high))

    def state(self) -> dict[str, object]:
        """What a checkpoint stores; `CostScale.restore` takes it back."""
        return {"window": self.window, "sqrt_costs": list(self._roots)}

    @classmethod
    def restore(cls, state: dict[str, object]) -> Self:
        """Inverse of `state`.

        Raises: ValueError if it is not one.
        """
        window, roots = state.get("window"), state.get("sqrt_costs")
        if not isinstance(window, int) or not isinstance(roots, Sequence):
            raise ValueError("cost statistics need an integer `window` and a list `sqrt_costs`")
        scale = cls(window)
        scale._roots.extend(float(root) for root in roots)
        return scale


def _require_cost(cost: float) -> None:
    if not (isfinite(cost) and cost >= 0):
        raise ValueError(f"cost is {cost}, must be finite and at least 0")
