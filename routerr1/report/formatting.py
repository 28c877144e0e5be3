"""Figures as text and as cells of tables."""

from typing import Literal

from routerr1.evaluate.results import Comparison, Estimate, Measure
from routerr1.metrics import metric
from routerr1.report.sections import Cell, Tone

NOTHING = "–"
"""In place of a figure that the data cannot give."""


def number(value: float | None, digits: int, scale: float = 1.0, *, signed: bool = False) -> str:
    """A figure, or a dash. A value that rounds to zero has no minus.

    >>> number(0.25, 3, signed=True), number(-1e-9, 3), number(None, 3)
    ('+0.250', '0.000', '–')
    """
    if value is None:
        return NOTHING
    rounded = round(scale * value, digits) or 0.0
    return f"{rounded:{'+' if signed else ''}.{digits}f}"


def shown(name: str, value: float | None) -> str:
    """A metric's value as tables show it.

    >>> shown("cost_usd", 0.00002), shown("no_call_rate", 0.5)
    ('0.0200', '50')
    """
    about = metric(name)
    return number(value, about.digits, about.scale)


def estimate(found: Estimate | None, digits: int, scale: float = 1.0) -> Cell:
    """A figure with its interval."""
    if found is None:
        return Cell(NOTHING)
    low, high = number(found.low, digits, scale), number(found.high, digits, scale)
    return Cell(number(found.mean, digits, scale), low, high)


def measured(found: Estimate | None, measure: Measure) -> Cell:
    """A figure of one measure with its interval, scaled as its metric says."""
    about = metric(measure)
    return estimate(found, about.digits, about.scale)


def gap(
    found: Comparison, digits: int, scale: float = 1.0, *, good: Literal["high", "low"] = "high"
) -> Cell:
    """A difference with its interval; coloured if the interval excludes zero.

    Args:
        good: which sign is an improvement.
    """
    low = number(found.low, digits, scale, signed=True)
    high = number(found.high, digits, scale, signed=True)
    tone: Tone = ""
    if found.is_clear:
        tone = "better" if (found.mean > 0) == (good == "high") else "worse"
    return Cell(number(found.mean, digits, scale, signed=True), low, high, tone)


def share(found: Estimate | None, nothing: str = "no call") -> Cell:
    """A share with its interval, in percent."""
    if found is None:
        return Cell(nothing)
    low, high = number(found.low, 0, 100), number(found.high, 0, 100)
    return Cell(f"{number(found.mean, 0, 100)} %", low, high)


def p_text(found: Comparison) -> str:
    """The corrected p-value; with ≤ if the bootstrap cannot show a smaller one.

    >>> p_text(Comparison(mean=1, low=0, high=2, p=0.1, mde=None, p_holm=0.25, p_is_bound=True))
    '≤ 0.250'
    """
    text = number(found.p_holm, 3)
    return f"≤ {text}" if found.p_is_bound else text


def text_of(cell: Cell) -> str:
    """A cell on one line, the interval in brackets."""
    return f"{cell.text} [{cell.low}, {cell.high}]" if cell.low or cell.high else cell.text
