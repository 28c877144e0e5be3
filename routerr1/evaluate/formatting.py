"""Figures as they stand in the cells of Markdown tables and of the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"
"""In the place of a figure that the data cannot give."""


def number(value: float | None, digits: int, scale: float = 1.0, *, signed: bool = False) -> str:
    """A figure, or a dash. What rounds to nothing has no minus.

    >>> number(0.25, 3, signed=True), number(-1e-9, 3), number(None, 3)
    ('+0.250', '0.000', '–')
    """
    if value is None:
        return NOTHING
    rounded = round(scale * value, digits) or 0.0
    return f"{rounded:{'+' if signed else ''}.{digits}f}"


def bounded(
    found: Mapping[str, Any] | None, digits: int, scale: float = 1.0, *, signed: bool = False
) -> str:
    """A figure with its interval in brackets, from `mean`, `low` and `high`.

    >>> bounded({"mean": 0.5, "low": 0.25, "high": 1.0}, 2)
    '0.50 [0.25, 1.00]'
    """
    if found is None:
        return NOTHING
    mean, low, high = (
        number(found[key], digits, scale, signed=signed) for key in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def lines_of(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return [head, f"|{' --- |' * len(heads)}", *lines]


def percent(found: Mapping[str, Any]) -> str:
    """A share with its interval, in whole percent."""
    mean, low, high = (
        NOTHING if found[key] is None else f"{found[key]:.0%}" for key in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def told_p(gap: Mapping[str, Any]) -> str:
    """The corrected p-value; with ≤ where the draws cannot show a smaller one.

    >>> told_p({"p_holm": 0.25, "p_is_bound": True})
    '≤ 0.250'
    """
    told = number(gap["p_holm"], 3)
    return f"≤ {told}" if gap["p_is_bound"] else told
