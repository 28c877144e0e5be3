"""Policies trained with different weights of cost, on one plot with everything they are compared with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from routerr1.config import EvaluateParams
from routerr1.evaluate.controls import ORACLE, POLICY
from routerr1.evaluate.pareto import Point, fronts, fronts_markdown
from routerr1.evaluate.rows import Row, write_rows
from routerr1.evaluate.table import markdown, shorten, summarise
from routerr1.files import atomic_write_text, write_json

ALPHA = "alpha="


def swept_name(cost_weight: float) -> str:
    """The router trained with this weight of cost."""
    return f"{ALPHA}{cost_weight:g}"


def compare_swept(
    swept: Sequence[Row], others: Sequence[Row], params: EvaluateParams
) -> dict[str, Any]:
    """The table of all routers with the swept policies as one front; differences are to the lowest weight.

    Args:
        swept: rows of routers named by `swept_name`.
        others: rows of an evaluation on the same questions; its policy is left out, as it is one of ours.
    """
    names = sorted({row.router for row in swept}, key=lambda name: float(name.removeprefix(ALPHA)))
    rivals = [row for row in others if row.router != POLICY]
    table = summarise([*swept, *rivals], params, reference=names[0])
    points: dict[str, Point] = {
        entry["router"]: (entry["cost_usd"]["mean"], entry["em"]["mean"])
        for entry in table["routers"]
    }
    ours = [points.pop(name) for name in names]
    points.pop(ORACLE, None)  # it knows the answers: a bound, and nobody's rival
    return {**table, "swept": names, "fronts": shorten(fronts(ours, points))}


def write_swept(folder: Path, rows: Sequence[Row], found: Mapping[str, Any]) -> None:
    """Write rows.parquet, sweep.json, sweep.md and pareto.svg."""
    from routerr1 import plots

    marked = [(e["router"], e["cost_usd"], e["em"]) for e in found["routers"]]
    write_rows(folder / "rows.parquet", rows)
    write_json(folder / "sweep.json", found)
    told = f"{markdown(dict(found))}\n{fronts_markdown(found['fronts'])}"
    atomic_write_text(folder / "sweep.md", told)
    atomic_write_text(folder / "pareto.svg", plots.pareto("sweep", marked, found["swept"]))
