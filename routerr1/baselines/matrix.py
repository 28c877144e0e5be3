"""What the learned routers learn from: questions x candidates, how right and how expensive each reply was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from routerr1.errors import DataError
from routerr1.pool.profile import read_probes

Quality = Literal["correct", "em", "f1"]
"""Column of the profile stage's matrix: gold contained in the reply, exact match, or token F1."""


@dataclass(frozen=True)
class Matrix:
    """Q questions put to the same M candidates.

    Attributes:
        quality: Q x M, in [0, 1].
        cost: Q x M, US dollars.
        replies: Q x M, what was said; "" for a failed call.
        topics: of each question; "" where none is known.
    """

    questions: tuple[str, ...]
    candidates: tuple[str, ...]
    quality: NDArray[np.float64]
    cost: NDArray[np.float64]
    replies: tuple[tuple[str, ...], ...]
    topics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.topics:
            object.__setattr__(self, "topics", ("",) * len(self.questions))
        shape = (len(self.questions), len(self.candidates))
        if 0 in shape:
            raise DataError("a matrix to learn from needs a question and a candidate")
        sizes = {self.quality.shape, self.cost.shape, shape}
        if len(sizes) > 1 or {len(self.replies), len(self.topics)} != {shape[0]}:
            raise DataError(f"a matrix of {shape} with parts of other sizes: {sorted(sizes)}")

    @property
    def mean_cost(self) -> NDArray[np.float64]:
        """Mean cost of each candidate in US dollars."""
        return np.asarray(self.cost.mean(axis=0), dtype=np.float64)

    def rows(self, places: Sequence[int] | NDArray[np.int64]) -> "Matrix":
        """The matrix of some of its questions."""
        chosen = list(places)
        return Matrix(
            tuple(self.questions[place] for place in chosen),
            self.candidates,
            self.quality[chosen],
            self.cost[chosen],
            tuple(self.replies[place] for place in chosen),
            tuple(self.topics[place] for place in chosen),
        )


def read_matrix(path: Path, quality: Quality = "correct") -> Matrix:
    """The profile stage's matrix.parquet.

    Raises: DataError naming the file, and the question and candidate without a row.
    """
    rows = read_probes(path)
    text = {(row["dataset"], row["question_id"]): row["question"] for row in rows}
    topic = {(row["dataset"], row["question_id"]): row["topic"] for row in rows}
    cells = {((row["dataset"], row["question_id"]), row["candidate"]): row for row in rows}
    places = list(text)
    names = tuple(dict.fromkeys(name for _, name in cells))
    try:
        grid = [[cells[place, name] for name in names] for place in places]
    except KeyError as missing:
        raise DataError(f"{path}: no row for {missing}") from None
    return Matrix(
        tuple(text[place] for place in places),
        names,
        np.array([[row[quality] for row in line] for line in grid], dtype=float),
        np.array([[row["cost_usd"] for row in line] for line in grid], dtype=float),
        tuple(tuple(row["answer"] or "" for row in line) for line in grid),
        tuple(topic[place] for place in places),
    )


def cheapest_best(scores: Mapping[str, float], costs: Mapping[str, float]) -> str:
    """The name with the highest score; the cheaper, then the first, of those as good.

    >>> cheapest_best({"a": 0.5, "b": 0.9, "c": 0.9}, {"a": 1.0, "b": 3.0, "c": 2.0})
    'c'
    """
    best = max(scores.values())
    tied = [name for name, score in scores.items() if score >= best - 1e-9]
    return min(tied, key=lambda name: costs[name])
