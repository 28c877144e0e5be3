"""Files of questions, row by row: JSONL, CSV (either may be gzipped) and Parquet.

A file that cannot be understood is an error with file and line. A row that can be read but not used
is the business of `clean.py`.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from routerr1.data.splits import first_line, open_parquet
from routerr1.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
MAX_LINE_BYTES = 1 << 20  # a question is no book; a longer line is skipped without being held
_UNPACKING = (EOFError, gzip.BadGzipFile, zlib.error)


class Raw(NamedTuple):
    """One row as it lies in a file.

    Attributes:
        line: where it begins, from 1; in Parquet the number of the row.
        values: by column; None if the line is longer than `MAX_LINE_BYTES`.
    """

    line: int
    values: Mapping[str, Any] | None


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Raw]:
    """The rows of `path`.

    Args:
        columns: that the first row must have.

    Raises: DataError naming the file, and the line where there is one: missing, empty or unknown kind
        of file, broken UTF-8, JSON, CSV or gzip, a missing column.
    """
    if not path.is_file():
        raise DataError(f"{path}: not found")
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    readers = {"jsonl": _json_rows, "csv": _csv_rows, "parquet": _parquet_rows}
    if kind not in readers:
        raise DataError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    first = True
    try:
        for raw in readers[kind](path):
            if first and raw.values is not None:
                _require(path, raw, columns)
            first = False
            yield raw
    except _UNPACKING as error:
        raise DataError(f"{path}: is damaged or no gzip file ({first_line(error)})") from None
    if first:
        raise DataError(f"{path}: holds no row")


def _require(path: Path, raw: Raw, columns: Sequence[str]) -> None:
    assert raw.values is not None
    for column in columns:
        if column not in raw.values:
            there = ", ".join(map(str, raw.values))
            raise DataError(f"{path}, line {raw.line}: no column {column!r} (there are: {there})")


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _lines(stream: io.BufferedReader | gzip.GzipFile) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None for one that is too long, which is never held whole."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while not line.endswith(b"\n") and (line := stream.readline(MAX_LINE_BYTES)):
            pass
        yield number, None


def _json_rows(path: Path) -> Iterator[Raw]:
    with _open(path) as stream:
        for number, line in _lines(stream):
            if line is None:
                yield Raw(number, None)
            elif line.strip():
                yield Raw(number, _json_object(path, number, line))


def _json_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: is not UTF-8 (byte {error.start + 1} of the line)"
        ) from None
    except (ValueError, RecursionError) as error:  # a number may be too long to be read, too
        raise DataError(f"{path}, line {number}: is not JSON ({first_line(error)})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {number}: is not a JSON object")
    return value


def _csv_rows(path: Path) -> Iterator[Raw]:
    with _open(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        reader = csv.DictReader(text, strict=True)
        begins = 2  # of the next row: line 1 is the header, and a cell may hold line breaks
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {begins}: has not the {len(reader.fieldnames or ())} cells of the header"
                    )
                yield Raw(begins, row)
                begins = reader.line_num + 1
        except UnicodeDecodeError:
            raise DataError(f"{path}, line {_broken_line(path)}: is not UTF-8") from None
        except csv.Error as error:
            raise DataError(f"{path}, line {begins}: is not CSV ({error})") from None


def _broken_line(path: Path) -> int:
    """The first line that is not UTF-8: a text stream reads ahead and cannot tell."""
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def _parquet_rows(path: Path) -> Iterator[Raw]:
    import pyarrow as pa

    number = 0
    with open_parquet(path) as file:
        try:
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield Raw(number, row)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}, row {number + 1}: is damaged ({first_line(error)})") from None
