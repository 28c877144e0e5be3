"""Rows to the table everybody reads: each router's means with intervals, and how it differs from the policy."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routerr1.config import EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.collapse import collapse, collapse_by_dataset
from routerr1.evaluate.controls import BEST_SINGLE, NO_CALL, ORACLE, POLICY, RANDOM
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import holm, interval, paired_difference, spread

MEASURES = (
    "em",
    "f1",
    "cost_usd",
    "calls",
    "latency_s",
    "policy_tokens",
    "completion_tokens",
    "formed",
)
_COMPARED = ("em", "f1", "cost_usd", "calls")
_ORDER = (POLICY, ORACLE, BEST_SINGLE, RANDOM, NO_CALL)
_DIGITS = 9  # significant; beyond them a sum depends on the machine


def summarise(
    rows: Sequence[Row], params: EvaluateParams, reference: str = POLICY
) -> dict[str, Any]:
    """The table of one pool, as JSON values.

    Each measure is averaged over training seeds per question, then its interval is over question
    groups; `per_seed` tells how far the seeds lie apart. `difference` is `reference` minus that router
    on the same questions, its p-values Holm-corrected over all routers, one measure at a time.

    Raises: DataError without rows, or if routers were not played on the same questions.
    """
    if not rows:
        raise DataError("no evaluation rows to summarise")
    names = order_routers({row.router for row in rows})
    grids = {name: _Grid([row for row in rows if row.router == name]) for name in names}
    questions = {name: grid.questions for name, grid in grids.items()}
    if len({tuple(asked) for asked in questions.values()}) > 1:
        sizes = ", ".join(f"{name} {len(asked)}" for name, asked in questions.items())
        raise DataError(f"routers were not played on the same questions ({sizes})")
    base = grids.get(reference)
    entries = [
        _entry(name, grids[name], base if name != reference else None, params) for name in names
    ]
    _correct(entries)
    return {
        "confidence": params.confidence,
        "resamples": params.bootstrap,
        "reference": reference,
        "n": len(grids[names[0]].questions),
        "groups": len(set(grids[names[0]].groups)),
        "datasets": sorted({row.dataset for row in rows}),
        "routers": entries,
    }


def order_routers(names: set[str]) -> list[str]:
    """The policy and its bounds first, then the forced models and baselines by name."""
    first = [name for name in _ORDER if name in names]
    return first + sorted(names - set(first))


class _Grid:
    """One router's rows as arrays: seeds x questions, questions in sorted order."""

    def __init__(self, rows: Sequence[Row]) -> None:
        by_key = {(row.seed, row.dataset, row.question_id): row for row in rows}
        self.rows = list(rows)
        self.seeds = sorted({row.seed for row in rows})
        self.questions = sorted({(row.dataset, row.question_id) for row in rows})
        try:
            self.cells = [[by_key[(seed, *q)] for q in self.questions] for seed in self.seeds]
        except KeyError as missing:
            raise DataError(f"router {rows[0].router}: no row for {missing}") from None
        self.groups = [row.group for row in self.cells[0]]

    def values(self, measure: str) -> NDArray[np.float64]:
        """Seeds x questions."""
        return np.array([[float(getattr(row, measure)) for row in line] for line in self.cells])


def _entry(
    name: str, grid: _Grid, reference: _Grid | None, params: EvaluateParams
) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "resamples": params.bootstrap, "confidence": params.confidence, "seed": params.seed,
    }  # fmt: skip
    entry: dict[str, Any] = {"router": name, "seeds": grid.seeds, "per_seed": {}, "difference": {}}
    for measure in MEASURES:
        values = grid.values(measure)
        found = interval(values.mean(axis=0), grid.groups, **sampling)
        entry[measure] = shorten(asdict(found), drop=("n", "groups"))
        entry["per_seed"][measure] = shorten(asdict(spread(values.mean(axis=1).tolist())))
        if reference is not None and measure in _COMPARED:
            wanted = reference.values(measure).mean(axis=0)
            gap = paired_difference(wanted, values.mean(axis=0), grid.groups, **sampling)
            entry["difference"][measure] = shorten(asdict(gap), drop=("n", "groups"))
    called = sorted({name for row in grid.rows for name in row.called})
    entry["collapse"] = shorten(collapse(grid.rows, called))
    entry["collapse_by_dataset"] = shorten(collapse_by_dataset(grid.rows, called))
    return entry


def _correct(entries: Sequence[dict[str, Any]]) -> None:
    for measure in _COMPARED:
        compared = [entry["difference"][measure] for entry in entries if entry["difference"]]
        for difference, corrected in zip(
            compared, holm([difference["p"] for difference in compared]), strict=True
        ):
            difference["p_holm"] = corrected


def shorten(value: Any, drop: Sequence[str] = ()) -> Any:
    """The same values with `_DIGITS` significant digits, and without the keys in `drop`."""
    if isinstance(value, dict):
        return {key: shorten(inner) for key, inner in value.items() if key not in drop}
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
    """The flat figures for `dvc metrics` and MLflow: names are stable, values finite."""
    policy = entry_of(table, POLICY)
    found: dict[str, float] = {"n": float(table["n"])}
    for measure in MEASURES:
        found[measure] = policy[measure]["mean"]
    for bound in ("low", "high"):
        found[f"em_{bound}"] = policy["em"][bound]
        found[f"cost_usd_{bound}"] = policy["cost_usd"][bound]
    if policy["per_seed"]["em"]["sd"] is not None:
        found["em_seed_sd"] = policy["per_seed"]["em"]["sd"]
    for figure in ("top_model_share", "no_call_rate", "call_entropy_bits", "best_model_share"):
        if policy["collapse"][figure] is not None:
            found[figure] = policy["collapse"][figure]
    for entry in table["routers"]:
        if entry["router"] in _ORDER and entry["router"] != POLICY:
            name, gap = entry["router"], entry["difference"]["em"]
            found[f"{name}_em"] = entry["em"]["mean"]
            found[f"{name}_cost_usd"] = entry["cost_usd"]["mean"]
            found[f"em_over_{name}"] = gap["mean"]
            found[f"em_over_{name}_low"], found[f"em_over_{name}_high"] = gap["low"], gap["high"]
    return found


def markdown(table: dict[str, Any]) -> str:
    """The table for people: intervals in brackets, dollars per thousand questions."""
    percent = round(100 * table["confidence"])
    lines = [
        f"n = {table['n']} questions in {table['groups']} independent groups; {percent} % bootstrap "
        f"intervals over groups ({table['resamples']} draws). Difference: {table['reference']} minus "
        'router on the same questions; p is Holm-corrected; "resolves" is the smallest true '
        "difference this comparison would find in four of five repetitions.",
        "",
        "| router | EM | F1 | USD per 1000 | calls | latency, s | policy tokens | reply tokens "
        "| difference in EM | p | resolves |",
        f"|{' --- |' * 11}",
    ]
    lines += [_line(entry) for entry in table["routers"]]
    return "\n".join(lines) + "\n"


def _line(entry: dict[str, Any]) -> str:
    gap = entry["difference"].get("em")
    compared = (
        f"{_cell(gap, 3, signed=True)} | {gap['p_holm']:.3f} | {gap['resolvable']:.3f}"
        if gap
        else "reference | |"
    )
    cells = (
        entry["router"], _cell(entry["em"], 3), _cell(entry["f1"], 3),
        _cell({key: 1000 * value for key, value in entry["cost_usd"].items()}, 4),
        _cell(entry["calls"], 2), _cell(entry["latency_s"], 2), _cell(entry["policy_tokens"], 1),
        _cell(entry["completion_tokens"], 1), compared,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _cell(found: dict[str, float], digits: int, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{found[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
