"""Policies trained with different cost weights, on one plot with every other router."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from routerr1.config import EvaluateParams
from routerr1.evaluate.controls import BOUNDS, POLICY
from routerr1.evaluate.pareto import Fronts, Point, fronts
from routerr1.evaluate.results import RouterTable
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.rows import Row, write_rows
from routerr1.evaluate.table import summarise
from routerr1.files import atomic_write_text
from routerr1.report import markdown
from routerr1.report.formatting import measured, shown
from routerr1.report.sections import Cell, Plot, Section, table_of
from routerr1.report.tables import fronts_section, how_to_read, routers_table

STALE = "The sweep was compared with another evaluation than this one. Run routerr1 sweep again."
_OURS = "these policies"


class SweptTable(RouterTable):
    """The table of all routers with the swept policies as one front.

    Attributes:
        swept: routers of the swept policies, by rising weight; `reference` is the lowest weight.
    """

    swept: tuple[str, ...]
    fronts: Fronts


class Sweep(SweptTable):
    """data/sweep/sweep.json.

    Attributes:
        by_dataset: the same for each data set; empty for a single one.
        steps: training steps of each weight.
        restart: each weight starts from the policy of the weight before, not from the warm start.
        evaluation: digest of the rows of the evaluation that the sweep is compared with.
    """

    by_dataset: Mapping[str, SweptTable]
    steps: int
    restart: bool
    evaluation: str


def swept_name(cost_weight: float) -> str:
    """The router trained with this cost weight."""
    return str(RouterId("swept", f"{cost_weight:g}"))


def compare_swept(
    swept: Sequence[Row],
    others: Sequence[Row],
    params: EvaluateParams,
    *,
    steps: int,
    restart: bool,
    evaluation: str,
) -> Sweep:
    """The swept policies among the routers of an evaluation on the same questions.

    Args:
        swept: rows of routers named by `swept_name`.
        others: rows of the evaluation; its policy is left out, because it is one of the swept ones.
        steps, restart, evaluation: as in `Sweep`.
    """
    found = _compared(swept, others, params)
    by_dataset = {
        dataset: _compared(
            [row for row in swept if row.dataset == dataset],
            [row for row in others if row.dataset == dataset],
            params,
        )
        for dataset in (found.datasets if len(found.datasets) > 1 else ())
    }
    return Sweep(
        **dict(found), by_dataset=by_dataset, steps=steps, restart=restart, evaluation=evaluation
    )


def _compared(swept: Sequence[Row], others: Sequence[Row], params: EvaluateParams) -> SweptTable:
    names = sorted({row.router for row in swept}, key=lambda name: float(RouterId.parse(name).name))
    rivals = [row for row in others if row.router != POLICY]
    table = summarise([*swept, *rivals], params, reference=names[0])
    points: dict[str, Point] = {
        entry.router: (entry.cost_usd.mean, entry.em.mean) for entry in table.routers
    }
    ours = [points.pop(name) for name in names]
    for bound in BOUNDS:
        points.pop(bound, None)
    return SweptTable(**dict(table), swept=tuple(names), fronts=fronts(ours, points))


def draw_swept(found: Sweep) -> dict[str, str]:
    """Cost against quality over all questions, and for each data set, as SVG by name."""
    from routerr1.report import plots

    tables = {"sweep": found, **{f"sweep-{name}": own for name, own in found.by_dataset.items()}}
    return {name: plots.pareto(name, own.routers, own.swept) for name, own in tables.items()}


def sweep_section(found: Sweep, *, stale: bool) -> Section:
    """The swept policies, and every other router at equal quality and at equal cost."""
    start = "the policy of the weight before" if found.restart else "the warm start"
    several = found.has_several_seeds
    rows: list[list[Cell | str]] = []
    for name in found.swept:
        entry = found.router(name)
        cells = [measured(entry.em, "em"), measured(entry.cost_usd, "cost_usd")]
        cells += [measured(entry.calls, "calls")]
        cells += [Cell(shown("em", entry.per_seed["em"].sd))] * several
        cells += [
            Cell(shown(key, getattr(entry.collapse, key)))
            for key in ("top_model_share", "no_call_rate")
        ]
        rows.append([RouterId.parse(name).name, *cells])
    heads = ("Cost weight", "EM", "USD per 1,000", "Calls", *["sd"] * several)
    fronts_of = {"": found.fronts, **{name: own.fronts for name, own in found.by_dataset.items()}}
    return Section(
        "Cost weights",
        f"A policy for each weight of cost in the reward, {found.steps} training steps from {start}.",
        table_of((*heads, "Top model's share, %", "No call, %"), rows),
        (
            Plot("sweep", "Solid: what mixing these policies reaches. Dashed: what all routers reach.", large=True),
            *(Plot(f"sweep-{name}", f"Data set {name}.", large=True) for name in found.by_dataset),
        ),
        warning=STALE if stale else "",
        parts=tuple(
            fronts_section(f"{name}: at equal quality and cost" if name else "At equal quality and cost", own, _OURS, folded=bool(name))
            for name, own in fronts_of.items()
        ),
    )  # fmt: skip


def write_swept(folder: Path, rows: Sequence[Row], found: Sweep) -> None:
    """Write rows.parquet, sweep.md, the plots and, last, sweep.json."""
    write_rows(folder / "rows.parquet", rows)
    routers = Section("Routers", table=routers_table(found), parts=(how_to_read(found),))
    text = markdown.render([sweep_section(found, stale=False), routers])
    atomic_write_text(folder / "sweep.md", text)
    for name, svg in draw_swept(found).items():
        atomic_write_text(folder / f"{name}.svg", svg)
    found.write(folder / "sweep.json")
