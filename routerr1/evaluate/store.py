"""Rows that survive a kill: appended one by one, and read by the next start of the same evaluation."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol

from routerr1.errors import DataError
from routerr1.evaluate.rows import Row
from routerr1.jobs.rejected import Fault, Rejected

_log = logging.getLogger(__name__)
Key = tuple[str, str, int, str, str]


class Store(Protocol):
    """Where rows go as they are played."""

    def open(self) -> AbstractContextManager[Mapping[Key, Row]]:
        """Open the store for one evaluation; gives the rows of earlier ones."""
        ...

    def add(self, row: Row) -> None:
        """Add one row."""
        ...


class RowStore:
    """Finished rows, outside the stage's outputs, which DVC deletes before a run.

    Args:
        path: JSON lines; the first holds `fingerprint`. A damaged line is put aside and played again.
        fingerprint: digest of everything a row depends on (parameters, questions, cards,
            checkpoint); a file with another digest is replaced.
        max_rejected: share of the lines that may be damaged.
    """

    def __init__(self, path: Path, fingerprint: str, max_rejected: float = 0.0) -> None:
        self._path = path
        self._max_rejected = max_rejected
        self._fingerprint = fingerprint
        self._stream: IO[str] | None = None

    @contextmanager
    def open(self) -> Iterator[Mapping[Key, Row]]:
        """Open the file for `add`; gives its rows. A partly written last line is dropped.

        Raises: DataError naming file and line if too much else is damaged.
        """
        rows, intact = self._read()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("r+b" if intact else "wb") as stream:
            stream.truncate(intact)
        with self._path.open("a", encoding="utf-8") as text:
            self._stream = text
            if not intact:
                self._append({"fingerprint": self._fingerprint})
            try:
                yield rows
            finally:
                self._stream = None

    def add(self, row: Row) -> None:
        """Append one row; a kill after this call does not lose it.

        Raises: RuntimeError outside of `open`.
        """
        self._append(asdict(row))

    def discard(self) -> None:
        """Delete the file, once its rows are safe in the stage's output."""
        self._path.unlink(missing_ok=True)

    def _append(self, value: Mapping[str, Any]) -> None:
        if self._stream is None:
            raise RuntimeError("the row store is not open")
        self._stream.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._stream.flush()

    def _read(self) -> tuple[dict[Key, Row], int]:
        """Rows, and how many bytes of the file are whole lines of this evaluation.

        Raises: DataError as `open`.
        """
        if not self._path.is_file():
            return {}, 0
        first, *lines = self._path.read_bytes().splitlines(keepends=True) or [b""]
        if _parsed(first).get("fingerprint") != self._fingerprint:
            _log.info("%s: was made by another evaluation; starting again", self._path)
            return {}, 0
        rows: dict[Key, Row] = {}
        intact = len(first)
        remedy = f"delete {self._path} to play all of it again"
        rejected = Rejected("rows", self._max_rejected, len(lines), remedy=remedy)
        for number, line in enumerate(lines, start=2):
            if not line.endswith(b"\n"):
                break
            intact += len(line)
            try:
                row = Row.from_dict(_parsed(line))
            except DataError:
                content = line.decode(errors="replace")
                rejected.add(Fault(f"{self._path}, line {number}", "is damaged", content))
            else:
                rows[row.key] = row
        return rows, intact


def _parsed(line: bytes) -> dict[str, Any]:
    """The values of a line; none if it is damaged."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {}
