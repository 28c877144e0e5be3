"""Intervals that say what a difference is worth: cluster bootstrap, paired differences, Holm, power.

Questions that ask the same thing in other words share a `group`, and their results move together: so
groups are resampled, not rows (Field & Welsh 2007, "Bootstrapping clustered data"). Where everything was
repeated, e.g. over random halvings, values have a row for each repetition, and repetitions are resampled
too, on their own (the pigeonhole bootstrap, Owen 2007, arXiv 0712.1111). Everything is seeded; the same
arguments give the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK = 4_000_000  # group counts held in one piece (32 MB)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its percentile bootstrap interval; `n` values in `groups` independent groups."""

    mean: float
    low: float
    high: float
    n: int
    groups: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of a - b over the same questions.

    Attributes:
        p: two-sided bootstrap p-value of "no difference", in (0, 1]; 1 where a and b never differ.
        resolvable: smallest true difference that a comparison of this size and spread would find in
            four of five repetitions (power 0.8) at this confidence.
    """

    mean: float
    low: float
    high: float
    p: float
    resolvable: float
    n: int
    groups: int


@dataclass(frozen=True, slots=True)
class Spread:
    """How far training seeds lie apart; `sd` is the sample deviation, None for a single seed."""

    mean: float
    sd: float | None
    low: float
    high: float
    seeds: int


def interval(
    values: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of `values` and its percentile bootstrap interval, resampling whole groups.

    Args:
        values: one number per question; or repetitions x questions, which are resampled both.
        groups: the group of each question; None makes every question its own.
        resamples: bootstrap draws, at least 1.
        confidence: of the interval, in (0, 1).

    Raises: ValueError for no values, values that are not finite, or lengths that differ.

    >>> interval([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0, n=3, groups=3)
    """
    sums, counts = _by_group(values, groups)
    means = _bootstrap_means(sums, counts, resamples, seed)
    low, high = _percentiles(means, confidence)
    total = int(counts.sum())
    return Interval(_mean(sums, counts), low, high, total, len(counts))


def ratio_interval(
    parts: ArrayLike,
    wholes: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Sum of `parts` over sum of `wholes`, e.g. calls to one model over all calls, with its interval.

    `n` is the sum of `wholes`. Draws without any whole are left out.
    Returns: None if all wholes are 0.
    Raises: ValueError as `interval`.

    >>> ratio_interval([1, 1], [2, 2]).mean
    0.5
    """
    above, _ = _by_group(parts, groups)
    below, _ = _by_group(wholes, groups)
    if below.sum() <= 0:
        return None
    above, below = above[0], below[0]
    draws = _draws(len(above), resamples, seed)
    whole = np.concatenate([drawn @ below for drawn in draws])
    part = np.concatenate([drawn @ above for drawn in draws])
    ratios = part[whole > 0] / whole[whole > 0]
    low, high = _percentiles(ratios, confidence)
    share = float(above.sum() / below.sum())
    return Interval(share, low, high, int(below.sum()), len(above))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean of `a - b`, both measured on the same questions (and repetitions) in the same order.

    Raises: ValueError for no values, values that are not finite, or lengths that differ.

    >>> same = paired_difference([0.0, 1.0], [0.0, 1.0])
    >>> (same.low, same.high, same.p)
    (0.0, 0.0, 1.0)
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} values cannot be paired")
    sums, counts = _by_group(first - second, groups)
    means = _bootstrap_means(sums, counts, resamples, seed)
    low, high = _percentiles(means, confidence)
    total = int(counts.sum())
    return Difference(
        mean=_mean(sums, counts),
        low=low,
        high=high,
        p=_two_sided(means),
        resolvable=_resolvable(_standard_error(sums, counts), confidence),
        n=total,
        groups=len(counts),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): p-values that may be read side by side, in input order.

    >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def spread(per_seed: Sequence[float]) -> Spread:
    """Mean and sample standard deviation over training seeds.

    Raises: ValueError without a seed.
    """
    if not per_seed:
        raise ValueError("no seeds")
    values = np.asarray(per_seed, float)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return Spread(float(values.mean()), sd, float(values.min()), float(values.max()), len(values))


def _by_group(
    values: ArrayLike, groups: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum (repetitions x groups) and count of each group, in sorted order so that row order does not matter."""
    given = np.asarray(values, float)
    if given.ndim not in (1, 2) or given.size == 0:
        raise ValueError("needs a list of at least one value, or one such list for each repetition")
    if not np.isfinite(given).all():
        raise ValueError("needs finite values")
    lines = np.atleast_2d(given)
    if groups is None:
        return lines, np.ones(lines.shape[1], dtype=np.int64)
    if len(groups) != lines.shape[1]:
        raise ValueError(f"{lines.shape[1]} values but {len(groups)} groups")
    _, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.stack([np.bincount(places, weights=line).astype(np.float64) for line in lines])
    return sums, np.bincount(places).astype(np.int64)


def _mean(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    return float(sums.mean(axis=0).sum() / counts.sum())


def _bootstrap_means(
    sums: NDArray[np.float64], counts: NDArray[np.int64], resamples: int, seed: int
) -> NDArray[np.float64]:
    draws = _draws(len(counts), resamples, seed)
    sizes = np.concatenate([drawn @ counts.astype(np.float64) for drawn in draws])
    means_R_B = np.stack(
        [np.concatenate([drawn @ line for drawn in draws]) / sizes for line in sums]
    )
    rng = np.random.default_rng([seed, resamples, len(sums)])
    often_B_R = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    found: NDArray[np.float64] = (means_R_B * often_B_R.T).sum(axis=0) / len(sums)
    return found


def _draws(num_groups: int, resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """How often each draw takes each group, draws x groups, in pieces that fit into memory."""
    rows = max(1, _CHUNK // num_groups)
    starts = range(0, resamples, rows)
    pieces = ((min(rows, resamples - start), start) for start in starts)
    return [_drawn(num_groups, size, start, seed) for size, start in pieces]


# A table asks for the same draws some hundred times; they depend on nothing but these numbers.
@lru_cache(maxsize=2)
def _drawn(num_groups: int, size: int, start: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng([seed, start])
    taken = rng.integers(0, num_groups, size=(size, num_groups))
    taken += num_groups * np.arange(size)[:, None]
    counts = np.bincount(taken.ravel(), minlength=size * num_groups)
    return counts.reshape(size, num_groups).astype(np.float64)


def _percentiles(means: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, outside (0, 1)")
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _two_sided(means: NDArray[np.float64]) -> float:
    # One is added to each count: a bootstrap of B draws cannot show a p below 1 / (B + 1).
    below, above = (means <= 0).sum() + 1, (means >= 0).sum() + 1
    return float(min(1.0, 2 * min(below, above) / (len(means) + 1)))


def _standard_error(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Of the mean: cluster-robust over groups (0 for a single one), and of the repetitions' own means."""
    num_groups, total = len(counts), counts.sum()
    variance = 0.0
    if num_groups > 1:
        mean_sums = sums.mean(axis=0)
        residuals = mean_sums - counts * (mean_sums.sum() / total)
        variance = num_groups / (num_groups - 1) * float((residuals**2).sum()) / total**2
    if len(sums) > 1:
        variance += float((sums.sum(axis=1) / total).var(ddof=1)) / len(sums)
    return float(np.sqrt(variance))


def _resolvable(standard_error: float, confidence: float, power: float = 0.8) -> float:
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + confidence / 2) + normal.inv_cdf(power)) * standard_error
