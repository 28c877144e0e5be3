"""Has routing collapsed? Who is called, how evenly, how often not at all, and is it the right one.

Each training seed is a policy of its own: two that call one model each, but not the same, have both collapsed.
So figures are worked out for each seed; what is reported is their mean, and the worst.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from routerr1.evaluate.rows import Row
from routerr1.metrics import routing_metrics

_WORST: Mapping[str, Callable[[list[float]], float]] = {
    "top_model_share": max, "call_entropy": min, "no_call_rate": max, "best_model_share": min,
}  # fmt: skip


def collapse(rows: Sequence[Row], names: Sequence[str] = ()) -> dict[str, Any]:
    """Figures of one router: means over training seeds, and `worst`, those of the worst seed.

    Args:
        names: candidates that get a share even if nobody calls them.

    Returns: questions and calls, of all seeds together; call_share by model, top_model_share and
        call_entropy of the calls, over seeds that make any (0 without calls); no_call_rate of the
        questions; calls_by_hops; best_model_share of the calls whose most accurate candidate is known, None
        where none is; judged_call_share, for how many that holds.
    """
    named = sorted({*names, *(name for row in rows for name in row.called)})
    each = [
        _of_one_seed([row for row in rows if row.seed == seed], named)
        for seed in sorted({row.seed for row in rows})
    ]
    calling = [found for found in each if found["calls"]]
    known = [found for found in calling if found["best_model_share"] is not None]
    behind = {
        "top_model_share": calling, "call_entropy": calling, "no_call_rate": each,
        "best_model_share": known,
    }  # fmt: skip
    figures = {key: [found[key] for found in mine] for key, mine in behind.items()}
    return {
        "questions": len(rows),
        "calls": sum(found["calls"] for found in each),
        "call_share": {name: _mean([f["call_share"][name] for f in calling]) for name in named},
        **{key: _mean(values) for key, values in figures.items()},
        "best_model_share": fmean(figures["best_model_share"]) if known else None,
        "judged_call_share": _mean([found["judged_call_share"] for found in calling]),
        "calls_by_hops": {
            hops: fmean(found["calls_by_hops"][hops] for found in each)
            for hops in (each[0]["calls_by_hops"] if each else ())
        },
        "worst": {key: _WORST[key](values) for key, values in figures.items() if values},
    }


def collapse_by_dataset(rows: Sequence[Row], names: Sequence[str] = ()) -> dict[str, Any]:
    """`collapse` for each data set."""
    datasets = sorted({row.dataset for row in rows})
    return {
        dataset: collapse([row for row in rows if row.dataset == dataset], names)
        for dataset in datasets
    }


def _of_one_seed(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    routing = routing_metrics([row.called for row in rows], names)
    judged = sum(row.judged_calls for row in rows)
    return {
        "calls": routing.num_calls,
        "call_share": routing.call_share,
        "top_model_share": routing.top_model_share,
        "call_entropy": routing.call_entropy,
        "no_call_rate": routing.no_call_rate,
        "calls_by_hops": _calls_by_hops(rows),
        "best_model_share": sum(row.best_calls for row in rows) / judged if judged else None,
        "judged_call_share": judged / routing.num_calls if routing.num_calls else 0.0,
    }


def _calls_by_hops(rows: Sequence[Row]) -> dict[str, float]:
    """Mean calls of a question by the number of facts it needs; "unknown" where the source is silent."""
    by_hops: dict[str, list[int]] = {}
    for row in rows:
        by_hops.setdefault("unknown" if row.hops is None else str(row.hops), []).append(row.calls)
    return {hops: fmean(calls) for hops, calls in sorted(by_hops.items())}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
