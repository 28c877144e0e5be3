"""Rows of one router as arrays of seeds x questions, in an order that does not depend on the rows."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from routerr1.errors import DataError
from routerr1.evaluate.results import Measure
from routerr1.evaluate.rows import Row


class ResultMatrix:
    """One router's rows: every training seed on every question.

    Attributes:
        seeds: in rising order, the lines of all arrays.
        questions: (data set, id), sorted, the columns of all arrays.
        groups: of each question.

    Raises: DataError naming the router and a row that is missing.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        by_key = {(row.seed, row.dataset, row.question_id): row for row in rows}
        self.seeds = sorted({row.seed for row in rows})
        self.questions = sorted({(row.dataset, row.question_id) for row in rows})
        try:
            self.cells = [[by_key[(seed, *q)] for q in self.questions] for seed in self.seeds]
        except KeyError as missing:
            raise DataError(f"router {rows[0].router}: no row for {missing}") from None
        self.groups = [row.group for row in self.cells[0]]

    @property
    def rows(self) -> list[Row]:
        """All rows, seed by seed."""
        return [row for line in self.cells for row in line]

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, sorted."""
        return sorted({dataset for dataset, _ in self.questions})

    def of(self, dataset: str) -> "ResultMatrix":
        """The part of one data set."""
        return ResultMatrix([row for row in self.rows if row.dataset == dataset])

    def only(self, seed: int) -> "ResultMatrix":
        """The part of one training seed.

        Raises: DataError if there is no row of that seed.
        """
        mine = [row for row in self.rows if row.seed == seed]
        if not mine:
            raise DataError(f"router {self.rows[0].router}: no row of training seed {seed}")
        return ResultMatrix(mine)

    def map(self, value: Callable[[Row], float]) -> NDArray[np.float64]:
        """`value` of each row, seeds x questions."""
        return np.array([[float(value(row)) for row in line] for line in self.cells])

    def values(self, measure: Measure) -> NDArray[np.float64]:
        """A column of the rows, seeds x questions."""
        return self.map(lambda row: float(getattr(row, measure)))


def matrices_of(rows: Sequence[Row]) -> dict[str, ResultMatrix]:
    """A matrix for each router.

    Raises: DataError without rows, or if routers have different questions.
    """
    if not rows:
        raise DataError("no evaluation rows to summarise")
    by_router: dict[str, list[Row]] = {}
    for row in rows:
        by_router.setdefault(row.router, []).append(row)
    matrices = {name: ResultMatrix(mine) for name, mine in by_router.items()}
    if len({tuple(matrix.questions) for matrix in matrices.values()}) > 1:
        sizes = ", ".join(f"{name} {len(matrix.questions)}" for name, matrix in matrices.items())
        raise DataError(f"routers were not evaluated on the same questions ({sizes})")
    return matrices
