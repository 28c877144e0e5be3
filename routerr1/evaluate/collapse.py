"""How a router spreads its calls: over which candidates, how evenly, and whether to the best one.

Each training seed is a policy of its own. Two policies that call one model each, but not the same one, have
both collapsed. So figures are computed for each seed, and the mean and the worst are reported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from routerr1.evaluate.results import Routing
from routerr1.evaluate.rows import Row
from routerr1.metrics import RoutingMetrics, routing_metrics

_WORST: Mapping[str, Callable[[list[float]], float]] = {
    "top_model_share": max, "call_entropy": min, "no_call_rate": max, "best_model_share": min,
}  # fmt: skip


def collapse(rows: Sequence[Row], names: Sequence[str] = ()) -> Routing:
    """Routing of one router: means over training seeds, and the worst seed.

    Shares, top model and entropy are means over the seeds that make calls; all are 0 without calls.

    Args:
        names: candidates that have a share even without a call.
    """
    named = sorted({*names, *(name for row in rows for name in row.called)})
    each = [
        _of_one_seed([row for row in rows if row.seed == seed], named)
        for seed in sorted({row.seed for row in rows})
    ]
    calling = [found for found in each if found.routing.num_calls]
    best = [found.best_model_share for found in calling if found.best_model_share is not None]
    top = [found.routing.top_model_share for found in calling]
    entropy = [found.routing.call_entropy for found in calling]
    silent = [found.routing.no_call_rate for found in each]
    figures = {
        "top_model_share": top, "call_entropy": entropy, "no_call_rate": silent,
        "best_model_share": best,
    }  # fmt: skip
    return Routing(
        questions=len(rows),
        calls=sum(found.routing.num_calls for found in each),
        call_share={name: _mean([f.routing.call_share[name] for f in calling]) for name in named},
        top_model_share=_mean(top),
        call_entropy=_mean(entropy),
        no_call_rate=_mean(silent),
        best_model_share=fmean(best) if best else None,
        judged_call_share=_mean([found.judged_call_share for found in calling]),
        calls_by_hops={
            hops: fmean(found.calls_by_hops[hops] for found in each)
            for hops in (each[0].calls_by_hops if each else ())
        },
        worst={key: _WORST[key](values) for key, values in figures.items() if values},
    )


def collapse_by_dataset(rows: Sequence[Row], names: Sequence[str] = ()) -> dict[str, Routing]:
    """`collapse` for each data set."""
    datasets = sorted({row.dataset for row in rows})
    return {
        dataset: collapse([row for row in rows if row.dataset == dataset], names)
        for dataset in datasets
    }


@dataclass(frozen=True, slots=True)
class _SeedRouting:
    routing: RoutingMetrics
    best_model_share: float | None
    judged_call_share: float
    calls_by_hops: Mapping[str, float]


def _of_one_seed(rows: Sequence[Row], names: Sequence[str]) -> _SeedRouting:
    routing = routing_metrics([row.called for row in rows], names)
    judged = sum(row.judged_calls for row in rows)
    return _SeedRouting(
        routing,
        best_model_share=sum(row.best_calls for row in rows) / judged if judged else None,
        judged_call_share=judged / routing.num_calls if routing.num_calls else 0.0,
        calls_by_hops=_calls_by_hops(rows),
    )


def _calls_by_hops(rows: Sequence[Row]) -> dict[str, float]:
    """Mean calls of a question by the number of facts it needs; "unknown" without that number."""
    by_hops: dict[str, list[int]] = {}
    for row in rows:
        by_hops.setdefault("unknown" if row.hops is None else str(row.hops), []).append(row.calls)
    return {hops: fmean(calls) for hops, calls in sorted(by_hops.items())}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
