"""Any two routers on the same questions: their paired difference, corrected over all pairs."""

import math
from collections.abc import Sequence
from itertools import combinations

from routerr1.config import EvaluateParams
from routerr1.evaluate.result_matrix import matrices_of
from routerr1.evaluate.results import Comparison, Measure, Pair, PairTable, round_significant
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import p_value, subtract
from routerr1.evaluate.table import compare, correct, measure, order_routers

COMPARED: tuple[Measure, ...] = ("em", "cost_usd")
"""The measures of the table of all pairs; `routerr1 compare` has every measure."""


def all_pairs(
    rows: Sequence[Row],
    params: EvaluateParams,
    measures: Sequence[Measure] = COMPARED,
    only: tuple[str, str] | None = None,
) -> PairTable:
    """The paired difference of every two routers in each measure, Holm-corrected over all pairs.

    A corrected p-value is never below the number of pairs times the smallest p that the draws can show.
    So the number of draws grows until that product is a fifth of the level.

    Args:
        only: compare just these two. The p-values of the other pairs still count in the correction.

    Raises: DataError as `summarise`.
    """
    matrices = matrices_of(rows)
    names = order_routers(set(matrices))
    pairs = list(combinations(names, 2))
    wanted = [pair for pair in pairs if only is None or set(pair) == set(only)]
    resamples = max(params.bootstrap, math.ceil(10 * len(pairs) / (1 - params.confidence)))
    found: dict[tuple[str, str], dict[Measure, Comparison]] = {pair: {} for pair in wanted}
    for what in measures:
        measured = measure(matrices, names, [what], resamples, params.seed)
        p_values = [
            None if (p := p_value(subtract(measured[a][what], measured[b][what]))) is None
            else round_significant(p)
            for a, b in pairs
        ]  # fmt: skip
        corrections = dict(zip(pairs, correct(p_values, resamples), strict=True))
        for a, b in wanted:
            gap = compare(measured[a][what], measured[b][what], what, params.confidence, len(pairs))
            found[a, b][what] = gap.model_copy(update=corrections[a, b]._asdict())
    return PairTable(
        resamples=resamples,
        comparisons=len(pairs),
        confidence=params.confidence,
        pairs=tuple(Pair(a=a, b=b, difference=gaps) for (a, b), gaps in found.items()),
    )
