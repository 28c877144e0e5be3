"""The append-only store of calls: one JSON line per call, keyed by a hash of what was asked.

A line is written with one system call and flushed to the disk before the call counts as recorded, so a
crash loses at most the call it interrupted. An unfinished last line is dropped when the store is next
opened for writing; a damaged line anywhere else is an error, never skipped. The file only grows, so DVC
can version it like any other output.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from routerr1.errors import LockHeld, PoolError
from routerr1.pool.interface import Pool
from routerr1.types import Reply

Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded call.

    Attributes:
        request: model, messages and sampling parameters, as JSON values; never a key or a header.
        scope: the trajectory it was made for (`scope.asking_for`); None if nobody said.
        origin: where it came from if it was imported; None for a call made here.
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


def plain_request(name: str, query: str) -> dict[str, Any]:
    """The request of a pool that has no sampling parameters of its own."""
    return {"model": name, "messages": [{"role": "user", "content": query}]}


def question_of(request: Request) -> str:
    """The text of the last user message; empty if there is none."""
    users = [m["content"] for m in request.get("messages", ()) if m.get("role") == "user"]
    return str(users[-1]) if users else ""


def read_records(path: Path) -> Iterator[Record]:
    """Every finished record in `path`, oldest first; an unfinished last line is left out.

    Raises: PoolError naming the file and line of a damaged record, or that there is no such file.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror})") from None
    with stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            yield _parse(line, path, number)


Describe = Callable[[str, str], dict[str, Any]]
"""(name, query) -> the request as it is sent: model, messages, sampling parameters."""


@runtime_checkable
class Describing(Protocol):
    """A pool that knows how its requests are sent."""

    def request(self, name: str, query: str) -> dict[str, Any]:
        """Model, messages and sampling parameters of a call."""
        ...


def describe_of(pool: Pool) -> Describe:
    """The pool's own `request`, or `plain_request` where it has none."""
    return pool.request if isinstance(pool, Describing) else plain_request


class RecordStore:
    """The writing end; one process at a time.

    Raises: LockHeld if another process writes to `path`; PoolError if a record cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # Released by the system when the process dies, however it dies.
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
        """Write one record and wait until the disk has it; safe to call from several threads."""
        self.write(record)
        self.flush()

    def write(self, record: Record) -> None:
        """Write one record, so that it survives the death of this process."""
        with self._thread_lock:
            self._write(record)

    def flush(self) -> None:
        """Wait until the disk has all that is written, so that it survives a power cut."""
        os.fdatasync(self._file)

    def extend(
        self, records: Sequence[Record], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write many records and wait for the disk once; `progress` is told how many of how many are written."""
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
            raise PoolError(f"{self.path}: a record could not be written whole; is the disk full?")

    def close(self) -> None:
        """Let others write."""
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


def _parse(line: bytes, path: Path, number: int) -> Record:
    try:
        body = json.loads(line)
        record = Record(body["request"], Reply(**body["reply"]), body["scope"], body["origin"])
        intact = body["key"] == record.key
    except (ValueError, TypeError, KeyError, AttributeError):
        intact = False
    if not intact:
        raise PoolError(
            f"{path}, line {number}: is damaged (not a record, or its hash does not fit its request)"
        )
    return record
