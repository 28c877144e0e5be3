"""Routers that learn from the matrix, for a key that may ask some candidates only."""

from collections.abc import Collection
from dataclasses import replace

from routerr1.baselines.cascade import Cascade
from routerr1.baselines.learned import Chooser, ScoredChooser
from routerr1.baselines.matrix import Matrix


def among(fitted: Chooser | Cascade, names: Collection[str]) -> Chooser | Cascade:
    """The router as if the candidates in `names` were all.

    It stays as it is where it cannot choose among them: it has one candidate, or learned of none of these.
    """
    match fitted:
        case ScoredChooser():
            return _scored_among(fitted, names)
        case Cascade():
            stages = zip(fitted.order, fitted.thresholds, strict=True)
            left = [(name, least) for name, least in stages if name in names]
            if not left:
                return fitted
            order, thresholds = zip(*left, strict=True)
            return replace(fitted, order=order, thresholds=thresholds)
    return fitted


def _scored_among(fitted: ScoredChooser, names: Collection[str]) -> ScoredChooser:
    matrix = fitted.matrix
    places = [place for place, name in enumerate(matrix.candidates) if name in names]
    if not places:
        return fitted
    left = replace(
        matrix,
        candidates=tuple(matrix.candidates[place] for place in places),
        quality=matrix.quality[:, places],
        cost=matrix.cost[:, places],
        replies=tuple(tuple(line[place] for place in places) for line in matrix.replies),
    )
    return ScoredChooser(left, lambda query: fitted.predict(query)[places])


def best_first(first: str, matrix: Matrix) -> ScoredChooser:
    """Always `first`; where it may not be asked, the candidate that was right most often in the probes."""
    means = matrix.quality.mean(axis=0)
    scores = means + [float(name == first) for name in matrix.candidates]
    return ScoredChooser(matrix, lambda _: scores)
