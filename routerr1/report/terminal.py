"""Two routers side by side, for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from routerr1.config import EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.controls import POLICY
from routerr1.evaluate.pairwise import all_pairs
from routerr1.evaluate.routers import nearest, spelled_out
from routerr1.evaluate.rows import Row
from routerr1.evaluate.table import MEASURES, summarise
from routerr1.metrics import metric
from routerr1.report.formatting import gap, measured, p_text, shown, text_of
from routerr1.report.glossary import label

if TYPE_CHECKING:
    from rich.table import Table


def side_by_side(rows: Sequence[Row], a: str, b: str, params: EvaluateParams) -> "Table":
    """The results of both routers and their paired difference in every measure.

    Args:
        a: as in the rows; `baseline/` and `fixed/` may be left out.

    Raises: DataError for a router without rows, with the nearest name, or if `a` is `b`.
    """
    from rich.table import Table
    from rich.text import Text

    known = {row.router for row in rows}
    a, b = (_evaluated(name, known) for name in (a, b))
    if a == b:
        raise DataError(f"compare: {a!r} is the same router twice")
    pair = all_pairs(rows, params, MEASURES, only=(a, b)).between(a, b)
    # The draws depend on the questions alone, so these intervals equal those of the whole table.
    both = summarise([row for row in rows if row.router in (a, b)], params, reference=a)
    table = Table(
        title=f"n = {both.n} questions in {both.groups} groups",
        caption=f"{round(100 * params.confidence)} % intervals; p is Holm-corrected over all pairs of routers; "
        "MDE: minimum detectable effect, found in four of five such comparisons",
    )  # fmt: skip
    for head in ("", label(a), label(b), f"{label(a)} minus {label(b)}", "p", "MDE"):
        table.add_column(head, justify="right" if head else "left")
    for what in MEASURES:
        about, found = metric(what), pair.difference[what]
        cells = [measured(both.router(name).estimate(what), what) for name in (a, b)]
        cells.append(gap(found, about.digits, about.scale))
        texts = [about.label, *map(text_of, cells), p_text(found), shown(what, found.mde)]
        table.add_row(*map(Text, texts))  # Text: brackets are not markup here
    return table


def _evaluated(name: str, known: set[str]) -> str:
    """The router as it is named in the rows.

    Raises: DataError if it has no rows.
    """
    if (found := spelled_out(name, known)) is not None:
        return found
    if name == POLICY:
        raise DataError(
            "compare: no policy was evaluated here (with model.init: none, none is trained); the routers are "
            f"{', '.join(sorted(known))}"
        )
    raise DataError(f"no router {name!r} was evaluated; the nearest is {nearest(name, known)!r}")
