"""Files of questions, row by row: JSONL, JSON, CSV, TSV (each may be gzipped), Parquet and Excel.

A file that cannot be parsed is an error with file and line. `clean.py` decides whether a row that
was read can be used.
"""

import codecs
import csv
import gzip
import io
import json
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from routerr1.data.splits import first_line, open_parquet
from routerr1.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from openpyxl.cell import Cell, MergedCell, ReadOnlyCell
    from openpyxl.cell.read_only import EmptyCell

_PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*_PLAIN, *(f"{kind}.gz" for kind in _PLAIN), ".parquet", ".xlsx")
MAX_LINE_BYTES = 1 << 20  # a longer line is skipped without being held
_MAX_CELL_CHARS = 16 << 20  # an open quote would hold the rest of the file
_MAX_JSON_BYTES = 1 << 30  # a JSON document is held whole
_DOCUMENT = "; a whole JSON document must end in .json"
_SEPARATED = {
    "csv": "; the cells of a .csv file must be separated by commas",
    "tsv": "; the cells of a .tsv file must be separated by tabs",
}
_UNPACKING = (EOFError, gzip.BadGzipFile, zlib.error)
_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Raw(NamedTuple):
    """One row of a file.

    Attributes:
        line: its first line, from 1, as an editor counts; in Parquet and JSON documents the number
            of the row.
        values: by column; None if the line is longer than `MAX_LINE_BYTES`.
    """

    line: int
    values: Mapping[str, Any] | None


def read_rows(
    path: Path,
    columns: Sequence[str],
    header: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
) -> Iterator[Raw]:
    """The rows of `path`.

    Args:
        columns: that the first row must have.
        header: names of the columns of a CSV or TSV file whose first line is already a row.
        only: the columns that are of use; of a Parquet file the others are not read. None: all are.

    Raises: DataError naming the file, and the line where there is one: missing, empty or unknown
        kind of file, a broken encoding, JSON, CSV or gzip, a missing column, two columns of one
        name.
    """
    if not path.is_file():
        raise DataError(f"{path}: not found")
    kind = _kind(path)
    readers: Mapping[str, Callable[[Path], Iterator[Raw]]] = {
        "jsonl": _json_rows,
        "ndjson": _json_rows,
        "json": _document_rows,
        "csv": partial(_csv_rows, header=header),
        "tsv": partial(_csv_rows, header=header, tabs=True),
        "parquet": partial(_parquet_rows, columns=columns, only=only),
        "xlsx": _excel_rows,
    }
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


def _kind(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def _require(path: Path, raw: Raw, columns: Sequence[str]) -> None:
    assert raw.values is not None
    for column in columns:
        if column not in raw.values:
            there = ", ".join(map(str, raw.values))
            other = len(raw.values) == 1 and re.search(r"[;\t|,]", there)
            hint = _SEPARATED.get(_kind(path), "") if other else ""
            # The header names the columns of a table; in JSONL each line does.
            line = f", line {raw.line}" if _kind(path) in ("jsonl", "ndjson") else ""
            raise DataError(f"{path}{line}: no column {column!r} (there are: {there}){hint}")


def _require_distinct(path: Path, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: two columns have the name {twice[0]!r}; rename one of them")


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _encoding(path: Path) -> str:
    """UTF-16 if the byte order mark says so, else UTF-8 with or without a mark.

    Raises: DataError for UTF-32.
    """
    with _open(path) as stream:
        start = stream.read(4)
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        raise DataError(f"{path}: is UTF-32; save it as UTF-8")
    return _BYTE_ORDER_MARKS.get(start[:2], "utf-8-sig")


def _lines(readline: Callable[[int], bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None for one that is too long, which is not held whole."""
    number = 0
    while line := readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while not line.endswith(b"\n") and (line := readline(MAX_LINE_BYTES)):
            pass
        yield number, None


def _json_rows(path: Path) -> Iterator[Raw]:
    encoding = _encoding(path)
    with _open(path) as stream:
        text = None if encoding == "utf-8-sig" else io.TextIOWrapper(stream, encoding, newline="\n")
        try:
            for number, line in _lines(stream.readline if text is None else _as_utf_8(text)):
                if line is None:
                    yield Raw(number, None)
                elif line.removeprefix(codecs.BOM_UTF8).strip():
                    yield Raw(number, _json_object(path, number, line))
        except UnicodeDecodeError:
            raise DataError(f"{path}: is not whole UTF-16") from None


def _as_utf_8(text: io.TextIOWrapper) -> Callable[[int], bytes]:
    return lambda size: text.readline(size).encode()


def _json_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        value = json.loads(text, object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: is not UTF-8 (byte {error.start + 1} of the line)"
        ) from None
    except _TwiceError as twice:
        raise DataError(f"{path}, line {number}: {twice}") from None
    except (ValueError, RecursionError) as error:  # a number may be too long to be read, too
        whole = number == 1 and line.strip() in (b"{", b"[")
        raise DataError(
            f"{path}, line {number}: is not JSON ({first_line(error)}){_DOCUMENT if whole else ''}"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}, line {number}: is not a JSON object{_DOCUMENT if number == 1 else ''}"
        )
    return value


class _TwiceError(ValueError):
    """An object has one key twice; which of the values counts cannot be known."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _TwiceError(f"two columns have the name {twice!r}; rename one of them")
    return values


def _document_rows(path: Path) -> Iterator[Raw]:
    """Rows of one JSON document: a list of objects, SQuAD's nested articles, or an object with a list `data`."""
    with _open(path) as stream:
        content = stream.read(_MAX_JSON_BYTES + 1)
    if len(content) > _MAX_JSON_BYTES:
        raise DataError(f"{path}: is a JSON document of over 1 GB; convert it to JSONL")
    try:
        document = json.loads(content.decode(_encoding(path)), object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start + 1})") from None
    except _TwiceError as twice:
        raise DataError(f"{path}: {twice}") from None
    except (ValueError, RecursionError) as error:
        hint = "; a file with one object a line must end in .jsonl" if b"}\n{" in content else ""
        raise DataError(f"{path}: is not JSON ({first_line(error)}){hint}") from None
    if isinstance(document, dict):
        document = document.get("data", document.get("Data"))
    if not isinstance(document, list):
        raise DataError(
            f"{path}: holds no list of rows; `data` of a JSON object or the document must be one "
            "(of pandas: `orient='records'`)"
        )
    number = 0
    for entry in document:
        for row in _flat(entry):
            number += 1
            if not isinstance(row, dict):
                raise DataError(f"{path}, row {number}: is not a JSON object")
            yield Raw(number, row)


def _flat(entry: Any) -> Iterator[Any]:
    """SQuAD holds questions in paragraphs in articles; any other entry is a row."""
    paragraphs = entry.get("paragraphs") if isinstance(entry, dict) else None
    if not isinstance(paragraphs, list):
        yield entry
        return
    for paragraph in paragraphs:
        yield from paragraph.get("qas", ()) if isinstance(paragraph, dict) else ()


def _csv_rows(path: Path, header: Sequence[str] = (), *, tabs: bool = False) -> Iterator[Raw]:
    encoding = _encoding(path)
    # The module's limit of 128 KiB would end the whole file; below, a long row alone is refused.
    csv.field_size_limit(_MAX_CELL_CHARS)
    with _open(path) as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        # Most files with tabs quote nothing, so a quotation mark is a part of the cell and never opens one.
        reader = (
            csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
            if tabs
            else csv.reader(text, strict=True)
        )
        begins = 1  # of the next row: a cell may hold line breaks
        names = list(header)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError:
                if encoding != "utf-8-sig":
                    raise DataError(f"{path}: is not whole UTF-16") from None
                raise DataError(f"{path}, line {_broken_line(path)}: is not UTF-8") from None
            except csv.Error as error:
                kind = _kind(path).upper()
                raise DataError(f"{path}, line {begins}: is not {kind} ({error})") from None
            if tabs:
                cells = [_unquoted(cell) for cell in cells]
            here, begins = begins, reader.line_num + 1
            if not any(map(str.strip, cells)):  # a blank line, or the empty row of a spreadsheet
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                _require_distinct(path, names)
            elif sum(map(len, cells)) > MAX_LINE_BYTES:
                yield Raw(here, None)
            elif len(cells) != len(names):
                hint = "; a cell of a .tsv file holds no tab or line break" if tabs else ""
                raise DataError(
                    f"{path}, line {here}: has not the {len(names)} cells of the header{hint}"
                )
            else:
                yield Raw(here, dict(zip(names, cells, strict=True)))


def _unquoted(cell: str) -> str:
    """What pandas or a spreadsheet wrote into a cell with tabs around it: quoted, its own marks doubled.

    >>> [_unquoted(cell) for cell in ('"a ""b"" c"', '"a" or "b"', 'a"', '"')]
    ['a "b" c', '"a" or "b"', 'a"', '"']
    """
    quoted = re.fullmatch(r'"((?:[^"]|"")*)"', cell)
    return quoted[1].replace('""', '"') if quoted else cell


def _broken_line(path: Path) -> int:
    """The first line that is not UTF-8; a text stream reads ahead and does not know it."""
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def _parquet_rows(path: Path, columns: Sequence[str], only: Sequence[str] | None) -> Iterator[Raw]:
    import pyarrow as pa

    number = 0
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        _require_distinct(path, names)
        for column in columns:
            if column not in names:
                raise DataError(f"{path}: no column {column!r} (there are: {', '.join(names)})")
        wanted = names if only is None else [name for name in names if name in only]
        try:
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                for row in _shortest(batch).to_pylist():
                    number += 1
                    yield Raw(number, row)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path}, row {number + 1}: cannot be read ({first_line(error)})"
            ) from None


def _shortest(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """0.1 of 32 bits as 0.1, and not as the 0.10000000149011612 that is next to it in 64 bits."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if field.type == pa.float32():
            exact = batch.column(place).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(place, field.name, exact)
    return batch


def _as_shown(cell: "Cell | ReadOnlyCell | EmptyCell | MergedCell") -> object:
    """The value; as text if the format of a number makes a percentage of it or leading zeros."""
    value = cell.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    shown = cell.number_format
    if re.fullmatch(r"0(\.0+)?%", shown):
        return f"{(Decimal(repr(value)) * 100).normalize():f}%"
    if re.fullmatch("0{2,}", shown) and value == int(value):
        return f"{int(value):0{len(shown)}d}"
    return value


def _excel_rows(path: Path) -> Iterator[Raw]:
    """Rows of the first sheet; its first row that is not empty names the columns."""
    try:
        import openpyxl
    except ImportError:
        raise DataError(
            f"{path}: Excel files need `pip install openpyxl` (the extra `excel`)"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, AttributeError) as error:
        raise DataError(f"{path}: is no Excel file ({first_line(error)})") from None
    names: list[str] = []
    try:
        for number, row in enumerate(book.worksheets[0].iter_rows(), start=1):
            cells = [_as_shown(cell) for cell in row]
            if not any(str(cell).strip() for cell in cells if cell is not None):
                continue
            if not names:
                names = ["" if cell is None else str(cell).strip() for cell in cells]
                _require_distinct(path, [name for name in names if name])
            else:
                yield Raw(
                    number, {name: cell for name, cell in zip(names, cells, strict=False) if name}
                )
    finally:
        book.close()
