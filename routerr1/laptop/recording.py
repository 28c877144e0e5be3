"""Put every question to every candidate, once, and pack the replies into a store that is committed."""

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil
from pydantic import BaseModel

from routerr1.errors import PoolError, ungrouped
from routerr1.files import digest, write_json
from routerr1.pool.base import Call
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import PoolFile
from routerr1.pool.recorded import StoredReply, write_store
from routerr1.pool.records import Record, RecordStore, read_records, request_key


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one run of the recorder did."""

    asked: int
    failed: int
    there: int


CHUNK = 65  # questions put to one candidate before its server turns to the next
FAILURES = 20  # of one candidate in a row, after which recording stops


async def record(
    file: PoolFile,
    log: Path,
    questions: Sequence[str],
    *,
    progress: Callable[[int, int], None],
) -> Recorded:
    """Ask every candidate of `file` every question and append each reply to `log` at once.

    Calls whose reply is in `log` are left out, so the same call continues a stopped run. A failed call
    is not written down. Every server works through `questions` in order, a chunk at a time, and one
    of its candidates after the other: the beginning that all prompts of a candidate share is then
    computed once for each slot of the server.

    Raises: LockHeld if another process records into `log`; PoolError if `log` is damaged, or if a
        candidate fails `FAILURES` times in a row.
    """
    done = {record.key for record in read_records(log)} if log.exists() else set()
    total = len(file.candidates) * len(questions)
    counts: Counter[bool] = Counter()
    in_a_row: Counter[str] = Counter()
    there = sum(
        request_key(file.request(Call(row.name, question))) in done
        for row in file.candidates
        for question in questions
    )
    progress(there, total)
    pool = HttpPool(file, file.keys({}), max_concurrency=max(total, 1))
    with RecordStore(log) as store:

        async def work(name: str, left: list[str]) -> None:
            while left:
                question = left.pop(0)
                reply = await pool.ask(Call(name, question))
                counts[reply.failure is None] += 1
                if reply.failure is not None:
                    in_a_row[name] += 1
                    if in_a_row[name] == FAILURES:
                        raise PoolError(
                            f"{file.path}: candidate {name!r} fails {FAILURES} times in a row "
                            f"({reply.note or reply.failure}); are its servers up?"
                        )
                else:
                    in_a_row[name] = 0
                    await asyncio.to_thread(
                        store.append, Record(file.request(Call(name, question)), reply)
                    )
                progress(there + counts.total(), total)

        async def serve(server: str, names: Sequence[str]) -> None:
            for start in range(0, len(questions), CHUNK):
                for name in names:
                    left = [
                        question
                        for question in questions[start : start + CHUNK]
                        if request_key(file.request(Call(name, question))) not in done
                    ]
                    async with asyncio.TaskGroup() as group:
                        for _ in range(_calls_at_once(file, server)):
                            group.create_task(work(name, left))

        try:
            with ungrouped():
                async with asyncio.TaskGroup() as group:
                    for server, names in candidates_by_server(file).items():
                        group.create_task(serve(server, names))
        finally:
            await pool.aclose()
    return Recorded(counts.total(), counts[False], there)


def candidates_by_server(file: PoolFile) -> dict[str, list[str]]:
    """The candidates that each server answers for; a desk belongs to the server of its model."""
    found: dict[str, list[str]] = {}
    for row in file.candidates:
        desks = file.servers.desks.get(row.endpoint) if file.servers else None
        server = desks.desks[row.model].model if desks else row.endpoint
        found.setdefault(server, []).append(row.name)
    return found


def _calls_at_once(file: PoolFile, server: str) -> int:
    """The slots of a server; the limit of an endpoint where no server is described."""
    described = file.servers.models.get(server) if file.servers else None
    return described.slots if described else file.endpoints[server].max_concurrency


class Provenance(BaseModel):
    """Where the replies of a store come from; written beside it as JSON.

    Attributes:
        pool_file: its digest, so that a store can be told to be of another file.
        models: server name -> hub repository, file and digest of the weights.
        server: name and version of the software that computed the replies.
        parameters: of every request.
        machine: CPU, cores and memory.
        recorded: the last day of recording.
        replies: candidate -> number of replies.
        questions: distinct questions with a reply of every candidate.
        latency: how the latencies came about.
    """

    pool_file: str
    models: dict[str, dict[str, str]]
    server: str
    parameters: dict[str, int | float]
    machine: str
    recorded: date
    replies: dict[str, int]
    questions: int
    latency: str


def pack(
    file: PoolFile, log: Path, questions: Sequence[str], out: Path, *, latency: str, today: date
) -> Provenance:
    """Write the replies that `log` holds to `questions` as a store, and its provenance beside it.

    Args:
        latency: one sentence on the conditions of the recording.

    Raises: PoolError if `log` is damaged, holds no reply of a candidate, or cannot be read.
    """
    found = {record.key: record.reply for record in read_records(log)}
    rows = [
        StoredReply(
            candidate=row.name,
            question=question,
            text=reply.text,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            latency_s=round(reply.latency_s, 3),
        )
        for row in file.candidates
        for question in questions
        if (reply := found.get(request_key(file.request(Call(row.name, question))))) is not None
    ]
    counts = Counter(row.candidate for row in rows)
    for candidate in file.candidates:
        if not counts[candidate.name]:
            raise PoolError(f"{log}: holds no reply of candidate {candidate.name!r}; record on")
    write_store(out, rows)
    whole = Counter(row.question for row in rows)
    provenance = Provenance(
        pool_file=digest(file.path),
        models={
            name: {"hub": server.hub, "file": server.file, "sha256": server.sha256}
            for name, server in (file.servers.models if file.servers else {}).items()
        },
        server=f"llama.cpp through xllamacpp {version('xllamacpp')}",
        parameters={
            "temperature": max(row.temperature for row in file.candidates),
            "max_tokens": max(file.reply_tokens(row) for row in file.candidates),
        },
        machine=machine(),
        recorded=today,
        replies=dict(sorted(counts.items())),
        questions=sum(count == len(file.candidates) for count in whole.values()),
        latency=latency,
    )
    write_json(
        out.with_suffix("").with_suffix(".provenance.json"), provenance.model_dump(mode="json")
    )
    return provenance


def machine() -> str:
    """CPU, logical cores and memory of this machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
    )
    memory = psutil.virtual_memory().total / 2**30
    return f"{name or platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB"
