"""The origins of questions, behind one small interface."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from routerr1.config import BenchmarksParams, DatasetParams
from routerr1.data import embedded
from routerr1.data.allocate import Stock
from routerr1.data.benchmarks import BENCHMARKS, hops_of, origin, read_benchmark
from routerr1.data.clean import RefusedError, clean
from routerr1.data.splits import read_file
from routerr1.errors import ConfigError
from routerr1.types import SPLITS, Question, Split


class Read(NamedTuple):
    """A row and its position; its split is decided later unless its stock has only one."""

    line: int
    row: Question | RefusedError
    dropped_golds: int = 0


class Origin(Protocol):
    """Rows of one data set that may serve the same splits.

    Attributes:
        name: the file, or package, the rows come from.
        stock: what may be drawn from it.
    """

    @property
    def name(self) -> str: ...

    @property
    def stock(self) -> Stock: ...

    def read(self) -> Iterator[Read]:
        """All rows, in a fixed order."""
        ...

    def wanted(self) -> Mapping[Split, int | None]:
        """Rows each split needs from it; None for any number."""
        ...


def origins(params: DatasetParams) -> list[Origin]:
    """What `params` name, in a fixed order.

    Raises: ConfigError for an unknown benchmark, or if no source is named; DataError for an
        imported file that is missing.
    """
    found: list[Origin] = []
    if params.source == "embedded":
        world = embedded.build_world(params.embedded)
        rows = embedded.questions(world, params.embedded, params.seed)
        found += [_Embedded([row for row in rows if row.split == split], split) for split in SPLITS]
    if params.source == "benchmarks":
        found += _benchmarks(params.benchmarks)
    for path in params.imported:
        held = {(row.dataset, row.split) for row in read_file(path)}
        found += [_Imported(path, *place) for place in sorted(held)]
    if not found:
        raise ConfigError("params.yaml: dataset.imported: is empty, and dataset.source is imported")
    return found


def _benchmarks(params: BenchmarksParams) -> Iterator[Origin]:
    for dataset, draws in params.sets.items():
        if dataset not in BENCHMARKS:
            known = ", ".join(BENCHMARKS)
            raise ConfigError(
                f"params.yaml: dataset.benchmarks.sets: unknown set {dataset} (there are: {known})"
            )
        takes: dict[str, dict[Split, int | None]] = {}
        for split in reversed(SPLITS):
            if draw := getattr(draws, split):
                takes.setdefault(draw.source, {})[split] = draw.rows
        for source, rows in takes.items():
            yield _Benchmark(params, source, Stock(dataset, rows))


class _Embedded:
    def __init__(self, rows: list[Question], split: Split) -> None:
        self.name = f"embedded {split}"
        self.stock = Stock(embedded.DATASET, {split: None})
        self._rows = rows

    def read(self) -> Iterator[Read]:
        for line, row in enumerate(self._rows, start=1):
            yield Read(line, row)

    def wanted(self) -> Mapping[Split, int | None]:
        return dict.fromkeys(self.stock.takes, len(self._rows))


class _Benchmark:
    def __init__(self, params: BenchmarksParams, source: str, stock: Stock) -> None:
        self.name = origin(params, stock.dataset, source)
        self.stock = stock
        self._params = params
        self._source = source

    def read(self) -> Iterator[Read]:
        dataset, columns = self.stock.dataset, self._params.columns
        for line, values in read_benchmark(self._params, dataset, self._source):
            try:
                if values is None:
                    raise RefusedError("line_too_long")
                row = clean(values, columns, fallback_id=f"{self._source}_{line}")
            except RefusedError as refused:
                yield Read(line, refused)
                continue
            hops = hops_of(dataset, row.id, row.metadata)
            yield Read(line, row.to_question(dataset, "train", hops), row.dropped_golds)

    def wanted(self) -> Mapping[Split, int | None]:
        return self.stock.takes


class _Imported:
    def __init__(self, path: Path, dataset: str, split: Split) -> None:
        self.name = str(path)
        self.stock = Stock(dataset, {split: None})
        self._path = path

    def read(self) -> Iterator[Read]:
        for line, row in enumerate(read_file(self._path), start=1):
            if row.dataset == self.stock.dataset and row.split in self.stock.takes:
                yield Read(line, row)

    def wanted(self) -> Mapping[Split, int | None]:
        # Duplicates of other sets may be dropped, so no exact number can be required.
        return dict.fromkeys(self.stock.takes)
