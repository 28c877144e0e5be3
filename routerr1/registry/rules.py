"""Lines of a decision: a figure, its interval, a limit and a verdict.

A missing or non-finite figure fails its rule.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from routerr1.registry.samples import Bounds

if TYPE_CHECKING:
    from routerr1.evaluate.stats import Difference


FEWEST_GROUPS = 10  # of questions, from which on an interval says something


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a decision: `figure` is compared with `limit`, and `why` says it in words."""

    name: str
    figure: float | None
    interval: Bounds | None
    limit: float
    passed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All rules of the gate, and how the answers behind them are compared."""

    rules: tuple[Rule, ...]
    matching: str = ""

    @property
    def passed(self) -> bool:
        """True only if every rule passed."""
        return all(rule.passed for rule in self.rules)

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Names of the rules that failed."""
        return tuple(rule.name for rule in self.rules if not rule.passed)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Each rule that failed, with its figures in words."""
        return tuple(f"{rule.name}: {rule.why}" for rule in self.rules if not rule.passed)


def no_worse(name: str, difference: "Difference | None", margin: float, what: str) -> Rule:
    """The lower end of the interval lies at most `margin` below 0."""
    return _difference(name, difference, -margin, what, ">=")


def not_surely_worse(name: str, difference: "Difference", margin: float, what: str) -> Rule:
    """The upper end of the interval lies at most `margin` below 0; fewer than `FEWEST_GROUPS` decide nothing."""
    limit = -margin or 0.0
    if difference.low is None or difference.high is None or difference.groups < FEWEST_GROUPS:
        why = f"{what}: not judged, {difference.groups} of {FEWEST_GROUPS} groups of questions"
        return Rule(name, difference.mean, None, limit, True, why)
    interval = (difference.low, difference.high)
    passed = all(map(math.isfinite, interval)) and difference.high >= limit
    relation = ">=" if passed else "is not >="
    return Rule(
        name, difference.mean, interval, limit, passed,
        f"{what}: {difference.high:.4g} {relation} {limit:.4g}",
    )  # fmt: skip


def better(name: str, difference: "Difference | None", what: str) -> Rule:
    """The lower end of the interval lies above 0."""
    return _difference(name, difference, 0.0, what, ">")


def _difference(
    name: str, difference: "Difference | None", limit: float, what: str, sign: str
) -> Rule:
    if difference is None:
        return Rule(name, None, None, limit, False, f"{what}: no comparison was made")
    if difference.low is None or difference.high is None:
        why = f"{what}: a single group of questions has none"
        return Rule(name, difference.mean, None, limit, False, why)
    interval = (difference.low, difference.high)
    low = difference.low
    passed = all(map(math.isfinite, (difference.mean, *interval))) and (
        low > limit if sign == ">" else low >= limit
    )
    relation = sign if passed else f"is not {sign}"
    return Rule(
        name,
        difference.mean,
        interval,
        limit,
        passed,
        f"{what}: {low:.4g} {relation} {limit:.4g}",
    )


def at_least(
    name: str, figure: float | None, limit: float, what: str, interval: Bounds | None = None
) -> Rule:
    return _held(name, figure, limit, what, ">=", interval)


def at_most(
    name: str, figure: float | None, limit: float, what: str, interval: Bounds | None = None
) -> Rule:
    return _held(name, figure, limit, what, "<=", interval)


def _held(
    name: str, figure: float | None, limit: float, what: str, sign: str, interval: Bounds | None
) -> Rule:
    if figure is None or not math.isfinite(figure):
        return Rule(name, None, None, limit, False, f"{what}: not measured, or not finite")
    # Figures are means of floats, so rounding errors must not decide.
    near = math.isclose(figure, limit, rel_tol=1e-9, abs_tol=1e-12)
    passed = near or (figure > limit if sign == ">=" else figure < limit)
    relation = sign if passed else f"is not {sign}"
    return Rule(
        name, figure, interval, limit, passed, f"{what}: {figure:.4g} {relation} {limit:.4g}"
    )


def to_tags(decision: Decision) -> dict[str, str]:
    """Each rule by name as compact JSON: figure, low, high, limit, verdict."""
    tags = {}
    for rule in decision.rules:
        low, high = rule.interval or (None, None)
        line: dict[str, float | str | None] = {
            "figure": _rounded(rule.figure),
            "low": _rounded(low),
            "high": _rounded(high),
            "limit": _rounded(rule.limit),
            "verdict": "pass" if rule.passed else "FAIL",
        }
        tags[rule.name] = json.dumps(line, separators=(",", ":"), allow_nan=False)
    return tags


def _rounded(value: float | None) -> float | None:
    """Six significant digits; None for a value that JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def to_markdown(decision: Decision, facts: Mapping[str, str] | None = None) -> str:
    """The decision as a page; `facts` (challenger, champion, run ...) are listed above the rules."""
    lines = [f"# Gate: {'passed' if decision.passed else 'refused'}", ""]
    lines += [f"- {name}: {value}" for name, value in (facts or {}).items()]
    lines += [""] if facts else []
    lines += ["| rule | figure | interval | limit | verdict | why |", "|---|---|---|---|---|---|"]
    for rule in decision.rules:
        low_high = (
            "" if rule.interval is None else f"{rule.interval[0]:.4g} to {rule.interval[1]:.4g}"
        )
        verdict = "pass" if rule.passed else "**FAIL**"
        lines.append(
            f"| {rule.name} | {_shown(rule.figure)} | {low_high} | {_shown(rule.limit)} "
            f"| {verdict} | {rule.why} |"
        )
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"
