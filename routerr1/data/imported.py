"""Import of a user's file of questions, with a report of the refused rows and the reasons."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

from routerr1.config import ColumnsParams
from routerr1.data import embedded, text
from routerr1.data.benchmarks import BENCHMARKS
from routerr1.data.clean import SAYS, Cleaned, Reason, RefusedError, clean
from routerr1.data.sources import Raw, read_rows
from routerr1.data.splits import GROUP_ROWS, FileWriter, chunks, to_table
from routerr1.errors import DataError
from routerr1.files import atomic_path, read_json, sha256, write_json
from routerr1.matching import Rule
from routerr1.types import SPLITS, Question, Split

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RESERVED = {embedded.DATASET, *BENCHMARKS}


KNOWN = Path("data/imported.json")
"""Digest of every imported file, by path. Git keeps it, and DVC uses it in a clone without the files."""


class Shares(NamedTuple):
    """How much of a file is held out; the rest is for training. Each in [0, 1], together at most 1."""

    test: float
    validation: float


class Imported(NamedTuple):
    """The result of an import.

    Attributes:
        refused: number of rows by reason; the report lists each with its line.
        dropped_golds: empty or repeated golds in rows that were kept.
    """

    path: Path
    report: Path
    rows: Counter[Split]
    refused: Counter[Reason]
    dropped_golds: int


def import_file(
    file: Path,
    name: str,
    columns: ColumnsParams,
    *,
    out: Path,
    shares: Shares,
    split_column: str | None = None,
    seed: int = 42,
    matching: Rule = "text",
    header: Sequence[str] = (),
) -> Imported:
    """Turn `file` into out/NAME.parquet, with out/NAME.refused.jsonl beside it.

    Args:
        shares: used unless `split_column` names a column that holds the splits. Which split a
            question goes to depends on its wording and `seed` only, not on the rest of the file.
        matching: the rule that compares answers; each row has it.
        header: names of the columns of a CSV file without a header line.

    Raises: DataError naming file and line if the file cannot be understood, if no row can be used,
        if a split is unknown, or if the name is taken by a benchmark.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise DataError(
            f"--name {name}: must be letters, digits, '_', '.' or '-', and none of {sorted(_RESERVED)}"
        )
    if min(shares) < 0 or sum(shares) > 1:
        raise DataError("--test and --validation: must be at least 0, and together at most 1")
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: is a file; name a folder")
    path, report = out / f"{name}.parquet", out / f"{name}.refused.jsonl"
    importer = _Importer(file, name, columns, shares, split_column, seed, matching, header)
    with (
        atomic_path(path) as rows_aside,
        atomic_path(report) as report_aside,
        report_aside.open("w", encoding="utf-8") as importer.report,
    ):
        with FileWriter(rows_aside) as writer:
            for some in chunks(importer.questions(), GROUP_ROWS):
                writer.write(to_table(some))
        if not importer.rows:
            raise DataError(f"{file}: no usable row; {importer.reasons()}")
    return Imported(path, report, importer.rows, importer.refused, importer.dropped_golds)


def remember(path: Path) -> None:
    """Note an imported file's digest in `KNOWN`.

    Raises: DataError if `KNOWN` is not such a list.
    """
    write_json(KNOWN, {**_known(), path.as_posix(): sha256(path)})


def require_known(paths: Iterable[Path]) -> None:
    """Refuse files that `KNOWN` does not list, because DVC would not see them change.

    Raises: DataError naming the file that is missing, or is not the one that was imported.
    """
    known = _known()
    for path in paths:
        if path.as_posix() not in known:
            raise DataError(f"{path}: is not in {KNOWN}; `routerr1 data import` writes it there")
        if not path.is_file():
            raise DataError(f"{path}: not found; fetch it (`dvc pull`) or import it again")
        if sha256(path) != known[path.as_posix()]:
            raise DataError(
                f"{path}: is not the file that {KNOWN} knows; fetch that one (`dvc checkout`), or import yours"
            )


def _known() -> dict[str, Any]:
    known = read_json(KNOWN) if KNOWN.is_file() else {}
    if not isinstance(known, dict):
        raise DataError(f"{KNOWN}: is no list of files and digests")
    return known


class _Importer:
    def __init__(
        self,
        file: Path,
        name: str,
        columns: ColumnsParams,
        shares: Shares,
        split_column: str | None,
        seed: int,
        matching: Rule,
        header: Sequence[str],
    ) -> None:
        self.file = file
        self.name = name
        self.columns = columns
        self.shares = shares
        self.split_column = split_column
        self.seed = seed
        self.matching = matching
        self.header = header
        self.rows: Counter[Split] = Counter()
        self.refused: Counter[Reason] = Counter()
        self.dropped_golds = 0
        self.report: IO[str]
        self._ids: set[int] = set()
        self._keys: set[int] = set()

    def questions(self) -> Iterator[Question]:
        needed = [self.columns.question, self.columns.golden_answers]
        needed += [c for c in (self.columns.hops, self.split_column) if c is not None]
        for raw in read_rows(self.file, needed, self.header):
            try:
                row = self._clean(raw)
            except RefusedError as error:
                self._refuse(raw.line, error.reason)
                continue
            split = self._split(raw, row)
            self.rows[split] += 1
            self.dropped_golds += row.dropped_golds
            yield row.to_question(self.name, split)

    def _clean(self, raw: Raw) -> Cleaned:
        if raw.values is None:
            raise RefusedError("line_too_long")
        row = clean(raw.values, self.columns, f"{self.name}_{raw.line}", self.matching)
        row_id, key = text.key(row.id), text.key(text.comparable(row.question))
        if row_id in self._ids:
            raise RefusedError("duplicate_id")
        if key in self._keys:
            raise RefusedError("duplicate")
        self._ids.add(row_id)
        self._keys.add(key)
        return row

    def _refuse(self, line: int, reason: Reason) -> None:
        self.refused[reason] += 1
        entry = {"file": str(self.file), "line": line, "reason": reason, "says": SAYS[reason]}
        self.report.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")

    def _split(self, raw: Raw, row: Cleaned) -> Split:
        if self.split_column is not None:
            found = (raw.values or {})[self.split_column]
            for split in SPLITS:
                if found == split:
                    return split
            raise DataError(
                f"{self.file}, line {raw.line}: {self.split_column} is {found!r}, "
                f"must be one of {', '.join(SPLITS)}"
            )
        seeded = f"{self.seed}\0{text.comparable(row.question)}".encode()
        place = int.from_bytes(blake2b(seeded, digest_size=8).digest(), "big") / 2**64
        if place < self.shares.test:
            return "test"
        return "validation" if place < sum(self.shares) else "train"

    def reasons(self) -> str:
        """Counts of the refusals, in words."""
        return ", ".join(f"{count} refused: {SAYS[why]}" for why, count in self.refused.items())
