"""The report: outputs of the stages as one list of sections, written as HTML and as Markdown."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from routerr1.config import GateParams
from routerr1.errors import DataError
from routerr1.evaluate.controls import BOUNDS
from routerr1.evaluate.pareto import Fronts, fronts
from routerr1.evaluate.redrawn import REDRAWN
from routerr1.evaluate.results import EvaluationTable, Generalization, Quality, SeedTable
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.rows import Row, read_rows
from routerr1.files import atomic_write_text, digest, read_json
from routerr1.metrics import metric
from routerr1.report import html, markdown, plots
from routerr1.report.advice import advice_section
from routerr1.report.glossary import label, routers_section
from routerr1.report.sections import Plot, Section
from routerr1.report.summary import (
    failures_section,
    summary_section,
    tasks_section,
    topics_section,
)
from routerr1.report.sweep import Sweep, draw_swept, sweep_section
from routerr1.report.tables import (
    calls_section,
    datasets_section,
    fronts_section,
    how_to_read,
    pairs_section,
    pools_section,
    routers_table,
    seeds_section,
    usage_section,
)
from routerr1.report.training_gain import SeedTraining, read_training, training_section
from routerr1.report.trajectory_browser import browsable

_SHARE = "share/"  # columns of the training log with the share of calls to one model
_CURVES = (
    ("reward", ("reward", "validation/reward")),
    ("em", ("em", "validation/em")),
    ("format_valid", ("format_valid", "validation/format_valid")),
    ("cost_usd", ("cost_usd", "validation/cost_usd")),
    ("entropy", ("entropy",)),
    ("kl", ("kl",)),
    ("top_model_share", ("top_model_share", "no_call_rate")),
    ("call_entropy", ("call_entropy",)),
)
"""Metric that gives the title, and the columns of the log; the plot has the metric's name."""
_HOPS = re.compile(r"calls_(\d+)hop")
SIMULATION = (
    "The candidate models in this report are a simulation. The questions and their reference answers are "
    "real. A seeded program decides which candidate knows which answer, how fast and at what price. Nothing "
    "here says how any real model performs."
)
NO_POLICY = (
    "No policy was trained. A router chooses a model, the model gets the whole question, and its reply is the "
    "answer. A reply is right if it contains a reference answer; EM is the share of such replies."
)
ONE_SEED = "One training seed: the intervals cover other questions, not another training run of the same policy."


@dataclass(frozen=True, slots=True)
class Sources:
    """What a report is made of.

    Attributes:
        rows: the rows behind `table`.
        seeds: with fewer than two seeds the report has no section on them.
        pools: None leaves the section out.
        log: one mapping of column to text for each line of the training log.
        training: training seed -> its run.
        sweep: None leaves the section out.
        stale: the sweep was compared with another evaluation than this one.
        simulated: the pool is simulated; the report says so at its top.
        facts: name and value pairs for the foot of the page: preset, seeds, digests.
        gate: limits by which the report advises; None leaves the advice out.
        validation: questions of the validation split; None if they are not known.
    """

    table: EvaluationTable
    rows: Sequence[Row]
    seeds: SeedTable
    pools: Generalization | None = None
    log: Sequence[Mapping[str, str]] = ()
    training: Mapping[int, SeedTraining] = field(default_factory=dict)
    sweep: Sweep | None = None
    stale: bool = False
    simulated: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    gate: GateParams | None = None
    validation: int | None = None


def read_sources(
    data: Path, *, simulated: bool, facts: Mapping[str, str], gate: GateParams | None = None
) -> Sources:
    """The outputs of evaluate, generalize, train and sweep under `data`; the last three may be missing.

    Raises: DataError naming the file that is missing or cannot be read.
    """
    pools, log = data / "generalize" / "pools.json", data / "train" / "log.csv"
    seeds, training = data / "train" / "seeds.csv", data / "train" / "results.json"
    log = seeds if seeds.is_file() else log
    rows, sweep = data / "eval" / "rows.parquet", _read_sweep(data / "sweep" / "sweep.json")
    table = EvaluationTable.read(data / "eval" / "table.json")
    played = read_rows(rows)
    rules = ", ".join(sorted({row.matching for row in played}))
    return Sources(
        table=table,
        rows=played,
        seeds=SeedTable.read(data / "eval" / "seeds.json"),
        pools=Generalization.read(pools) if pools.is_file() else None,
        log=_read_log(log) if log.is_file() else (),
        training=read_training(training) if training.is_file() else {},
        sweep=sweep,
        stale=sweep is not None and sweep.evaluation != digest(rows),
        simulated=simulated,
        facts={**facts, "answers compared by": rules},
        gate=gate,
        validation=validation_questions(data),
    )


def validation_questions(data: Path) -> int | None:
    """How many questions the dataset stage put into validation; None before it ran."""
    path = data / "questions" / "metrics.json"
    if not path.is_file():
        return None
    return sum(int(splits.get("validation", 0)) for splits in read_json(path)["rows"].values())


def _read_sweep(path: Path) -> Sweep | None:
    """The sweep; None without a file, or if the file holds `null`, as it does before the first sweep."""
    return Sweep.read(path) if path.is_file() and read_json(path) is not None else None


def write_report(folder: Path, sources: Sources) -> None:
    """Write index.html, report.md and an .svg for each plot; the same sources give the same bytes."""
    drawn = draw(sources)
    sections = sections_of(sources, drawn)
    notice = " ".join(
        [SIMULATION] * sources.simulated + [NO_POLICY] * (not sources.table.has_policy)
    )
    page = html.render(
        sections,
        drawn,
        browsable(sources.rows),
        notice=notice,
        simulated=sources.simulated,
        policy=sources.table.has_policy,
        facts=sources.facts,
    )
    for name, svg in drawn.items():
        atomic_write_text(folder / f"{name}.svg", svg)
    atomic_write_text(folder / "index.html", page)
    head = "# Evaluation report\n\n" + (f"> {notice}\n\n" if notice else "")
    made_from = [f"{name}: {value}" for name, value in sources.facts.items()]
    foot = [Section("Made from", points=tuple(made_from))] if made_from else []
    atomic_write_text(folder / "report.md", head + markdown.render([*sections, *foot]))


def sections_of(sources: Sources, drawn: Mapping[str, str]) -> list[Section]:
    """The report from the decision maker's summary to the perturbed pools.

    Args:
        drawn: the plots that there are, by name.
    """
    table = sources.table
    found = [
        advice_section(table, sources.rows, sources.gate, validation=sources.validation)
        if sources.gate
        else None,
        summary_section(table, sources.rows),
        topics_section(table, sources.rows),
        tasks_section(table, sources.rows),
        failures_section(sources.rows, table.reference),
        _routers_section(sources, drawn),
        datasets_section(table),
        _fronts_section(table, drawn),
        sweep_section(sources.sweep, stale=sources.stale) if sources.sweep else None,
        calls_section(table, _plots(drawn, "calls")),
        _curves_section(drawn),
        training_section(sources.training, table, sources.pools),
        # Another section shows the controls on redrawn pools.
        pools_section(sources.pools, _plots(drawn, "pools"), (REDRAWN,)) if sources.pools else None,
    ]
    return [section for section in found if section is not None]


def _routers_section(sources: Sources, drawn: Mapping[str, str]) -> Section:
    table = sources.table
    caption = f"EM of {label(table.reference)} minus that of each router. Green: clearly better. Red: clearly worse."
    pools = sources.pools.pools if sources.pools else ()
    names = [entry.router for entry in table.routers]
    names += [entry.router for pool in pools if pool.table for entry in pool.table.routers]
    parts = [
        usage_section(table),
        pairs_section(table.pairs),
        routers_section(names, simulated=sources.simulated, policy=not table.takes_whole_replies),
        how_to_read(table),
        seeds_section(sources.seeds) if len(sources.seeds.seeds) > 2 else None,
    ]
    return Section(
        "Routers",
        "The best router first. All of them answer the same questions."
        + ("" if table.has_several_seeds else f" {ONE_SEED}"),
        routers_table(table),
        _plots(drawn, "differences", caption),
        parts=tuple(part for part in parts if part is not None),
    )


def _fronts_section(table: EvaluationTable, drawn: Mapping[str, str]) -> Section:
    ours = label(table.reference)
    mark = "the policy" if table.has_policy else ours
    caption = f"Dashed: what mixing routers at random reaches. Diamond: {mark}."
    if len(table.routers) > plots.MANY:
        caption += " Pale points: the table names them."
    paretos = [
        Plot(name, caption if name == "pareto" else f"Data set {name.removeprefix('pareto-')}.", large=True)
        for name in drawn
        if name.startswith("pareto")
    ]  # fmt: skip
    parts = [
        fronts_section("At equal quality and cost", _fronts(table.routers, table.reference), ours)
    ]
    parts += [
        fronts_section(
            f"{name}: at equal quality and cost", _fronts(own.routers, table.reference), ours, folded=True
        )
        for name, own in table.by_dataset.items()
    ]  # fmt: skip
    return Section("Cost and quality", plots=tuple(paretos), parts=tuple(parts))


def _curves_section(drawn: Mapping[str, str]) -> Section | None:
    curves = tuple(Plot(name) for name in drawn if name.startswith("train-"))
    return Section("Training", plots=curves) if curves else None


def _plots(drawn: Mapping[str, str], name: str, caption: str = "") -> tuple[Plot, ...]:
    return (Plot(name, caption),) if name in drawn else ()


def _fronts(entries: Sequence[Quality], reference: str) -> Fronts:
    """The reference router's front against all others, the bounds left out."""
    points = {entry.router: (entry.cost_usd.mean, entry.em.mean) for entry in entries}
    mine = points.pop(reference)
    for bound in BOUNDS:
        points.pop(bound, None)
    return fronts([mine], points)


def draw(sources: Sources) -> dict[str, str]:
    """Every plot as SVG, by name."""
    table, reference = sources.table, sources.table.reference
    drawn = {"pareto": plots.pareto("pareto", table.routers, [reference])}
    for dataset, own in table.by_dataset.items():
        drawn[f"pareto-{dataset}"] = plots.pareto(f"pareto-{dataset}", own.routers, [reference])
    gaps = [(label(e.router), e.difference["em"]) for e in table.routers if e.difference]
    if gaps:
        gaps.sort(key=lambda item: -item[1].mean)
        title = f"EM: {label(reference)} minus …"
        drawn["differences"] = plots.differences("differences", title, gaps)
    if sources.sweep:
        drawn |= draw_swept(sources.sweep)
    drawn |= _training_plots(sources.log, table.datasets)
    calls = _call_shares(table)
    if calls:
        drawn["calls"] = plots.shares("calls", "Share of calls", calls)
    if sources.pools:
        changed = [(pool.pool, pool.difference["em"]) for pool in sources.pools.pools]
        drawn["pools"] = plots.differences("pools", "EM: perturbed minus training pool", changed)
    return drawn


def _call_shares(table: EvaluationTable) -> dict[str, Mapping[str, float]]:
    """Shares of the routers that choose between models, and of the policy for each data set."""
    shares: dict[str, Mapping[str, float]] = {}
    for entry in table.routers:
        if entry.collapse.calls and RouterId.parse(entry.router).kind != "fixed":
            name = label(entry.router)
            shares[name] = entry.collapse.call_share
            if entry.router == table.reference and len(entry.collapse_by_dataset) > 1:
                for dataset, found in entry.collapse_by_dataset.items():
                    shares[f"{name}, {dataset}"] = found.call_share
    return shares


def _read_log(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None


@dataclass(frozen=True, slots=True)
class _Curve:
    """A plot of the training log: title, label of a line -> its column, whether the axis is [0, 1]."""

    title: str
    columns: Mapping[str, str]
    share: bool = False


def _training_plots(log: Sequence[Mapping[str, str]], datasets: Sequence[str]) -> dict[str, str]:
    """One plot for each metric of the log; those of routing for each data set too."""
    logged = list(log[0] if log else ())
    found = {
        name: _Curve(
            metric(name).label.removesuffix(", %"), dict(zip(columns, columns, strict=True)),
            share=(metric(name).low, metric(name).high) == (0, 1),
        )
        for name, columns in _CURVES
    }  # fmt: skip
    found |= _routing_curves(logged, "", "")
    # With several data sets, the log has columns of its own for each of them.
    for dataset in datasets:
        mine = {name: f"{dataset}/{name}" for name in ("top_model_share", "no_call_rate")}
        found[f"top_model_share-{dataset}"] = _Curve(
            f"Top model's share, {dataset}", mine, share=True
        )
        found |= _routing_curves(logged, f"{dataset}/", dataset)
    entropies = {dataset: f"{dataset}/call_entropy" for dataset in datasets}
    found["call_entropy-by-set"] = _Curve("Call entropy by data set, bits", entropies)
    drawn = {}
    for name, curve in found.items():
        seeds = {text: _lines(log, column) for text, column in curve.columns.items()}
        shown = {text: line for text, line in seeds.items() if line}
        if shown:
            drawn[f"train-{name}"] = plots.curves(
                f"train-{name}", curve.title, shown, share=curve.share
            )
    return drawn


def _routing_curves(columns: Sequence[str], prefix: str, dataset: str) -> dict[str, _Curve]:
    """Calls by hop count, and each model's share, from the columns that begin with `prefix`."""
    mine = {c.removeprefix(prefix): c for c in columns if c.startswith(prefix)}
    hops = {f"{m[1]} hop": c for name, c in mine.items() if (m := _HOPS.fullmatch(name))}
    calls = {n.removeprefix(_SHARE): c for n, c in mine.items() if n.startswith(_SHARE)}
    of, end = (f", {dataset}", f"-{dataset}") if dataset else ("", "")
    return {
        f"hops{end}": _Curve(f"Calls by hop count{of}", hops),
        f"calls{end}": _Curve(f"Share of calls{of}", calls, share=True),
    }


def _lines(log: Sequence[Mapping[str, str]], column: str) -> list[dict[float, float]]:
    """Step -> value for each training seed with any value."""
    by_seed: dict[str, dict[float, float]] = {}
    for place, row in enumerate(log):
        value, step = _number(row.get(column)), _number(row.get("step"))
        if math.isfinite(value):
            line = by_seed.setdefault(row.get("seed", ""), {})
            shown = 1000 * value if column.endswith("cost_usd") else value
            line[step if math.isfinite(step) else float(place)] = shown
    return list(by_seed.values())


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
