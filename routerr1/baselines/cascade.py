"""FrugalGPT (arXiv 2305.05176): ask cheap candidates first, go on until a scorer believes the reply."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.matrix import Matrix
from routerr1.baselines.threads import one_thread
from routerr1.types import Ask, Reply

_LEVELS = (0.2, 0.35, 0.5, 0.65, 0.8)  # thresholds tried for each stage but the last


@dataclass(frozen=True)
class Cascade:
    """Candidates in the order they are asked, and how sure the scorer must be of each.

    Attributes:
        thresholds: chance of being right above which a reply is taken; the last is never read.
    """

    order: tuple[str, ...]
    thresholds: tuple[float, ...]
    scorer: "ReplyScorer"

    def next_call(self, query: str, replies: Sequence[Reply]) -> Ask | None:
        """The next candidate, or None once a reply is accepted or no candidate is left."""
        if len(replies) == len(self.order):
            return None
        if replies and not replies[-1].failure:
            sure = self.scorer.score(query, replies[-1].model, replies[-1].text)
            if sure >= self.thresholds[len(replies) - 1]:
                return None
        return Ask(self.order[len(replies)], query)


class ReplyScorer:
    """Predicts whether a reply is right: logistic regression over words of question and reply, and its author.

    FrugalGPT fine-tunes DistilBERT; this needs no download and sees the same text.
    """

    def __init__(self, matrix: Matrix, seed: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        texts = [
            _features(query, name, reply)
            for query, replies in zip(matrix.questions, matrix.replies, strict=True)
            for name, reply in zip(matrix.candidates, replies, strict=True)
        ]
        right = (matrix.quality >= 0.5).ravel()
        self._constant = float(right.mean()) if len(set(right.tolist())) == 1 else None
        self._model: Any = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+"),
            LogisticRegression(C=10.0, max_iter=1000, random_state=seed),
        )
        if self._constant is None:
            self._model.fit(texts, right)

    def score(self, query: str, name: str, reply: str) -> float:
        """Chance that the reply is right, in [0, 1]."""
        return float(self.scores([(query, name, reply)])[0])

    def scores(self, asked: Sequence[tuple[str, str, str]]) -> NDArray[np.float64]:
        """`score` of many (question, name, reply)."""
        if self._constant is not None:
            return np.full(len(asked), self._constant)
        found = self._model.predict_proba([_features(*each) for each in asked])[:, 1]
        return np.asarray(found, dtype=np.float64)


def _features(query: str, name: str, reply: str) -> str:
    """Words of the question, each also joined with the name, so that skill by topic can be learned."""
    asked = query.lower().split()
    said = [f"reply:{word}" for word in reply.lower().split()]
    return " ".join([*asked, *said, f"by:{name}", *(f"{name}/{word}" for word in asked)])


@one_thread()
def frugal(
    matrix: Matrix, *, seed: int, stages: int = 3, cost_weight: float = 0.05, folds: int = 4
) -> Cascade:
    """Choose the candidates, their order and the thresholds on the matrix.

    Scores for the choice come from scorers that have not seen the question (`folds`-fold), or a
    scorer that memorised its training replies would pass everything.

    Args:
        stages: most candidates to ask, cheaper ones first.
        cost_weight: quality given up for saving as much as the most expensive candidate costs.
    """
    sure = _held_out_scores(matrix, seed, min(folds, len(matrix.questions)))
    highest = max(float(matrix.mean_cost.max()), 1e-12)
    by_cost = sorted(range(len(matrix.candidates)), key=lambda place: matrix.mean_cost[place])
    best: tuple[float, tuple[int, ...], tuple[float, ...]] | None = None
    for size in range(1, min(stages, len(by_cost)) + 1):
        for chosen in itertools.combinations(by_cost, size):
            for thresholds in itertools.product(_LEVELS, repeat=size - 1):
                quality, cost = _played(matrix, sure, chosen, thresholds)
                worth = quality - cost_weight * cost / highest
                if best is None or worth > best[0] + 1e-12:
                    best = (worth, chosen, thresholds)
    assert best is not None  # a matrix has a candidate
    _, chosen, thresholds = best
    names = tuple(matrix.candidates[place] for place in chosen)
    return Cascade(names, (*thresholds, 0.0), ReplyScorer(matrix, seed))


def _held_out_scores(matrix: Matrix, seed: int, folds: int) -> NDArray[np.float64]:
    sure = np.zeros(matrix.quality.shape)
    fold_of = np.random.default_rng(seed).permutation(len(matrix.questions)) % max(folds, 2)
    for fold in range(max(folds, 2)):
        inside, outside = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        if not len(outside) or not len(inside):
            continue
        scorer = ReplyScorer(matrix.rows(outside), seed)
        asked = [
            (matrix.questions[row], name, matrix.replies[row][place])
            for row in inside
            for place, name in enumerate(matrix.candidates)
        ]
        sure[inside] = scorer.scores(asked).reshape(len(inside), -1)
    return sure


def _played(
    matrix: Matrix,
    sure: NDArray[np.float64],
    chosen: Sequence[int],
    thresholds: Sequence[float],
) -> tuple[float, float]:
    """Mean quality and cost of a cascade on the matrix."""
    waiting = np.ones(len(matrix.questions), dtype=bool)
    quality, cost = 0.0, 0.0
    for stage, place in enumerate(chosen):
        cost += float(matrix.cost[waiting, place].sum())
        last = stage == len(chosen) - 1
        taken = waiting if last else waiting & (sure[:, place] >= thresholds[stage])
        quality += float(matrix.quality[taken, place].sum())
        waiting = waiting & ~taken
    return quality / len(matrix.questions), cost / len(matrix.questions)
