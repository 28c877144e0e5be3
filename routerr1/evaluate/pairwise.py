"""Any two routers on the same questions: their paired difference, corrected over all pairs there are."""

import math
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations
from typing import TYPE_CHECKING, Any

from routerr1.config import EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.formatting import bounded, lines_of, number, told_p
from routerr1.evaluate.grid import grids_of
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import p_value, subtract
from routerr1.evaluate.table import MEASURES, compare, correct, measure, order_routers, summarise

if TYPE_CHECKING:
    from rich.table import Table

COMPARED = ("em", "cost_usd")
"""What the table of all pairs holds; `Comparison` has every measure."""

_SHOWN = {
    "em": ("exact match", 3, 1), "f1": ("token F1", 3, 1),
    "cost_usd": ("USD per 1000 questions", 4, 1000), "calls": ("calls", 2, 1),
    "latency_s": ("latency of calls, s", 2, 1), "policy_tokens": ("policy tokens", 1, 1),
    "prompt_tokens": ("prompt tokens", 1, 1), "completion_tokens": ("reply tokens", 1, 1),
    "format_valid": ("keeps the format", 3, 1),
}  # fmt: skip
"""Measure -> label, digits, scale."""


def all_pairs(
    rows: Sequence[Row],
    params: EvaluateParams,
    measures: Sequence[str] = COMPARED,
    only: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The paired difference of every two routers in each measure, Holm-corrected over all pairs.

    Pairs are many, and a corrected p-value is never below their number times what the draws can show: so
    there are as many draws as let it fall to a fifth of the level.

    Args:
        only: of these two; the p-values of the others are worked out to correct theirs, and no more.

    Returns: `resamples`, `comparisons` (how many pairs), `confidence`, and `pairs`, each with the names `a` and
        `b` and its difference, a minus b, in each measure.
    Raises: DataError as `summarise`.
    """
    grids = grids_of(rows)
    names = order_routers(set(grids))
    pairs = list(combinations(names, 2))
    resamples = max(params.bootstrap, math.ceil(10 * len(pairs) / (1 - params.confidence)))
    found: list[dict[str, Any]] = [{"a": a, "b": b} for a, b in pairs]
    for what in measures:
        measured = measure(grids, names, [what], resamples, params.seed)
        for entry in found:
            a, b = measured[entry["a"]][what], measured[entry["b"]][what]
            if only is None or {entry["a"], entry["b"]} == set(only):
                entry[what] = compare(a, b, what, params.confidence, len(pairs))
            else:
                entry[what] = {"p": p_value(subtract(a, b))}
        correct([entry[what] for entry in found], resamples)
    return {
        "resamples": resamples,
        "comparisons": len(pairs),
        "confidence": params.confidence,
        "pairs": found,
    }


def between(found: Mapping[str, Any], a: str, b: str) -> dict[str, Any]:
    """The entry of `all_pairs` for two of its routers, turned to a minus b.

    Raises: KeyError if it has no such pair.
    """
    for entry in found["pairs"]:
        if (entry["a"], entry["b"]) == (a, b):
            return dict(entry)
        if (entry["a"], entry["b"]) == (b, a):
            turned = {what: _turned(gap) for what, gap in entry.items() if what not in ("a", "b")}
            return {"a": a, "b": b, **turned}
    raise KeyError((a, b))


def _turned(gap: Mapping[str, Any]) -> dict[str, Any]:
    def minus(value: float | None) -> float | None:
        return None if value is None else 0.0 - value

    ends = {"mean": minus(gap["mean"]), "low": minus(gap["high"]), "high": minus(gap["low"])}
    return {**gap, **ends}


def names_of(found: Mapping[str, Any]) -> list[str]:
    """The routers of `all_pairs`, in the order of the tables."""
    pairs = found["pairs"]
    return [pairs[0]["a"], *(p["b"] for p in pairs if p["a"] == pairs[0]["a"])] if pairs else []


def how_to_read(found: Mapping[str, Any]) -> str:
    """What the table of all pairs says."""
    return (
        "The router of the row minus that of the column, on the same questions and seeds. p is Holm-corrected "
        f"over all {found['comparisons']} pairs ({found['resamples']} draws); differences with p below "
        f"{1 - found['confidence']:.2g} are marked. The command “routerr1 compare A B” tells all of two of them."
    )


def is_clear(found: Mapping[str, Any], gap: Mapping[str, Any]) -> bool:
    """Does the corrected p-value lie below the level?"""
    return gap["p_holm"] is not None and gap["p_holm"] < 1 - found["confidence"]


def pairs_markdown(found: Mapping[str, Any]) -> str:
    """Differences in exact match as a square, a star where the corrected p-value is below the level.

    Empty where there are no two routers.
    """
    names = names_of(found)
    if not names:
        return ""
    rows = []
    for a in names:
        cells = []
        for b in names:
            gap = None if a == b else between(found, a, b)["em"]
            star = "\\*" if gap and is_clear(found, gap) else ""
            cells.append(f"{number(gap['mean'], 3, signed=True)}{star}" if gap else "")
        rows.append([a, *cells])
    return "\n".join([how_to_read(found), "", *lines_of(["EM", *names], rows)]) + "\n"


def side_by_side(rows: Sequence[Row], a: str, b: str, params: EvaluateParams) -> "Table":
    """Both routers' figures and their paired difference, for the terminal.

    Raises: DataError for a router that has no rows, naming the nearest that has, or if `a` is `b`.
    """
    from rich.table import Table
    from rich.text import Text

    known = {row.router for row in rows}
    for name in (a, b):
        if name not in known:
            raise DataError(
                f"no router {name!r} was evaluated; the nearest is {_nearest(name, known)!r}"
            )
    if a == b:
        raise DataError(f"compare: {a!r} is the same router twice")
    pair = between(all_pairs(rows, params, MEASURES, only=(a, b)), a, b)
    # On the rows of two routers the draws are those of the whole table, and so are the intervals.
    told = summarise([row for row in rows if row.router in (a, b)], params, reference=a)
    entries = {entry["router"]: entry for entry in told["routers"]}
    table = Table(
        title=f"n = {told['n']} questions in {told['groups']} groups",
        caption=f"{round(100 * params.confidence)} % intervals; p is Holm-corrected over all pairs of routers; "
        "“resolves”: smallest true difference found in four of five such comparisons",
    )  # fmt: skip
    for head in ("", a, b, f"{a} minus {b}", "p", "resolves"):
        table.add_column(head, justify="right" if head else "left")
    for what, (label, digits, scale) in _SHOWN.items():
        gap = pair[what]
        cells = [label, *(bounded(entries[name][what], digits, scale) for name in (a, b))]
        cells += [bounded(gap, digits, scale, signed=True), told_p(gap)]
        cells.append(number(gap["resolvable"], digits, scale))
        table.add_row(*map(Text, cells))  # brackets are no markup here
    return table


def _nearest(name: str, known: set[str]) -> str:
    """By its whole name or by what stands after its last slash."""

    def likeness(other: str) -> float:
        parts = (other, other.rpartition("/")[2])
        return max(SequenceMatcher(None, name.lower(), part.lower()).ratio() for part in parts)

    return max(sorted(known), key=likeness)
