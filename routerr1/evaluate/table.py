"""From rows to a table: each router's means with intervals, and its difference to the policy."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

from routerr1.config import EvaluateParams
from routerr1.evaluate.collapse import collapse, collapse_by_dataset
from routerr1.evaluate.controls import BEST_SINGLE, CLOSED_BOOK, ORACLE, POLICY, RANDOM
from routerr1.evaluate.result_matrix import ResultMatrix, matrices_of
from routerr1.evaluate.results import (
    Comparison,
    DatasetResult,
    Estimate,
    LearningCost,
    Measure,
    Quality,
    RouterResult,
    RouterTable,
    Spread,
    round_significant,
)
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import (
    BootstrapEstimate,
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
from routerr1.metrics import metric

MEASURES: tuple[Measure, ...] = get_args(Measure)
RANGES: Mapping[Measure, Range] = {
    measure: (metric(measure).low, metric(measure).high) for measure in MEASURES
}
_COMPARED: tuple[Measure, ...] = ("em", "f1", "cost_usd", "calls")
_BY_DATASET: tuple[Measure, ...] = ("em", "f1", "cost_usd")
_ORDER = (POLICY, ORACLE, BEST_SINGLE, RANDOM, CLOSED_BOOK)

Measured = Mapping[str, Mapping[Measure, BootstrapEstimate]]
"""Router -> measure -> estimate, all on the same draws."""


class Correction(NamedTuple):
    """A p-value after Holm's correction, and whether it is only an upper bound."""

    p_holm: float | None
    p_is_bound: bool


def summarise(rows: Sequence[Row], params: EvaluateParams, reference: str = POLICY) -> RouterTable:
    """The table of one pool.

    Each measure is a mean over questions and training seeds. Its interval covers other questions and,
    with several seeds, other seeds. `difference` is `reference` minus the router on the same questions
    and seeds. Its p-values are Holm-corrected over all routers, one measure at a time, and the minimum
    detectable effect is at the level of the first step of that correction.

    Raises: DataError without rows, or if routers have different questions.
    """
    matrices = matrices_of(rows)
    names = order_routers(set(matrices))
    measured = measure(matrices, names, MEASURES, params.bootstrap, params.seed)
    gaps = _differences(measured, names, reference, params)
    first = matrices[names[0]]
    return RouterTable(
        confidence=params.confidence,
        resamples=params.bootstrap,
        reference=reference,
        comparisons=len(names) - 1 if reference in names else 0,
        n=len(first.questions),
        groups=len(set(first.groups)),
        datasets=tuple(first.datasets),
        routers=tuple(
            _router_result(name, matrices[name], measured[name], gaps.get(name, {}), params)
            for name in names
        ),
    )


def with_learning(
    routers: Sequence[RouterResult], costs: Mapping[str, LearningCost]
) -> tuple[RouterResult, ...]:
    """The routers with the cost of their learning; one that is not in `costs` stays as it is."""
    return tuple(
        entry.model_copy(update={"learning": costs[entry.router]})
        if entry.router in costs
        else entry
        for entry in routers
    )


def _differences(
    measured: Measured, names: Sequence[str], reference: str, params: EvaluateParams
) -> dict[str, dict[Measure, Comparison]]:
    """Router -> measure -> reference minus router; empty if the reference has no rows."""
    others = [name for name in names if name != reference]
    if reference not in measured:
        return {}
    found: dict[str, dict[Measure, Comparison]] = {name: {} for name in others}
    for what in _COMPARED:
        base = measured[reference][what]
        gaps = [
            compare(base, measured[name][what], what, params.confidence, len(others))
            for name in others
        ]
        for name, gap in zip(others, corrected(gaps, params.bootstrap), strict=True):
            found[name][what] = gap
    return found


def by_dataset(
    rows: Sequence[Row], params: EvaluateParams
) -> tuple[dict[str, DatasetResult], tuple[Quality, ...]]:
    """Quality and cost of each router on each data set, as in the paper's Table 1.

    Returns: the results by data set, and the routers' means over data sets, each with the same weight.
        Both are empty for a single data set.
    Raises: DataError as `summarise`.
    """
    matrices = matrices_of(rows)
    names = order_routers(set(matrices))
    datasets = matrices[names[0]].datasets
    if len(datasets) == 1:
        return {}, ()
    found: dict[str, DatasetResult] = {}
    parts: list[Measured] = []
    for place, dataset in enumerate(datasets, start=1):
        own = {name: matrix.of(dataset) for name, matrix in matrices.items()}
        # Each set has its own seed: with a shared one, their errors would be alike in the macro-average.
        part = measure(own, names, _BY_DATASET, params.bootstrap, params.seed + place)
        parts.append(part)
        first = own[names[0]]
        found[dataset] = DatasetResult(
            n=len(first.questions),
            groups=len(set(first.groups)),
            routers=tuple(_quality(name, part[name], params) for name in names),
        )
    macro = tuple(
        _quality(
            name,
            {what: average([part[name][what] for part in parts]) for what in _BY_DATASET},
            params,
        )
        for name in names
    )
    return found, macro


def order_routers(names: set[str]) -> list[str]:
    """The policy and its bounds first, then the fixed models and baselines by name."""
    first = [name for name in _ORDER if name in names]
    return first + sorted(names - set(first))


def measure(
    matrices: Mapping[str, ResultMatrix],
    names: Sequence[str],
    measures: Sequence[Measure],
    resamples: int,
    seed: int,
) -> Measured:
    """Every measure of every router, on one sample of their questions."""
    sample = Sample(matrices[names[0]].groups, resamples=resamples, seed=seed)
    found = iter(sample.means([matrices[name].values(what) for name in names for what in measures]))
    return {name: {what: next(found) for what in measures} for name in names}


def range_of_difference(what: Measure) -> Range:
    """The smallest and the largest possible difference of two values of one measure."""
    least, most = RANGES[what]
    return (least - most, most - least)


def compare(
    a: BootstrapEstimate, b: BootstrapEstimate, what: Measure, confidence: float, comparisons: int
) -> Comparison:
    """`a` minus `b` in one measure, one of `comparisons`; the p-value is not corrected yet."""
    return Comparison.of(
        difference_of(
            subtract(a, b), confidence, comparisons=comparisons, within=range_of_difference(what)
        )
    )


def corrected(gaps: Sequence[Comparison], resamples: int) -> list[Comparison]:
    """The comparisons with p-values corrected over all of them."""
    corrections = correct([gap.p for gap in gaps], resamples)
    return [
        gap.model_copy(update=correction._asdict())
        for gap, correction in zip(gaps, corrections, strict=True)
    ]


def correct(p_values: Sequence[float | None], resamples: int) -> list[Correction]:
    """Holm's correction over all p-values that are known.

    Args:
        resamples: bootstrap draws; a p-value at the smallest one that they can show is a bound.
    """
    known = iter(holm([p for p in p_values if p is not None]))
    least = 1.000001 * least_p(resamples)
    return [
        Correction(None, p_is_bound=False)
        if p is None
        else Correction(round_significant(next(known)), p_is_bound=p <= least)
        for p in p_values
    ]


def _router_result(
    name: str,
    matrix: ResultMatrix,
    measured: Mapping[Measure, BootstrapEstimate],
    difference: Mapping[Measure, Comparison],
    params: EvaluateParams,
) -> RouterResult:
    called = sorted({name for row in matrix.rows for name in row.called})
    estimates = _estimates(measured, params)
    return RouterResult(
        router=name,
        seeds=tuple(matrix.seeds),
        em=estimates["em"],
        f1=estimates["f1"],
        cost_usd=estimates["cost_usd"],
        calls=estimates["calls"],
        latency_s=estimates["latency_s"],
        policy_tokens=estimates["policy_tokens"],
        prompt_tokens=estimates["prompt_tokens"],
        completion_tokens=estimates["completion_tokens"],
        format_valid=estimates["format_valid"],
        per_seed=_spreads(measured),
        difference=difference,
        collapse=collapse(matrix.rows, called),
        collapse_by_dataset=collapse_by_dataset(matrix.rows, called),
    )


def _quality(
    name: str, measured: Mapping[Measure, BootstrapEstimate], params: EvaluateParams
) -> Quality:
    estimates = _estimates(measured, params)
    return Quality(
        router=name,
        em=estimates["em"],
        f1=estimates["f1"],
        cost_usd=estimates["cost_usd"],
        per_seed=_spreads(measured),
    )


def _estimates(
    measured: Mapping[Measure, BootstrapEstimate], params: EvaluateParams
) -> dict[Measure, Estimate]:
    return {
        what: Estimate.of(interval_of(estimate, params.confidence, RANGES[what]))
        for what, estimate in measured.items()
    }


def _spreads(measured: Mapping[Measure, BootstrapEstimate]) -> dict[Measure, Spread]:
    return {what: Spread.of(spread(per_seed(estimate))) for what, estimate in measured.items()}


def headline(table: RouterTable) -> dict[str, float]:
    """The reference's headline metrics for `dvc metrics show` and MLflow; the table has everything.

    The reference is the policy if there is one. `cost_over_best_single` is its cost over that of the best
    single model, and `em_over_best_single` the difference in exact match.
    """
    policy = table.router(table.reference)
    found: dict[str, float | None] = {
        "em": policy.em.mean,
        "em_low": policy.em.low,
        "em_high": policy.em.high,
        "cost_usd": policy.cost_usd.mean,
        "calls": policy.calls.mean,
        "format_valid": policy.format_valid.mean,
        "top_model_share": policy.collapse.top_model_share,
        "no_call_rate": policy.collapse.no_call_rate,
        "call_entropy": policy.collapse.call_entropy,
    }
    for entry in table.routers:
        if entry.router == BEST_SINGLE and entry.difference:
            found["em_over_best_single"] = entry.difference["em"].mean
            if entry.cost_usd.mean:
                ratio = policy.cost_usd.mean / entry.cost_usd.mean
                found["cost_over_best_single"] = round_significant(ratio)
    return {name: value for name, value in found.items() if value is not None}
