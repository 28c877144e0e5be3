"""Has routing collapsed? Who is called, how evenly, how often not at all, and is it the right one."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from routerr1.evaluate.rows import Row


def entropy_bits(counts: Mapping[str, int]) -> float:
    """Shannon entropy of the shares, in bits: 0 where one model takes all, log2(n) where n share evenly.

    >>> entropy_bits({"a": 2, "b": 1, "c": 1})
    1.5
    """
    total = sum(counts.values())
    shares = [count / total for count in counts.values() if count] if total else []
    return sum((-share * math.log2(share) for share in shares), start=0.0)


def collapse(rows: Sequence[Row], names: Sequence[str] = ()) -> dict[str, Any]:
    """Figures of one router.

    Args:
        names: candidates that get a share even if nobody calls them.

    Returns: call_share by model; top_model_share and call_entropy_bits of the calls (0 without calls);
        no_call_rate of the questions; calls_by_hops; best_model_share of the calls whose most accurate
        candidate is known, None where none is; judged_call_share, for how many that holds.
    """
    counts = Counter(dict.fromkeys(names, 0))
    counts.update(name for row in rows for name in row.called)
    calls = sum(counts.values())
    judged = sum(row.judged_calls for row in rows)
    return {
        "questions": len(rows),
        "calls": calls,
        "call_share": {name: counts[name] / calls if calls else 0.0 for name in sorted(counts)},
        "top_model_share": max(counts.values()) / calls if calls else 0.0,
        "call_entropy_bits": entropy_bits(counts),
        "no_call_rate": sum(not row.called for row in rows) / len(rows) if rows else 0.0,
        "calls_by_hops": _calls_by_hops(rows),
        "best_model_share": sum(row.best_calls for row in rows) / judged if judged else None,
        "judged_call_share": judged / calls if calls else 0.0,
    }


def collapse_by_dataset(rows: Sequence[Row], names: Sequence[str] = ()) -> dict[str, Any]:
    """`collapse` for each data set."""
    datasets = sorted({row.dataset for row in rows})
    return {
        dataset: collapse([row for row in rows if row.dataset == dataset], names)
        for dataset in datasets
    }


def _calls_by_hops(rows: Sequence[Row]) -> dict[str, float]:
    """Mean calls of a question by the number of facts it needs; "unknown" where the source is silent."""
    by_hops: dict[str, list[int]] = {}
    for row in rows:
        by_hops.setdefault("unknown" if row.hops is None else str(row.hops), []).append(row.calls)
    return {hops: sum(calls) / len(calls) for hops, calls in sorted(by_hops.items())}
