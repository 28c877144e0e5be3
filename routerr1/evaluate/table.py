"""Rows to the table everybody reads: each router's means with intervals, and how it differs from the policy."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from routerr1.config import EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.collapse import collapse, collapse_by_dataset
from routerr1.evaluate.controls import BEST_SINGLE, NO_CALL, ORACLE, POLICY, RANDOM
from routerr1.evaluate.formatting import bounded, lines_of, number, told_p
from routerr1.evaluate.grid import Grid, grids_of
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import (
    AMOUNT,
    SHARE,
    Estimate,
    Range,
    Sample,
    average,
    difference_of,
    holm,
    interval_of,
    least_p,
    per_seed,
    spread,
    subtract,
)

MEASURES = (
    "em",
    "f1",
    "cost_usd",
    "calls",
    "latency_s",
    "policy_tokens",
    "prompt_tokens",
    "completion_tokens",
    "format_valid",
)
RANGES: Mapping[str, Range] = {
    measure: SHARE if measure in ("em", "f1", "format_valid") else AMOUNT for measure in MEASURES
}
_COMPARED = ("em", "f1", "cost_usd", "calls")
_BY_DATASET = ("em", "f1", "cost_usd")
_ORDER = (POLICY, ORACLE, BEST_SINGLE, RANDOM, NO_CALL)
_DIGITS = 9  # significant; beyond them a sum depends on the machine

Measured = Mapping[str, Mapping[str, Estimate]]
"""Router -> measure -> what was found, all on the same draws."""


def summarise(
    rows: Sequence[Row], params: EvaluateParams, reference: str = POLICY
) -> dict[str, Any]:
    """The table of one pool, as JSON values.

    Each measure is a mean over questions and training seeds; its interval tells how far it may be from
    that of other questions and, where there are several seeds, of other seeds. `per_seed` tells how far the
    seeds lie apart. `difference` is `reference` minus that router on the same questions and seeds, its
    p-values Holm-corrected over all routers, one measure at a time; `resolvable` is at the level of that
    correction's first step.

    Raises: DataError without rows, or if routers were not played on the same questions.
    """
    grids = grids_of(rows)
    names = order_routers(set(grids))
    measured = measure(grids, names, MEASURES, params.bootstrap, params.seed)
    others = [name for name in names if name != reference]
    entries = []
    for name in names:
        base = measured.get(reference) if name != reference else None
        entries.append(_entry(grids[name], measured[name], base, len(others), params))
    for what in _COMPARED:
        correct([e["difference"][what] for e in entries if e["difference"]], params.bootstrap)
    first = grids[names[0]]
    return {
        "confidence": params.confidence,
        "resamples": params.bootstrap,
        "reference": reference,
        "comparisons": len(others) if reference in names else 0,
        "n": len(first.questions),
        "groups": len(set(first.groups)),
        "datasets": first.datasets,
        "routers": [{"router": name, **entry} for name, entry in zip(names, entries, strict=True)],
    }


def by_dataset(rows: Sequence[Row], params: EvaluateParams) -> dict[str, Any]:
    """Quality and cost of each router on each data set, as the paper's Table 1; JSON values.

    Returns: `by_dataset`, with n, groups and routers of each, and `macro`, the routers' means over data
        sets, each weighing the same however many questions it has. Both are empty for a single data set.
    Raises: DataError as `summarise`.
    """
    grids = grids_of(rows)
    names = order_routers(set(grids))
    datasets = grids[names[0]].datasets
    if len(datasets) == 1:
        return {"by_dataset": {}, "macro": []}
    found, parts = {}, []
    for place, dataset in enumerate(datasets, start=1):
        own = {name: grid.of(dataset) for name, grid in grids.items()}
        # Each set draws its groups on its own, or their chances would be alike in the macro-average.
        parts.append(measure(own, names, _BY_DATASET, params.bootstrap, params.seed + place))
        first = own[names[0]]
        found[dataset] = {
            "n": len(first.questions),
            "groups": len(set(first.groups)),
            "routers": [{"router": name, **_figures(parts[-1][name], params)} for name in names],
        }
    macro = [
        {
            "router": name,
            **_figures({what: average([part[name][what] for part in parts]) for what in _BY_DATASET}, params),
        }
        for name in names
    ]  # fmt: skip
    return {"by_dataset": found, "macro": macro}


def order_routers(names: set[str]) -> list[str]:
    """The policy and its bounds first, then the forced models and baselines by name."""
    first = [name for name in _ORDER if name in names]
    return first + sorted(names - set(first))


def measure(
    grids: Mapping[str, Grid],
    names: Sequence[str],
    measures: Sequence[str],
    resamples: int,
    seed: int,
) -> Measured:
    """Every measure of every router, on one sample of their questions."""
    sample = Sample(grids[names[0]].groups, resamples=resamples, seed=seed)
    found = iter(sample.means([grids[name].values(what) for name in names for what in measures]))
    return {name: {what: next(found) for what in measures} for name in names}


def range_of_difference(what: str) -> Range:
    """Between which values two figures of one measure can differ."""
    least, most = RANGES[what]
    return (least - most, most - least)


def compare(
    a: Estimate, b: Estimate, what: str, confidence: float, comparisons: int
) -> dict[str, Any]:
    """`a` minus `b` in one measure, as JSON values; one of so many comparisons."""
    found = difference_of(
        subtract(a, b), confidence, comparisons=comparisons, within=range_of_difference(what)
    )
    return dict(shorten(asdict(found), drop=("n", "groups")))


def correct(differences: Sequence[dict[str, Any]], resamples: int) -> None:
    """Add `p_holm`, corrected over all of them, and whether it is only a bound, the draws being too few."""
    known = [gap for gap in differences if gap["p"] is not None]
    for gap in differences:
        gap["p_holm"] = None
        gap["p_is_bound"] = gap["p"] is not None and gap["p"] <= 1.000001 * least_p(resamples)
    for gap, corrected in zip(known, holm([gap["p"] for gap in known]), strict=True):
        gap["p_holm"] = shorten(corrected)


def _entry(
    grid: Grid,
    measured: Mapping[str, Estimate],
    reference: Mapping[str, Estimate] | None,
    comparisons: int,
    params: EvaluateParams,
) -> dict[str, Any]:
    called = sorted({name for row in grid.rows for name in row.called})
    return {
        "seeds": grid.seeds,
        **_figures(measured, params),
        "difference": {
            what: compare(reference[what], measured[what], what, params.confidence, comparisons)
            for what in _COMPARED
        }
        if reference
        else {},
        "collapse": shorten(collapse(grid.rows, called)),
        "collapse_by_dataset": shorten(collapse_by_dataset(grid.rows, called)),
    }


def _figures(measured: Mapping[str, Estimate], params: EvaluateParams) -> dict[str, Any]:
    """Each measure with its interval, and `per_seed`, how far the training seeds lie apart in it."""
    found: dict[str, Any] = {"per_seed": {}}
    for what, estimate in measured.items():
        told = interval_of(estimate, params.confidence, RANGES[what])
        found[what] = shorten(asdict(told), drop=("n", "groups"))
        found["per_seed"][what] = shorten(asdict(spread(per_seed(estimate))))
    return found


def shorten(value: Any, drop: Sequence[str] = ()) -> Any:
    """The same values with `_DIGITS` significant digits, and without the keys in `drop`."""
    if isinstance(value, dict):
        return {key: shorten(inner) for key, inner in value.items() if key not in drop}
    if isinstance(value, list):
        return [shorten(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    return value


def entry_of(table: dict[str, Any], router: str) -> dict[str, Any]:
    """One router's line of `summarise`.

    Raises: DataError if the table has no such router.
    """
    for entry in table["routers"]:
        if entry["router"] == router:
            return dict(entry)
    known = ", ".join(entry["router"] for entry in table["routers"])
    raise DataError(f"the table has no router {router!r} (it has: {known})")


def metrics(table: dict[str, Any]) -> dict[str, float]:
    """The flat figures for `dvc metrics` and MLflow: names are stable, values finite.

    Of what collapses, the mean over training seeds, and as `worst_*` the worst seed's.
    """
    policy = entry_of(table, POLICY)
    found: dict[str, float | None] = {"n": float(table["n"])}
    for what in MEASURES:
        found[what] = policy[what]["mean"]
    for bound in ("low", "high"):
        found[f"em_{bound}"] = policy["em"][bound]
        found[f"cost_usd_{bound}"] = policy["cost_usd"][bound]
    found["em_seed_sd"] = policy["per_seed"]["em"]["sd"]
    for figure in ("top_model_share", "no_call_rate", "call_entropy", "best_model_share"):
        found[figure] = policy["collapse"][figure]
        found[f"worst_{figure}"] = policy["collapse"]["worst"].get(figure)
    for entry in table["routers"]:
        if entry["router"] in _ORDER and entry["router"] != POLICY:
            name, gap = entry["router"], entry["difference"]["em"]
            found[f"{name}_em"] = entry["em"]["mean"]
            found[f"{name}_cost_usd"] = entry["cost_usd"]["mean"]
            found[f"em_over_{name}"] = gap["mean"]
            found[f"em_over_{name}_low"], found[f"em_over_{name}_high"] = gap["low"], gap["high"]
    return {name: value for name, value in found.items() if value is not None}


def how_to_read(table: Mapping[str, Any]) -> str:
    """What the figures of `summarise` mean: the line above every table of them."""
    confidence, compared = table["confidence"], table["comparisons"]
    told = (
        f"n = {table['n']} questions in {table['groups']} independent groups. "
        f"{round(100 * confidence)} % intervals: bootstrap over groups ({table['resamples']} draws)"
    )
    if several_seeds(table):
        told += " and Student's t over training seeds (Hillis 2007); sd: of EM over seeds"
    told += "; the rule of three over groups where all are right or none is"
    if compared:
        told += (
            f". Difference: {table['reference']} minus router on the same questions"
            f"{' and seeds' if several_seeds(table) else ''}; p is Holm-corrected over {compared} "
            "comparisons, and ≤ where so few draws can show no smaller one; “resolves” is the smallest true "
            "difference that this comparison would find in four of five repetitions at the corrected "
            f"level, {1 - confidence:.2g} / {compared} (– where there is none)"
        )
    return f"{told}. Latency is the calls' own; the time of the policy itself is not in it."


def several_seeds(table: Mapping[str, Any]) -> bool:
    """Has any router of the table more than one training seed?"""
    return any(entry["per_seed"]["em"]["seeds"] > 1 for entry in table["routers"])


_COLUMNS = (
    ("f1", "F1", 3, 1), ("cost_usd", "USD per 1000", 4, 1000), ("calls", "calls", 2, 1),
    ("latency_s", "latency of calls, s", 2, 1), ("policy_tokens", "policy tokens", 1, 1),
    ("prompt_tokens", "prompt tokens", 1, 1), ("completion_tokens", "reply tokens", 1, 1),
)  # fmt: skip
"""Of the table for people, after EM: measure, heading, digits, scale."""


DATASET_TABLES = (
    ("em", "Exact match by data set", 3, 1),
    ("f1", "Token F1 by data set", 3, 1),
    ("cost_usd", "US dollars per 1000 questions by data set", 4, 1000),
)
"""Measure, title, digits, scale."""


def markdown(table: dict[str, Any]) -> str:
    """The table for people: intervals in brackets, dollars per thousand questions."""
    seeds = several_seeds(table)
    heads = ["router", "EM", *["sd"] * seeds, *(head for _, head, _, _ in _COLUMNS)]
    heads += ["difference in EM", "p", "resolves"]
    rows = []
    for entry in table["routers"]:
        cells = [entry["router"], bounded(entry["em"], 3)]
        cells += [number(entry["per_seed"]["em"]["sd"], 3)] * seeds
        cells += [bounded(entry[what], digits, scale) for what, _, digits, scale in _COLUMNS]
        rows.append([*cells, *_compared(entry["difference"].get("em"))])
    return "\n".join([how_to_read(table), "", *lines_of(heads, rows)]) + "\n"


def _compared(gap: Mapping[str, Any] | None) -> list[str]:
    if gap is None:
        return ["reference", "", ""]
    return [bounded(gap, 3, signed=True), told_p(gap), number(gap["resolvable"], 3)]


def datasets_markdown(table: Mapping[str, Any]) -> str:
    """Routers against data sets, as the paper's Table 1, for quality and for cost; empty for one data set."""
    parts = []
    for what, title, digits, scale in DATASET_TABLES if table["by_dataset"] else ():
        seeds = several_seeds({"routers": table["macro"]})
        sizes = [f"{name} (n = {own['n']})" for name, own in table["by_dataset"].items()]
        rows = []
        for place, macro in enumerate(table["macro"]):
            own = [each["routers"][place][what] for each in table["by_dataset"].values()]
            cells = [bounded(found, digits, scale) for found in (*own, macro[what])]
            cells += [number(macro["per_seed"][what]["sd"], digits, scale)] * seeds
            rows.append([macro["router"], *cells])
        lines = lines_of(["router", *sizes, "macro-average", *["sd"] * seeds], rows)
        parts.append(f"{title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)
