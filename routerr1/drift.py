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
    moved = not found.low <= 0.0 <= found.high
    before = sum(reading.before) / len(reading.before)
    now = sum(reading.now) / len(reading.now)
    relation = "leaves out" if moved else "holds"
    why = f"the interval {found.low:+.4g} to {found.high:+.4g} {relation} zero"
    return Finding(reading.what, before, now, (found.low, found.high), moved, why)


def compare_latency(
    what: str, before_s: float | None, now_s: Sequence[float], max_ratio: float
) -> Finding:
    """Moved if the median of `now_s` is more than `max_ratio` times `before_s`, or under its inverse."""
    from statistics import median

    if before_s is None or not now_s or before_s <= 0:
        return Finding(what, before_s or 0.0, 0.0, None, before_s is not None, "not measured")
    ratio = median(now_s) / before_s
    moved = not 1 / max_ratio <= ratio <= max_ratio
    why = f"{ratio:.2f} times the card's, allowed are {1 / max_ratio:.2f} to {max_ratio:.2f}"
    return Finding(what, before_s, median(now_s), None, moved, why)


def gone(candidate: str) -> Finding:
    """What is said of a candidate that the policy knows and the pool has no more."""
    nothing = float("nan")
    return Finding(candidate, nothing, nothing, None, True, "the pool has it no more")


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
