"""Stage outputs to one page that opens offline, and the same as Markdown with its plots beside it."""

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routerr1.errors import DataError
from routerr1.evaluate.before_after import TITLE, VALIDATION, Gains, gains, gains_markdown
from routerr1.evaluate.before_after import how_to_read as read_gains
from routerr1.evaluate.controls import BOUNDS, FORCED, POLICY
from routerr1.evaluate.formatting import bounded, lines_of, number, told_p
from routerr1.evaluate.generalize import generalize_markdown, knows_best
from routerr1.evaluate.generalize import how_to_read as read_pools
from routerr1.evaluate.pairwise import between, is_clear, names_of, pairs_markdown
from routerr1.evaluate.pairwise import how_to_read as read_pairs
from routerr1.evaluate.pareto import fronts, fronts_markdown
from routerr1.evaluate.redrawn import REDRAWN
from routerr1.evaluate.rows import Row, read_rows
from routerr1.evaluate.seeds import FIGURES, SHARES, seeds_markdown
from routerr1.evaluate.table import (
    DATASET_TABLES,
    datasets_markdown,
    entry_of,
    how_to_read,
    markdown,
    several_seeds,
)
from routerr1.files import atomic_write_text, digest, read_json
from routerr1.report import plots
from routerr1.report.glossary import what_is
from routerr1.report.sweep import ALPHA, draw_swept, swept_markdown
from routerr1.report.trajectory_browser import browsable

_TEMPLATES = Path(__file__).parent / "templates"
_SHARE = "share/"  # columns of the training log with the share of calls to one model
_CURVES = (
    ("reward", "Reward", ("reward", "validation/reward")),
    ("em", "Exact match", ("em", "validation/em")),
    (
        "format_valid",
        "Trajectories that keep the format",
        ("format_valid", "validation/format_valid"),
    ),
    ("cost", "US dollars per 1000 questions", ("cost_usd", "validation/cost_usd")),
    ("entropy", "Entropy of the policy, nats per token", ("entropy",)),
    ("kl", "KL divergence from the warm start", ("kl",)),
    ("collapse", "Collapse", ("top_model_share", "no_call_rate")),
    ("call-entropy", "Entropy of calls, bits", ("call_entropy",)),
)
_SHARES = ("em", "format_valid", "collapse", "calls")  # curves of these lie in [0, 1]
_HOPS = re.compile(r"calls_(\d+)hop")  # columns with the mean calls of questions of so many facts
_TOLD_ELSEWHERE = (REDRAWN,)  # pools whose controls stand with what training taught
SIMULATION = (
    "The candidate models in this report are a simulation. The questions and their right answers are "
    "real; which candidate knows which answer, how fast and at what price, was made up by a seeded "
    "program. Nothing here says how any real model performs."
)
WORST_SEED = "Means over training seeds; in brackets the worst seed."
STALE = (
    "The policies of the sweep were compared with another evaluation than this one; sweep again."
)


@dataclass(frozen=True, slots=True)
class Sources:
    """What a report is made of.

    Attributes:
        table: of `evaluate.table.summarise`.
        rows: the rows behind it.
        seeds: of `evaluate.seeds.by_seed`; fewer than two seeds leave the section out.
        pools: of `evaluate.generalize.compare_pools`; None leaves the section out.
        log: one mapping of column to text for each line of the training log.
        training: the train stage's metrics; None leaves them out.
        sweep: of `evaluate.sweep.compare_swept`; None leaves the section out.
        stale: the sweep was compared with another evaluation than this one.
        simulated: the pool is one; the page then says so at its top.
        facts: name and value pairs for the foot of the page: profile, seeds, digests.
    """

    table: Mapping[str, Any]
    rows: Sequence[Row]
    seeds: Sequence[Mapping[str, Any]] = ()
    pools: Mapping[str, Any] | None = None
    log: Sequence[Mapping[str, str]] = ()
    training: Mapping[str, Any] | None = None
    sweep: Mapping[str, Any] | None = None
    stale: bool = False
    simulated: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)


def read_sources(data: Path, *, simulated: bool, facts: Mapping[str, str]) -> Sources:
    """The outputs of evaluate, generalize, train and sweep under `data`; the last three may be missing.

    Raises: DataError naming the file that is missing or cannot be read.
    """
    pools, log = data / "generalize" / "pools.json", data / "train" / "log.csv"
    seeds, training = data / "train" / "seeds.csv", data / "train" / "metrics.json"
    log = seeds if seeds.is_file() else log
    rows, swept = data / "eval" / "rows.parquet", data / "sweep" / "sweep.json"
    sweep = read_json(swept) if swept.is_file() else None
    return Sources(
        table=read_json(data / "eval" / "table.json"),
        rows=read_rows(rows),
        seeds=read_json(data / "eval" / "seeds.json"),
        pools=read_json(pools) if pools.is_file() else None,
        log=_read_log(log) if log.is_file() else (),
        training=read_json(training) if training.is_file() else None,
        sweep=sweep,
        stale=sweep is not None and sweep["evaluation"] != digest(rows),
        simulated=simulated,
        facts=facts,
    )


def write_report(folder: Path, sources: Sources) -> None:
    """Write index.html, report.md and a .svg for each plot; the same sources give the same bytes."""
    drawn = draw(sources)
    for name, svg in drawn.items():
        atomic_write_text(folder / f"{name}.svg", svg)
    atomic_write_text(folder / "index.html", page(sources, drawn))
    atomic_write_text(folder / "report.md", text(sources, drawn))


def draw(sources: Sources) -> dict[str, str]:
    """Every plot as SVG, by name."""
    table, reference = sources.table, sources.table["reference"]
    routers = [(e["router"], e["cost_usd"], e["em"]) for e in table["routers"]]
    drawn = {"pareto": plots.pareto("pareto", routers, [reference])}
    for dataset, own in table["by_dataset"].items():
        marked = [(e["router"], e["cost_usd"], e["em"]) for e in own["routers"]]
        drawn[f"pareto-{dataset}"] = plots.pareto(f"pareto-{dataset}", marked, [reference])
    gaps = [(e["router"], e["difference"]["em"]) for e in table["routers"] if e["difference"]]
    if gaps:
        drawn["differences"] = plots.differences("differences", f"EM: {reference} minus …", gaps)
    if sources.sweep:
        drawn |= draw_swept(sources.sweep)
    drawn |= _training_plots(sources.log, table["datasets"])
    calls = _call_shares(sources)
    if calls:
        drawn["calls"] = plots.shares("calls", "Share of calls", calls)
    if sources.pools:
        changed = [(e["pool"], e["difference"]["em"]) for e in sources.pools["pools"]]
        drawn["pools"] = plots.differences("pools", "EM: changed pool minus training pool", changed)
    return drawn


def page(sources: Sources, drawn: Mapping[str, str]) -> str:
    """The HTML page: no file and no address outside itself."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    gained = _gains(sources)
    # Everything is escaped but what this module makes itself: plots, style and script.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        table=sources.table,
        policy=entry_of(dict(sources.table), sources.table["reference"]),
        pools=sources.pools,
        seeds=sources.seeds,
        seed_figures=FIGURES,
        seed_shares=SHARES,
        number=number,
        told_p=told_p,
        reading=how_to_read(sources.table),
        several=several_seeds(sources.table),
        several_seeds=several_seeds,
        dataset_tables=DATASET_TABLES,
        routers=_glossary(sources),
        fronts=_fronts(sources.table, sources.table["reference"]),
        fronts_by_dataset=_fronts_by_dataset(sources.table),
        pairs=sources.table["pairs"],
        paired=names_of(sources.table["pairs"]),
        between=between,
        is_clear=is_clear,
        reading_pairs=read_pairs(sources.table["pairs"]),
        reading_pools=read_pools(sources.pools) if sources.pools else "",
        knows_best=knows_best,
        told_elsewhere=_TOLD_ELSEWHERE,
        gains=gained,
        gains_title=TITLE,
        validation=VALIDATION,
        reading_gains=read_gains(gained) if gained else "",
        sweep=sources.sweep,
        stale=STALE if sources.stale else "",
        simulation=SIMULATION if sources.simulated else "",
        facts=sources.facts,
        plots=drawn,
        shares=_shares,
        curves=[name for name in drawn if name.startswith("train-")],
        paretos=[name for name in drawn if name.startswith("pareto")],
        sweeps=[name for name in drawn if name.startswith("sweep")],
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(_TEMPLATES / "report.js").read_text(encoding="utf-8"),
        played=_inert_json(browsable(sources.rows)),
    )


def text(sources: Sources, drawn: Mapping[str, str]) -> str:
    """The report as Markdown; plots are linked."""
    table = sources.table
    parts = ["# Evaluation report", *([f"> {SIMULATION}"] if sources.simulated else [])]
    told = [f"- `{name}`: {line}" for name, line in _glossary(sources).items()]
    parts += ["## Routers", markdown(dict(table)).strip(), "\n".join(told)]
    titles = {"pareto": "Cost and quality", "differences": "Differences", "calls": "Calls"}
    parts += [
        f"![{titles.get(name, name)}]({name}.svg)"
        for name in drawn
        if not name.startswith(("train-", "pools", "sweep"))
    ]
    if len(table["routers"][0]["seeds"]) > 1:
        parts += ["## Training seeds", seeds_markdown(list(map(dict, sources.seeds))).strip()]
    if square := pairs_markdown(table["pairs"]).strip():
        parts += ["### Any two routers", square]
    if table["by_dataset"]:
        parts += ["## Data sets", datasets_markdown(table).strip()]
    parts += ["## Cost at equal quality, quality at equal cost"]
    parts += [fronts_markdown(_fronts(table, table["reference"])).strip()]
    for dataset, found in _fronts_by_dataset(table).items():
        parts += [f"### {dataset}", fronts_markdown(found).strip()]
    if sources.sweep:
        parts += ["## Weights of cost", _sweep_markdown(sources.sweep, stale=sources.stale)]
        parts += [f"![{name}]({name}.svg)" for name in drawn if name.startswith("sweep")]
        parts += [swept_markdown(sources.sweep).strip()]
    parts += ["## Calls", _collapse_markdown(table)]
    training = [name for name in drawn if name.startswith("train-")]
    if training:
        parts += ["## Training", *(f"![{name}]({name}.svg)" for name in training)]
    gained = _gains(sources)
    if gained:
        parts += [f"## {TITLE}", gains_markdown(gained).strip()]
    if sources.pools:
        changed = generalize_markdown(sources.pools, _TOLD_ELSEWHERE).strip()
        parts += ["## Changed pools", changed]
        parts += ["![Changed pools](pools.svg)"]
    if sources.facts:
        parts += [
            "## Made from",
            "\n".join(f"- {key}: {value}" for key, value in sources.facts.items()),
        ]
    return "\n\n".join(parts) + "\n"


def _gains(sources: Sources) -> Gains | None:
    return gains(sources.training, sources.table, sources.pools)


def _glossary(sources: Sources) -> dict[str, str]:
    """Router -> what it is, for those that are this package's own."""
    gained = _gains(sources)
    tables = [sources.table, *(gained.played.values() if gained else ())]
    names = [entry["router"] for table in tables for entry in table["routers"]]
    told = {name: what_is(name, simulated=sources.simulated) for name in names}
    return {name: line for name, line in told.items() if line}


def _fronts(table: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """The reference router's front against all others."""
    points = {e["router"]: (e["cost_usd"]["mean"], e["em"]["mean"]) for e in table["routers"]}
    mine = points.pop(reference)
    for bound in BOUNDS:
        points.pop(bound, None)
    return fronts([mine], points)


def _fronts_by_dataset(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        dataset: _fronts(own, table["reference"]) for dataset, own in table["by_dataset"].items()
    }


def _sweep_markdown(sweep: Mapping[str, Any], *, stale: bool) -> str:
    lines = [f"> {STALE}", ""] if stale else []
    way = "from the weight before" if sweep["restart"] else "from the warm start"
    several = several_seeds(sweep)
    rows = []
    for name in sweep["swept"]:
        entry = entry_of(dict(sweep), name)
        cells = [name.removeprefix(ALPHA), bounded(entry["em"], 3)]
        cells += [number(entry["per_seed"]["em"]["sd"], 3)] * several
        cells += [bounded(entry["cost_usd"], 4, 1000), bounded(entry["calls"], 2)]
        rows.append(cells)
    heads = ["weight of cost", "EM", *["sd"] * several, "USD per 1000", "calls"]
    lines += [f"{sweep['steps']} training steps for each weight, {way}.", ""]
    return "\n".join([*lines, *lines_of(heads, rows)])


def _collapse_markdown(table: Mapping[str, Any]) -> str:
    several = several_seeds(table)
    told = [f"{WORST_SEED}\n"] if several else []
    heads = ["router", "data set", "top model share", "entropy of calls (bits)", "no-call rate"]
    heads += ["calls by hops", "calls to the best model", "calls to each model"]
    rows = []
    for entry in table["routers"]:
        for dataset, found in entry["collapse_by_dataset"].items():
            hops = ", ".join(f"{hop}: {calls:.2f}" for hop, calls in found["calls_by_hops"].items())
            worst = found["worst"] if several else {}
            figures = [
                number(found[key], 2) + (f" ({worst[key]:.2f})" if key in worst else "")
                for key in ("top_model_share", "call_entropy", "no_call_rate")
            ]
            best = "unknown" if (share := found["best_model_share"]) is None else f"{share:.2f}"
            best += f" ({worst['best_model_share']:.2f})" if "best_model_share" in worst else ""
            rows.append([entry["router"], dataset, *figures, hops, best, _shares(found)])
    return "\n".join([*told, *lines_of(heads, rows)])


def _shares(found: Mapping[str, Any]) -> str:
    """Who gets which share of the calls, the largest first."""
    ranked = sorted(found["call_share"].items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {share:.0%}" for name, share in ranked if share) or "none"


def _call_shares(sources: Sources) -> dict[str, dict[str, float]]:
    """For each router whose calls are no foregone conclusion, and of the policy for each data set."""
    shares = {}
    for entry in sources.table["routers"]:
        if entry["collapse"]["calls"] and not entry["router"].startswith(FORCED):
            shares[entry["router"]] = entry["collapse"]["call_share"]
            if entry["router"] == POLICY and len(entry["collapse_by_dataset"]) > 1:
                for dataset, found in entry["collapse_by_dataset"].items():
                    shares[f"{POLICY}, {dataset}"] = found["call_share"]
    return shares


def _read_log(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None


def _training_plots(log: Sequence[Mapping[str, str]], datasets: Sequence[str]) -> dict[str, str]:
    """One plot for each figure the log has; those of a collapse for each data set too."""
    found: dict[
        str, tuple[str, dict[str, str]]
    ] = {}  # plot -> title, label of a line -> its column
    for name, title, columns in _CURVES:
        found[name] = (title, {column: column for column in columns})
    logged = list(log[0] if log else ())
    found |= _routing_plots(logged, "", "")
    # The log has columns of its own for each data set where there are several.
    for dataset in datasets:
        mine = {name: f"{dataset}/{name}" for name in ("top_model_share", "no_call_rate")}
        found[f"collapse-{dataset}"] = (f"Collapse, {dataset}", mine)
        found |= _routing_plots(logged, f"{dataset}/", dataset)
    entropies = {dataset: f"{dataset}/call_entropy" for dataset in datasets}
    found["call-entropy-by-set"] = ("Entropy of calls by data set, bits", entropies)
    drawn = {}
    for name, (title, lines) in found.items():
        seeds = {label: _lines(log, column) for label, column in lines.items()}
        if any(seeds.values()):
            shown = {label: line for label, line in seeds.items() if line}
            share = name.startswith(_SHARES)
            drawn[f"train-{name}"] = plots.curves(f"train-{name}", title, shown, share=share)
    return drawn


def _routing_plots(
    columns: Sequence[str], prefix: str, dataset: str
) -> dict[str, tuple[str, dict[str, str]]]:
    """Calls by hop count, and each model's share, from the columns that begin with `prefix`."""
    mine = {c.removeprefix(prefix): c for c in columns if c.startswith(prefix)}
    hops = {f"{m[1]} hop": c for name, c in mine.items() if (m := _HOPS.fullmatch(name))}
    calls = {n.removeprefix(_SHARE): c for n, c in mine.items() if n.startswith(_SHARE)}
    of, end = (f", {dataset}", f"-{dataset}") if dataset else ("", "")
    return {
        f"hops{end}": (f"Calls by hop count{of}", hops),
        f"calls{end}": (f"Share of calls{of}", calls),
    }


def _lines(log: Sequence[Mapping[str, str]], column: str) -> list[dict[float, float]]:
    """Step -> value for each training seed that has any."""
    by_seed: dict[str, dict[float, float]] = {}
    for place, row in enumerate(log):
        value, step = _number(row.get(column)), _number(row.get("step"))
        if math.isfinite(value):
            line = by_seed.setdefault(row.get("seed", ""), {})
            # Dollars for a question are too small to be read.
            shown = 1000 * value if column.endswith("cost_usd") else value
            line[step if math.isfinite(step) else float(place)] = shown
    return list(by_seed.values())


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan


def _inert_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in: it holds what pool models said."""
    dumped = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return dumped.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
