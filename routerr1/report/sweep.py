"""Policies trained with different weights of cost, on one plot with everything they are compared with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from routerr1.config import EvaluateParams
from routerr1.evaluate.controls import BOUNDS, POLICY
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

    Returns: the table with `swept`, the names in rising weight, and `fronts`; `by_dataset` holds the same
        for each data set, where there are several.
    """
    found = _compared(swept, others, params)
    datasets = found["datasets"] if len(found["datasets"]) > 1 else []
    found["by_dataset"] = {
        dataset: _compared(
            [row for row in swept if row.dataset == dataset],
            [row for row in others if row.dataset == dataset],
            params,
        )
        for dataset in datasets
    }
    return found


def _compared(
    swept: Sequence[Row], others: Sequence[Row], params: EvaluateParams
) -> dict[str, Any]:
    names = sorted({row.router for row in swept}, key=lambda name: float(name.removeprefix(ALPHA)))
    rivals = [row for row in others if row.router != POLICY]
    table = summarise([*swept, *rivals], params, reference=names[0])
    points: dict[str, Point] = {
        entry["router"]: (entry["cost_usd"]["mean"], entry["em"]["mean"])
        for entry in table["routers"]
    }
    ours = [points.pop(name) for name in names]
    for bound in BOUNDS:
        points.pop(bound, None)
    return {**table, "swept": names, "fronts": shorten(fronts(ours, points))}


def draw_swept(found: Mapping[str, Any]) -> dict[str, str]:
    """The plot of cost against quality over all questions, and one for each data set, as SVG by name."""
    from routerr1.report import plots

    tables = {"sweep": found} | {f"sweep-{name}": t for name, t in found["by_dataset"].items()}
    return {
        name: plots.pareto(
            name, [(e["router"], e["cost_usd"], e["em"]) for e in t["routers"]], t["swept"]
        )
        for name, t in tables.items()
    }


def swept_markdown(found: Mapping[str, Any]) -> str:
    """Areas under the front, and every other router at equal quality and at equal cost."""
    parts = [fronts_markdown(found["fronts"])]
    for dataset, own in found["by_dataset"].items():
        parts.append(f"### {dataset}\n\n{fronts_markdown(own['fronts'])}")
    return "\n".join(parts)


def write_swept(folder: Path, rows: Sequence[Row], found: Mapping[str, Any]) -> None:
    """Write rows.parquet, sweep.md, the plots and, last, sweep.json."""
    write_rows(folder / "rows.parquet", rows)
    told = f"{markdown(dict(found))}\n{swept_markdown(found)}"
    atomic_write_text(folder / "sweep.md", told)
    for name, svg in draw_swept(found).items():
        atomic_write_text(folder / f"{name}.svg", svg)
    write_json(folder / "sweep.json", found)
