"""The append-only store of calls: one JSON line per call, keyed by a hash of the request.

A line is written with one system call and flushed to disk before the call counts as recorded. A crash
loses at most the call that it interrupted. An unfinished last line is dropped when the store is next
opened for writing. A damaged line anywhere else is an error. The file only grows, so DVC can version it
like any other output.
"""

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from routerr1.errors import LockHeld, PoolError
from routerr1.jobs.rejected import Fault, Rejected
from routerr1.types import Reply

Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded call.

    Attributes:
        request: model, messages and sampling parameters, as JSON values; never a key or a header.
        scope: the rollout that made the call (`Call.scope`); None if there was none.
        origin: source of an imported record; None for a call made here.
    """

    request: Request
    reply: Reply
    scope: str | None = None
    origin: str | None = None

    @property
    def key(self) -> str:
        """Content hash of the request."""
        return request_key(self.request)


def request_key(request: Request) -> str:
    """SHA-256 over the canonical JSON of model, messages and sampling parameters."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_records(path: Path, max_rejected: float = 0.0) -> Iterator[Record]:
    """Every finished record in `path`, oldest first, without an unfinished last line.

    Args:
        max_rejected: share of the lines that may be damaged; these are put aside.

    Raises: PoolError naming the file and the damaged line, or that the file cannot be read.
    """
    rejected = Rejected(
        "calls", max_rejected, remedy=f"delete {path} and make its calls again", error=PoolError
    )
    try:
        stream = path.open("rb")
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror})") from None
    with stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = _parse(line)
            except ValueError as error:
                if not rejected.total:
                    with path.open("rb") as lines:
                        rejected.total = sum(1 for _ in lines)
                rejected.add(
                    Fault(f"{path}, line {number}", str(error), line.decode(errors="replace"))
                )
            else:
                yield record


class RecordStore:
    """A store opened for writing, by one process at a time.

    Raises: LockHeld if another process has `path` open; PoolError if it cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise PoolError(f"{path}: cannot be opened for records ({error.strerror})") from None
        try:
            # The system releases it when the process dies, however it dies.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise LockHeld(
                f"{path}: another process is recording into it; wait, or use another file"
            ) from None
        self._drop_unfinished()
        self._thread_lock = threading.Lock()

    def _drop_unfinished(self) -> None:
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            os.ftruncate(self._file, end)

    def append(self, record: Record) -> None:
        """Write one record and wait for the disk. Threads can share the store."""
        self.write(record)
        self.flush()

    def write(self, record: Record) -> None:
        """Write one record; it survives the death of this process, not yet a power cut."""
        with self._thread_lock:
            self._write(record)

    def flush(self) -> None:
        """Wait for the disk; everything written so far then survives a power cut."""
        os.fdatasync(self._file)

    def extend(
        self, records: Sequence[Record], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write many records and wait for the disk once.

        Args:
            progress: called with the numbers of written and of all records.
        """
        with self._thread_lock:
            for number, record in enumerate(records, start=1):
                self._write(record)
                if progress is not None:
                    progress(number, len(records))
        self.flush()

    def _write(self, record: Record) -> None:
        line = _line(record)
        before = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise PoolError(f"{self.path}: a record cannot be written ({error.strerror})") from None
        if written != len(line):
            os.ftruncate(self._file, before)
            raise PoolError(f"{self.path}: a record cannot be written whole; is the disk full?")

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# Left out where they say nothing, so that calls without them are written as they always were.
_OPTIONAL = ("cached_prompt_tokens", "reasoning_tokens", "thoughts")


def reply_row(reply: Reply) -> dict[str, Any]:
    """A reply as JSON values; `Reply(**row)` is its inverse."""
    row = dataclasses.asdict(reply)
    return {name: value for name, value in row.items() if value or name not in _OPTIONAL}


def _line(record: Record) -> bytes:
    body: dict[str, Any] = {
        "key": record.key,
        "request": record.request,
        "reply": reply_row(record.reply),
        "scope": record.scope,
        "origin": record.origin,
    }
    return json.dumps(body, sort_keys=True, ensure_ascii=True, allow_nan=False).encode() + b"\n"


_REPLY = TypeAdapter(Reply)
_AMOUNTS = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "retries", "cached_prompt_tokens", "reasoning_tokens")  # fmt: skip


def _parse(line: bytes) -> Record:
    """The record of a line.

    Raises: ValueError saying what is wrong with it.
    """
    try:
        body = json.loads(line)
        reply = _REPLY.validate_python(body["reply"])
        record = Record(body["request"], reply, body["scope"], body["origin"])
        intact = body["key"] == record.key
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise ValueError(
            "is damaged or of an older version (no record, or its hash is not that of its request)"
        )
    for name in _AMOUNTS:
        amount = getattr(record.reply, name)
        if not (math.isfinite(amount) and amount >= 0):
            raise ValueError(f"{name} is {amount}")
    return record
