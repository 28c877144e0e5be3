"""Intervals and tests: cluster bootstrap, training seeds, paired differences, Holm, power.

Questions that ask the same in other words share a `group`, and their results are correlated. So
groups are resampled, not rows (Field & Welsh 2007, "Bootstrapping clustered data").

Values may have a line for each training seed. A bootstrap over S seeds is too narrow by (S - 1) / S
in variance, and its tails are far too short. So the draws over groups get an error of the seeds
added: the standard error of the seeds' own means, times Student's t on S - 1 degrees of freedom.
Those means already contain the interaction of seed and question, so it is removed from the draws.
The draws keep the effect of questions on all seeds. This is the variance of few readers and many
cases (Obuchowski & Rockette 1995; Hillis 2007, Statistics in Medicine 26:596). The two errors are
added as Behrens and Fisher add those of two means. Agreement of a few seeds can be chance, so no
interval is narrower than over questions alone. A single seed says nothing about others.

The same arguments give the same numbers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Range = tuple[float, float]
"""Smallest and largest possible value."""

ANYTHING: Range = (-math.inf, math.inf)
AMOUNT: Range = (0.0, math.inf)
SHARE: Range = (0.0, 1.0)

_CHUNK = 4_000_000  # group counts held in one piece (32 MB)
_NOTHING = 1e-9  # of the largest draw; below it a draw differs from zero by rounding alone
_POWER = 0.8


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval; `n` values in `groups` independent groups.

    `low` and `high` are None for a single group.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    groups: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of a - b over the same questions; a single group of questions has no interval and no p.

    Attributes:
        p: two-sided p-value of "no difference", in (0, 1]; 1 where a and b never differ.
        mde: smallest true difference that a comparison of this size and spread would find in
            four of five repetitions, at the level corrected for all comparisons; None where nothing
            varies, or where no possible difference is large enough.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    mde: float | None
    n: int
    groups: int


@dataclass(frozen=True, slots=True)
class Spread:
    """How far apart training seeds are; `sd` is the sample deviation, None for a single seed."""

    mean: float
    sd: float | None
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, slots=True, eq=False)
class BootstrapEstimate:
    """A figure, the mean over training seeds, with its variation over questions and seeds.

    Attributes:
        draws: the figure on each bootstrap draw of groups.
        blocks: seeds x groups: how much each group takes its seed's figure away from the mean over
            seeds, so that a line sums to that. One block for each set of seeds that is independent
            of the others.
        groups: those that count.
    """

    value: float
    draws: Array
    blocks: tuple[Array, ...]
    n: int
    groups: int
    seed: int


class Sample:
    """Groups of questions with their bootstrap draws; estimates of one sample can be compared.

    Values are one number per question, or seeds x questions.

    Args:
        groups: the group of each question; their order does not matter.
        resamples: bootstrap draws, at least 1.
        seed: of the draws.
    """

    def __init__(self, groups: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> None:
        _, self._places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self._counts = np.bincount(self._places).astype(np.float64)
        self._resamples = resamples
        self._seed = seed

    def means(self, measured: Sequence[ArrayLike]) -> list[BootstrapEstimate]:
        """The mean of each set of values, all on the same draws.

        Raises: ValueError for no values, values that are not finite, or lengths that differ.
        """
        sums = [self._sums(values) for values in measured]
        total = self._counts.sum()
        drawn = self._draw(np.array([self._counts, *(lines.mean(axis=0) for lines in sums)]))
        found = []
        for lines, draws in zip(sums, drawn[1:], strict=True):
            mean = float(lines.mean(axis=0).sum() / total)
            block = (lines - self._counts * mean) / total
            found.append(self._estimate(mean, draws / drawn[0], block, total, len(self._counts)))
        return found

    def ratio(self, parts: ArrayLike, wholes: ArrayLike) -> BootstrapEstimate | None:
        """Sum of `parts` over sum of `wholes` of each seed, and the mean of these; n is the sum of wholes.

        Seeds without a whole are left out, and so are draws without any.
        Returns: None if all wholes are 0.
        Raises: ValueError as `means`.
        """
        above, below = self._sums(parts), self._sums(wholes)
        known = below.sum(axis=1) > 0
        if not known.any():
            return None
        above, below = above[known], below[known]
        ratios = above.sum(axis=1) / below.sum(axis=1)
        mean = float(ratios.mean())
        drawn = self._draw(np.concatenate([above, below]))
        part, whole = drawn[: len(above)], drawn[len(above) :]
        had = whole > 0
        each = np.divide(part, whole, out=np.zeros_like(part), where=had)
        draws = each.sum(axis=0)[had.any(axis=0)] / had.sum(axis=0)[had.any(axis=0)]
        own = (above - ratios[:, None] * below) / below.sum(axis=1)[:, None]
        block = own + (ratios - mean)[:, None] / len(self._counts)
        groups = int((below > 0).any(axis=0).sum())
        return self._estimate(mean, draws, block, below.sum(), groups)

    def _estimate(
        self, value: float, draws: Array, block: Array, total: float, groups: int
    ) -> BootstrapEstimate:
        return BootstrapEstimate(value, draws, (block,), int(total), groups, self._seed)

    def _sums(self, values: ArrayLike) -> Array:
        """Sums by group, seeds x groups."""
        given = np.asarray(values, float)
        if given.ndim not in (1, 2) or given.size == 0:
            raise ValueError("needs a list of at least one value, or one such list for each seed")
        if not np.isfinite(given).all():
            raise ValueError("needs finite values")
        lines = np.atleast_2d(given)
        if lines.shape[1] != len(self._places):
            raise ValueError(f"{lines.shape[1]} values but {len(self._places)} groups")
        return np.stack([np.bincount(self._places, weights=line) for line in lines])

    def _draw(self, sums: Array) -> Array:
        """Each line's sum over the groups that a draw takes, lines x draws."""
        pieces = [sums @ drawn.T for drawn in _draws(sums.shape[1], self._resamples, self._seed)]
        return np.concatenate(pieces, axis=1)


def subtract(a: BootstrapEstimate, b: BootstrapEstimate) -> BootstrapEstimate:
    """a - b, both of one sample. As many lines are paired seed by seed; else seeds are independent."""
    one, two = a.blocks[0], b.blocks[0]
    paired = len(a.blocks) == len(b.blocks) == 1 and one.shape == two.shape
    blocks = (one - two,) if paired else (*a.blocks, *(-block for block in b.blocks))
    return BootstrapEstimate(a.value - b.value, a.draws - b.draws, blocks, a.n, a.groups, a.seed)


def average(parts: Sequence[BootstrapEstimate]) -> BootstrapEstimate:
    """The mean of figures on samples that have no group in common and were drawn with other seeds.

    Every sample has the same weight, so the precision is that of the smallest: its `groups` is the
    smallest number.
    """
    count = len(parts)
    fewest = min(part.groups for part in parts)
    return BootstrapEstimate(
        value=sum(part.value for part in parts) / count,
        draws=np.mean([part.draws for part in parts], axis=0),
        blocks=(np.concatenate([part.blocks[0] / count for part in parts], axis=1),),
        n=sum(part.n for part in parts),
        groups=count * fewest if fewest > 1 else 1,
        seed=parts[0].seed,
    )


def per_seed(estimate: BootstrapEstimate) -> list[float]:
    """The figure of each training seed; undefined for a difference of independent seeds."""
    return [float(found) for found in estimate.value + estimate.blocks[0].sum(axis=1)]


def interval_of(
    estimate: BootstrapEstimate, confidence: float = 0.95, within: Range = ANYTHING
) -> Interval:
    """The figure with its percentile interval, cut to what is possible.

    If every value is at one end of `within`, as in 0 right of n, no draw differs. The rule of three
    then gives the other bound (Hanley & Lippman-Hand 1983), exactly 1 - (1 - confidence)^(1 /
    groups) away.
    """
    low = high = None
    if estimate.groups > 1:
        low, high = _bounds(estimate, confidence, within)
    return Interval(estimate.value, low, high, estimate.n, estimate.groups)


def difference_of(
    estimate: BootstrapEstimate,
    confidence: float = 0.95,
    *,
    comparisons: int = 1,
    within: Range = ANYTHING,
) -> Difference:
    """A result of `subtract` with its interval, p-value and minimum detectable effect.

    Args:
        comparisons: how many p-values are to be corrected together; `mde` is at the level
            (1 - confidence) / comparisons, as the first step of Holm's correction.
    """
    value, n, groups = estimate.value, estimate.n, estimate.groups
    constant = _is_constant(estimate)
    if constant and value == 0.0:
        return Difference(0.0, 0.0, 0.0, 1.0, None, n, groups)
    if groups == 1:
        return Difference(value, None, None, None, None, n, groups)
    low, high = _bounds(estimate, confidence, within)
    p = p_value(estimate)
    mde = None if constant else _minimum_detectable_effect(estimate, (1 - confidence) / comparisons)
    if mde is not None and mde > within[1]:
        mde = None
    return Difference(value, low, high, p, mde, n, groups)


def p_value(estimate: BootstrapEstimate) -> float | None:
    """Two-sided, of "the figure is 0": as in `difference_of`, and never below `least_p`."""
    if _is_constant(estimate) and estimate.value == 0.0:
        return 1.0
    if estimate.groups == 1:
        return None
    return max(_two_sided(draws) for draws in _all_draws(estimate))


def least_p(resamples: int) -> float:
    """The smallest p-value that `resamples` draws can show; such a p is an upper bound."""
    return 2 / (resamples + 1)


def interval(
    values: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    within: Range = ANYTHING,
) -> Interval:
    """Mean of `values` with its interval.

    Args:
        values: one number per question; or seeds x questions.
        groups: the group of each question; None makes every question its own.
        resamples: bootstrap draws, at least 1.
        confidence: of the interval, in (0, 1).
        within: range of the mean.

    Raises: ValueError for no values, values that are not finite, or lengths that differ.

    >>> interval([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0, n=3, groups=3)
    """
    sample = _sample(values, groups, resamples, seed)
    return interval_of(sample.means([values])[0], confidence, within)


def ratio_interval(
    parts: ArrayLike,
    wholes: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    within: Range = ANYTHING,
) -> Interval | None:
    """Sum of `parts` over sum of `wholes`, e.g. calls to one model over all calls, with its interval.

    `n` is the sum of `wholes`. With several seeds it is the mean of their ratios.
    Returns: None if all wholes are 0.
    Raises: ValueError as `interval`.

    >>> ratio_interval([1, 1], [2, 2]).mean
    0.5
    """
    found = _sample(parts, groups, resamples, seed).ratio(parts, wholes)
    return None if found is None else interval_of(found, confidence, within)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    within: Range = ANYTHING,
) -> Difference:
    """Mean of `a - b`, both measured on the same questions (and with the same seeds) in the same order.

    Args:
        within: range of differences.

    Raises: ValueError for no values, values that are not finite, or lengths that differ.

    >>> same = paired_difference([0.0, 1.0], [0.0, 1.0])
    >>> (same.low, same.high, same.p)
    (0.0, 0.0, 1.0)
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} values cannot be paired")
    sample = _sample(first, groups, resamples, seed)
    return difference_of(sample.means([first - second])[0], confidence, within=within)


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


def _sample(values: ArrayLike, groups: Sequence[str] | None, resamples: int, seed: int) -> Sample:
    if groups is None:
        # Names that sort in the order of the questions.
        groups = [f"{place:09}" for place in range(np.atleast_2d(np.asarray(values)).shape[1])]
    return Sample(groups, resamples=resamples, seed=seed)


def _draws(num_groups: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each draw takes each group, draws x groups, in pieces that fit into memory."""
    rows = max(1, _CHUNK // num_groups)
    for start in range(0, resamples, rows):
        yield _drawn(num_groups, min(rows, resamples - start), start, seed)


# A table needs the same draws many times; they depend only on these numbers.
@lru_cache(maxsize=2)
def _drawn(num_groups: int, size: int, start: int, seed: int) -> Array:
    rng = np.random.default_rng([seed, start])
    taken = rng.integers(0, num_groups, size=(size, num_groups))
    taken += num_groups * np.arange(size)[:, None]
    counts = np.bincount(taken.ravel(), minlength=size * num_groups)
    return counts.reshape(size, num_groups).astype(np.float64)


def _all_draws(estimate: BootstrapEstimate) -> list[Array]:
    """The draws over groups; if seeds differ, also the draws with the error of the seeds."""
    seeds = _seed_errors(estimate)
    if not seeds:
        return [estimate.draws]
    everything, shared = _group_errors(estimate)
    kept = shared / everything if everything else 0.0
    draws: Array = estimate.value + kept * (estimate.draws - estimate.value)
    for place, (error, freedom) in enumerate(seeds, start=1):
        draws = draws + error * _student(freedom, len(draws), estimate.seed, place)
    return [estimate.draws, draws]


@lru_cache(maxsize=4)
def _student(freedom: int, size: int, seed: int, place: int) -> Array:
    return np.random.default_rng([seed, size, place]).standard_t(freedom, size)


def _group_errors(estimate: BootstrapEstimate) -> tuple[float, float]:
    """Cluster-robust standard errors over groups: in total, and of the effect common to all seeds."""
    groups = estimate.blocks[0].shape[1]
    parts = np.sum([block.mean(axis=0) for block in estimate.blocks], axis=0)
    variance = groups / (groups - 1) * float((parts**2).sum())
    noise = sum(map(_noise, estimate.blocks))
    return math.sqrt(variance), math.sqrt(max(0.0, variance - noise))


def _seed_errors(estimate: BootstrapEstimate) -> list[tuple[float, int]]:
    """Standard error of the mean over each set of several seeds, and its degrees of freedom."""
    found = []
    for block in estimate.blocks:
        if len(block) > 1:
            error = math.sqrt(float(block.sum(axis=1).var(ddof=1)) / len(block))
            if error > _NOTHING * abs(estimate.value):  # identical seeds may differ by rounding
                found.append((error, len(block) - 1))
    return found


def _noise(block: Array) -> float:
    """Variance of the mean over seeds from the interaction of seed and group."""
    seeds, groups = block.shape
    if seeds == 1 or groups == 1:
        return 0.0
    rest = block - block.sum(axis=1, keepdims=True) / groups - block.mean(axis=0)
    return float((rest**2).sum() * groups / ((groups - 1) * seeds * (seeds - 1)))


def _is_constant(estimate: BootstrapEstimate) -> bool:
    """True if all groups and seeds have the same value."""
    size = max(float(np.abs(estimate.draws).max()), abs(estimate.value))
    return all(float(np.abs(b).sum(axis=1).max()) <= _NOTHING * size for b in estimate.blocks)


def _two_sided(draws: Array) -> float:
    nothing = _NOTHING * float(np.abs(draws).max())
    # One is added to each count: of B draws none can show a p below 1 / (B + 1) on one side.
    below, above = (draws <= nothing).sum() + 1, (draws >= -nothing).sum() + 1
    return float(min(1.0, 2 * min(below, above) / (len(draws) + 1)))


def _bounds(estimate: BootstrapEstimate, confidence: float, within: Range) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, outside (0, 1)")
    least, most = within
    if _is_constant(estimate) and math.isfinite(most - least):
        reach = (most - least) * (1 - (1 - confidence) ** (1 / estimate.groups))
        if math.isclose(estimate.value, least, abs_tol=_NOTHING):
            return least, least + reach
        if math.isclose(estimate.value, most, abs_tol=_NOTHING):
            return most - reach, most
    tail = 100 * (1 - confidence) / 2
    ends = [np.percentile(draws, [tail, 100 - tail]) for draws in _all_draws(estimate)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return max(least, float(low)), min(most, float(high))


def _minimum_detectable_effect(estimate: BootstrapEstimate, level: float) -> float:
    """Errors of questions and seeds join as lengths at right angles (Zou & Donner 2008)."""
    from scipy.special import ndtri, stdtrit

    everything, shared = _group_errors(estimate)
    seeds = _seed_errors(estimate)
    alone = joint = 0.0
    for chance in (1 - level / 2, _POWER):
        normal = float(ndtri(chance))
        alone += everything * normal
        joint += math.hypot(shared * normal, *(e * float(stdtrit(df, chance)) for e, df in seeds))
    return max(alone, joint)
