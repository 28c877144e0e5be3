"""Whether a figure has moved since it was last measured, question by question. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path("runs/watch/drift.md")  # the last look
DRIFT_TITLE = "# Watch: drift"


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure, measured twice on the same questions, in the same order.

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
    """The verdict on one figure; `interval` is that of now minus before, or of now / before for seconds."""

    what: str
    before: float
    now: float
    interval: tuple[float, float] | None
    moved: bool
    why: str


def compare(reading: Reading, *, confidence: float = 0.95, seed: int = 0) -> Finding:
    """Moved if the paired bootstrap interval of now minus before leaves out zero.

    A value that is not finite, or no value at all, counts as moved: missing measurements count as drift.
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
        why = "it differs; a single group of questions has no interval"
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
    """Moved if the interval of the median of now / before lies outside 1 / `max_ratio` to `max_ratio`.

    Seconds scatter widely, so a median outside by chance is no drift. No answer at all is drift.

    Args:
        before_s: of the same questions as `now_s`, in the same order; 0 if it was not measured, as in
            imported calls.
    """
    from statistics import median

    nothing = float("nan")
    if not before_s:
        return Finding(what, nothing, nothing, None, True, "no call was answered")
    timed = [(now, before) for now, before in zip(now_s, before_s, strict=True) if before > 0]
    if not timed:
        return Finding(what, nothing, median(now_s), None, False, "no earlier seconds are known")
    ratios = [now / before for now, before in timed]
    interval = median_interval(ratios, confidence)
    moved = interval is not None and (interval[0] > max_ratio or interval[1] < 1 / max_ratio)
    shown = "too few calls" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
    allowed = f"{1 / max_ratio:.2f} to {max_ratio:.2f}"
    why = f"{median(ratios):.2f} times what it was ({shown}), allowed are {allowed}"
    now, before = (median(seconds) for seconds in zip(*timed, strict=True))
    return Finding(what, before, now, interval, moved, why)


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Interval of the median by order statistics, for any distribution; None for too few values.

    >>> median_interval([1, 2, 3, 4, 5, 6], 0.95)
    (1.0, 6.0)
    """
    from scipy.stats import quantile_test

    if not values:
        return None
    found = quantile_test(values, p=0.5).confidence_interval(confidence)
    low, high = float(found.low), float(found.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def gone(candidate: str, *, known: bool) -> Finding:
    """The finding on a candidate that is no longer in the pool; moved unless that was `known`."""
    nothing = float("nan")
    why = "no longer in the pool" + (", as the last retrain knew" if known else "")
    return Finding(candidate, nothing, nothing, None, not known, why)


def to_markdown(findings: Sequence[Finding]) -> str:
    """The findings as a table."""
    lines = [
        DRIFT_TITLE if any(finding.moved for finding in findings) else "# Watch: no drift",
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
