"""Each training seed's policy against its own bounds: does training lead to routing with every seed?

In these bounds (the oracle, and one model for every call) the same policy writes sub-questions and answers.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from routerr1.config import EvaluateParams
from routerr1.evaluate.collapse import collapse
from routerr1.evaluate.controls import ORACLE, POLICY
from routerr1.evaluate.result_matrix import ResultMatrix
from routerr1.evaluate.results import Comparison, Estimate, HopResult, SeedResult, SeedTable
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import (
    AMOUNT,
    SHARE,
    BootstrapEstimate,
    Range,
    Sample,
    difference_of,
    interval_of,
    spread,
    subtract,
)

_ESTIMATED = ("em", "em_of_oracle", "over_best_fixed", "best_model_share")
_COUNTED = ("top_model_share", "format_valid")


def by_seed(rows: Sequence[Row], params: EvaluateParams, reference: str = POLICY) -> SeedTable:
    """One entry for each training seed, then one over all of them.

    Figures over all seeds are means of the seeds' own. Only the best single model is one for all of
    them. Their intervals cover questions and seeds.

    Args:
        reference: the router whose seeds are shown.
    """
    bounds = {
        row.router
        for row in rows
        if row.router == ORACLE or RouterId.parse(row.router).kind == "fixed"
    }
    matrices = {
        name: ResultMatrix([row for row in rows if row.router == name])
        for name in {reference, *bounds}
    }
    each = [
        _entry(
            seed, {name: matrix.only(seed) for name, matrix in matrices.items()}, params, reference
        )
        for seed in matrices[reference].seeds
    ]
    together = _entry(None, matrices, params, reference).model_copy(
        update={"sd": _deviations(each)}
    )
    return SeedTable(seeds=(*each, SeedResult.model_validate(together.model_dump())))


def _entry(
    seed: int | None,
    matrices: Mapping[str, ResultMatrix],
    params: EvaluateParams,
    reference: str,
) -> SeedResult:
    policy, oracle = matrices[reference], matrices.get(ORACLE)
    sample = Sample(policy.groups, resamples=params.bootstrap, seed=params.seed)
    fixed = sorted(name for name in matrices if RouterId.parse(name).kind == "fixed")
    names = list(dict.fromkeys([reference, *fixed]))
    em = dict(zip(names, sample.means([matrices[n].values("em") for n in names]), strict=True))
    best = max(fixed, key=lambda name: em[name].value, default=None)
    gap = difference_of(subtract(em[reference], em[best]), params.confidence) if best else None
    of_oracle = sample.ratio(policy.values("em"), oracle.values("em")) if oracle else None
    share = sample.ratio(
        policy.map(lambda row: row.best_calls), policy.map(lambda row: row.judged_calls)
    )

    def estimate(found: BootstrapEstimate, within: Range) -> Estimate:
        return Estimate.of(interval_of(found, params.confidence, within))

    return SeedResult(
        seed=seed,
        em=estimate(em[reference], SHARE),
        em_of_oracle=estimate(of_oracle, AMOUNT) if of_oracle else None,
        best_fixed=RouterId.parse(best).name if best else None,
        over_best_fixed=Comparison.of(gap) if gap else None,
        best_model_share=estimate(share, SHARE) if share else None,
        top_model_share=collapse(policy.rows).top_model_share,
        format_valid=float(policy.values("format_valid").mean()),
        by_hops=_by_hops(policy, oracle),
    )


def _by_hops(policy: ResultMatrix, oracle: ResultMatrix | None) -> dict[str, HopResult]:
    """Exact match and its share of the oracle's, means over seeds, by the facts a question needs."""
    hops = [row.hops for row in policy.cells[0]]
    found: dict[str, HopResult] = {}
    for hop in sorted({hop for hop in hops if hop}):
        kept = [place for place, each in enumerate(hops) if each == hop]
        own = policy.values("em")[:, kept].mean(axis=1)
        bounds = oracle.values("em")[:, kept].mean(axis=1) if oracle else 0.0 * own
        ratios = [mean / bound for mean, bound in zip(own, bounds, strict=True) if bound]
        found[str(hop)] = HopResult(
            em=float(own.mean()), em_of_oracle=float(fmean(ratios)) if ratios else None
        )
    return found


def _deviations(each: Sequence[SeedResult]) -> dict[str, float | None]:
    """The standard deviation over seeds of each figure; None for one seed, or if a seed has no figure."""
    values: dict[str, list[float | None]] = {}
    for key in _ESTIMATED:
        estimates: list[Estimate | None] = [getattr(entry, key) for entry in each]
        values[key] = [found.mean if found else None for found in estimates]
    for key in _COUNTED:
        values[key] = [getattr(entry, key) for entry in each]
    deviations: dict[str, float | None] = {}
    for key, found in values.items():
        known = [value for value in found if value is not None]
        deviations[key] = spread(known).sd if len(known) == len(found) else None
    return deviations
