"""Has something moved since it was measured? The same questions then and now, pair by pair. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure, measured twice on the same questions in the same order.

    Attributes:
        what: e.g. "champion exact match".
        groups: questions that ask the same thing share one.
    """

    what: str
    before: tuple[float, ...]
    now: tuple[float, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one figure; `interval` is that of now minus before, where there is one."""

    what: str
    before: float
    now: float
    interval: tuple[float, float] | None
    moved: bool
    why: str


def compare(reading: Reading, *, confidence: float = 0.95, seed: int = 0) -> Finding:
    """Moved if the paired bootstrap interval of now minus before leaves out zero.

    A value that is not finite, or no value at all, counts as moved: what cannot be measured is no peace.
    """
    from routerr1.evaluate.stats import paired_difference

    values = (*reading.before, *reading.now)
    if not values or not all(map(math.isfinite, values)):
        nothing = float("nan")
        return Finding(reading.what, nothing, nothing, None, True, "could not be measured")
    found = paired_difference(
        reading.now, reading.before, reading.groups, confidence=confidence, seed=seed
    )
    before = sum(reading.before) / len(reading.before)
    now = sum(reading.now) / len(reading.now)
    if found.low is None or found.high is None:
        why = "it differs, and a single group of questions has no interval"
        return Finding(reading.what, before, now, None, True, why)
    moved = not found.low <= 0.0 <= found.high
    relation = "leaves out" if moved else "holds"
    why = f"the interval {found.low:+.4g} to {found.high:+.4g} {relation} zero"
    return Finding(reading.what, before, now, (found.low, found.high), moved, why)


def compare_latency(
    what: str,
    before_s: Sequence[float],
    now_s: Sequence[float],
    max_ratio: float,
    *,
    confidence: float = 0.95,
) -> Finding:
    """Moved if the interval of the median of now / before lies outside of 1 / `max_ratio` to `max_ratio`.

    Seconds scatter widely: a median that is out by chance is no drift. No answer at all is.

    Args:
        before_s: of the same questions as `now_s`, in the same order; 0 where nobody took the time, as in
            imported calls.
    """
    from statistics import median

    nothing = float("nan")
    if not before_s:
        return Finding(what, nothing, nothing, None, True, "no call was answered")
    timed = [(now, before) for now, before in zip(now_s, before_s, strict=True) if before > 0]
    if not timed:
        return Finding(what, nothing, median(now_s), None, False, "no seconds were kept of before")
    ratios = sorted(now / before for now, before in timed)
    interval = median_interval(ratios, confidence)
    moved = interval is not None and (interval[0] > max_ratio or interval[1] < 1 / max_ratio)
    told = "too few calls" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
    allowed = f"{1 / max_ratio:.2f} to {max_ratio:.2f}"
    why = f"{median(ratios):.2f} times what it was ({told}), allowed are {allowed}"
    now, before = (median(seconds) for seconds in zip(*timed, strict=True))
    return Finding(what, before, now, interval, moved, why)


def median_interval(ordered: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Interval of the median by order statistics, whatever the distribution; None of too few values.

    >>> median_interval([1, 2, 3, 4, 5, 6], 0.95)
    (1, 6)
    """
    count = len(ordered)
    tail, rank = 0.5**count, 0
    while 2 * tail <= 1 - confidence:
        rank += 1
        tail += math.comb(count, rank) * 0.5**count
    return None if rank == 0 else (ordered[rank - 1], ordered[count - rank])


def gone(candidate: str, *, known: bool) -> Finding:
    """What is said of a candidate that the policy knows and the pool has no more; if `known`, no news."""
    nothing = float("nan")
    why = "the pool has it no more" + (", as the last retrain knew" if known else "")
    return Finding(candidate, nothing, nothing, None, not known, why)


def to_markdown(findings: Sequence[Finding]) -> str:
    """A table for people."""
    head = "drift" if any(finding.moved for finding in findings) else "no drift"
    lines = [
        f"# Watch: {head}",
        "",
        "| what | before | now | verdict | why |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {found.what} | {found.before:.4g} | {found.now:.4g} "
        f"| {'**moved**' if found.moved else 'same'} | {found.why} |"
        for found in findings
    ]
    return "\n".join(lines) + "\n"
