"""data/questions/{train,validation,test}.parquet: written in a stream, read back as Questions.

The same rows give the same bytes: row groups have a fixed size whatever the batches that came in,
metadata is JSON with sorted keys, and the files contain nothing about the machine.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from routerr1.errors import DataError
from routerr1.files import atomic_path
from routerr1.types import SPLITS, Question, Split

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 8192  # rows of one Parquet row group; what is held in memory per split
Counts = dict[str, dict[str, int]]
T = TypeVar("T")


def schema() -> "pa.Schema":
    """Columns and types of a split file."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("dataset", pa.string()),
            ("question", pa.string()),
            ("golden_answers", pa.list_(pa.string())),
            ("split", pa.string()),
            ("hops", pa.int32()),
            ("metadata", pa.string()),
        ]
    )


def split_path(folder: Path, split: Split) -> Path:
    """Path of a split of the questions in `folder`."""
    return folder / f"{split}.parquet"


class FileWriter:
    """One file of questions. Row groups have `GROUP_ROWS` rows, however the rows come in."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(path, schema(), compression="zstd", version="2.6")
        self._waiting = schema().empty_table()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self._flush(at_least=1)
        self._writer.close()

    def write(self, rows: "pa.Table") -> None:
        """Append rows of `schema`."""
        import pyarrow as pa

        self._waiting = pa.concat_tables([self._waiting, rows])
        self._flush(at_least=GROUP_ROWS)

    def _flush(self, at_least: int) -> None:
        while self._waiting.num_rows >= at_least:
            group = self._waiting.slice(0, GROUP_ROWS).combine_chunks()
            self._writer.write_table(group, row_group_size=GROUP_ROWS)
            self._waiting = self._waiting.slice(GROUP_ROWS)


class SplitWriter:
    """The three files of a folder, written aside and renamed together when the block ends well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counts = {}
        self._files = ExitStack()
        self._writers: dict[Split, FileWriter] = {}

    def __enter__(self) -> Self:
        with ExitStack() as files:
            for split in SPLITS:
                aside = files.enter_context(atomic_path(split_path(self.folder, split)))
                self._writers[split] = files.enter_context(FileWriter(aside))
            self._files = files.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._files.__exit__(kind, error, trace)

    def write(self, rows: "pa.Table") -> None:
        """Append `rows` (of `schema`, any mixture of splits), each to the file of its split."""
        import pyarrow.compute as pc

        tally = rows.group_by(["dataset", "split"]).aggregate([([], "count_all")])
        for dataset, split, num in zip(*(column.to_pylist() for column in tally), strict=True):
            self.counts.setdefault(dataset, dict.fromkeys(SPLITS, 0))[split] += num
        for name, writer in self._writers.items():
            writer.write(rows.filter(pc.equal(rows["split"], name)))


def to_table(questions: Iterable[Question]) -> "pa.Table":
    """Questions as rows of `schema`."""
    import pyarrow as pa

    rows = [
        {
            "id": question.id,
            "dataset": question.dataset,
            "question": question.question,
            "golden_answers": question.golden_answers,
            "split": question.split,
            "hops": question.hops,
            "metadata": metadata_json(question.metadata),
        }
        for question in questions
    ]
    return pa.Table.from_pylist(rows, schema=schema())


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Canonical JSON: equal metadata, equal bytes."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def write_questions(folder: Path, questions: Iterable[Question]) -> Counts:
    """Stream `questions` into the split files of `folder`, in the order given.

    Returns: rows per data set and split. An error leaves earlier files unchanged.
    """
    with SplitWriter(folder) as writer:
        for some in chunks(questions, GROUP_ROWS):
            writer.write(to_table(some))
    return writer.counts


def chunks(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` rows; the last may be shorter."""
    source = iter(rows)
    while some := list(islice(source, size)):
        yield some


def read_questions(folder: Path, split: Split) -> list[Question]:
    """The questions of one split, in file order.

    Raises: DataError naming the file, and the column or row, if it is not what `write_questions`
        writes.
    """
    return list(read_file(split_path(folder, split)))


def read_file(path: Path) -> Iterator[Question]:
    """The questions of one file, a stream.

    Raises: as `read_questions`.
    """
    for table in read_tables(path):
        yield from _to_questions(table, path)


def read_tables(path: Path) -> Iterator["pa.Table"]:
    """One split file in pieces of at most `GROUP_ROWS` rows.

    Raises: DataError naming the file, and the column that is missing or of another type.
    """
    import pyarrow as pa

    with open_parquet(path) as file:
        for problem in schema_problems(file.schema_arrow):
            raise DataError(f"{path}: {problem}; is it no file of questions, or an old one?")
        try:
            for batch in file.iter_batches(batch_size=GROUP_ROWS, columns=schema().names):
                yield pa.Table.from_batches([batch], schema=schema())
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: is damaged ({first_line(error)})") from None


def open_parquet(path: Path) -> "pq.ParquetFile":
    """Open a Parquet file.

    Raises: DataError if it is missing or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: not found")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a Parquet file ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def schema_problems(found: "pa.Schema") -> list[str]:
    """How `found` differs from `schema`, a sentence for each column."""
    wanted = schema()
    problems = [f"unknown column {name}" for name in found.names if name not in wanted.names]
    for field in wanted:
        if field.name not in found.names:
            problems.append(f"column {field.name} is missing")
        elif str(found.field(field.name).type).replace("element", "item") != str(
            field.type
        ).replace("element", "item"):
            kind = found.field(field.name).type
            problems.append(f"column {field.name} is {kind}, must be {field.type}")
    return problems


def _to_questions(table: "pa.Table", path: Path) -> Iterator[Question]:
    for row in table.to_pylist():
        try:
            yield Question(
                **{
                    **row,
                    "golden_answers": tuple(row["golden_answers"]),
                    "metadata": json.loads(row["metadata"]),
                }
            )
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: row {row['id']!r} has no answers or unreadable metadata"
            ) from None
