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
        path: JSON lines; the first holds `fingerprint`.
        fingerprint: digest of everything a row depends on (parameters, questions, cards,
            checkpoint); a file with another digest is replaced.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._stream: IO[str] | None = None

    @contextmanager
    def open(self) -> Iterator[Mapping[Key, Row]]:
        """Open the file for `add`; gives its rows. A partly written last line is dropped.

        Raises: DataError naming file and line of what else is damaged.
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

        Raises: DataError naming file and line of a whole line that is damaged.
        """
        if not self._path.is_file():
            return {}, 0
        rows: dict[Key, Row] = {}
        intact = 0
        for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True)):
            if not line.endswith(b"\n"):
                break
            value = self._parsed(line, number + 1)
            if number == 0 and value.get("fingerprint") != self._fingerprint:
                _log.info("%s: belongs to another evaluation; starting over", self._path)
                return {}, 0
            if number:
                row = Row.from_dict(value)
                rows[row.key] = row
            intact += len(line)
        return rows, intact

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError):
            raise DataError(
                f"{self._path}, line {number}: is damaged; delete the file to evaluate again"
            ) from None
