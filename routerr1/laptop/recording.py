"""Put every question to every candidate, once, and pack the replies into a store that is committed."""

import asyncio
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil

from routerr1.errors import PoolError, ungrouped
from routerr1.files import digest, write_json
from routerr1.matching import normalise
from routerr1.pool.base import Call
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import PoolFile
from routerr1.pool.provenance import (
    Conditions,
    Earlier,
    Provenance,
    provenance_file,
    read_provenance,
)
from routerr1.pool.recorded import Store, StoredReply, read_store, write_store
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
    known: Store | None = None,
    at_once: int | None = None,
    progress: Callable[[int, int], None],
) -> Recorded:
    """Ask every candidate of `file` every question and append each reply to `log` at once.

    Calls whose reply is in `log` or in `known` are left out, so the same call continues a stopped run. A failed call
    is not written down. Every server works through `questions` in order, a chunk at a time, and one
    of its candidates after the other: the beginning that all prompts of a candidate share is then
    computed once for each slot of the server.

    Args:
        at_once: calls to a server at a time; None: one for each of its slots. What is computed beside a
            call can change a close choice of a token, so 1 makes replies repeatable.

    Raises: LockHeld if another process records into `log`; PoolError if `log` is damaged, or if a
        candidate fails `FAILURES` times in a row.
    """
    keys = {record.key for record in read_records(log)} if log.exists() else set()

    def is_there(name: str, question: str) -> bool:
        stored = known is not None and known.find(name, question) is not None
        return stored or request_key(file.request(Call(name, question))) in keys

    total = len(file.candidates) * len(questions)
    counts: Counter[bool] = Counter()
    in_a_row: Counter[str] = Counter()
    there = sum(is_there(row.name, question) for row in file.candidates for question in questions)
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
                        if not is_there(name, question)
                    ]
                    async with asyncio.TaskGroup() as group:
                        for _ in range(at_once or _calls_at_once(file, server)):
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


def forms_digest(file: PoolFile) -> str:
    """Digest of the candidates' requests, the desks and their facts; prices and addresses play no part."""
    desks = {
        name: [
            server.model_dump(mode="json", exclude={"facts"}),
            digest(file.path.parent / server.facts),
        ]
        for name, server in (file.servers.desks if file.servers else {}).items()
    }
    requests = [
        [row.name, row.endpoint, file.request(Call(row.name, ""))] for row in file.candidates
    ]
    text = json.dumps([requests, desks], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def stored_before(file: PoolFile, out: Path) -> Store | None:
    """The store that `out` already holds; None if there is none.

    Raises: PoolError if it was recorded from candidates of another form or other weights.
    """
    if not out.exists():
        return None
    found = read_provenance(out)
    if found is None:
        raise PoolError(f"{provenance_file(out)}: not found, and it says how {out} was recorded")
    if (found.forms, _weights(found.models)) != (forms_digest(file), _weights(_models(file))):
        raise PoolError(
            f"{out}: was recorded with other desks, requests or weights than {file.path} names; "
            "write to another file"
        )
    return read_store(out)


def _models(file: PoolFile) -> dict[str, dict[str, str]]:
    """What the pool file says of the models behind its desks and candidates."""
    if file.servers is None:
        return {}
    described = {
        name: {"hub": server.hub, "file": server.file, "sha256": server.sha256}
        for name, server in file.servers.models.items()
    }
    return described | {name: {"model": id_} for name, id_ in file.servers.elsewhere.items()}


def _weights(models: Mapping[str, Mapping[str, str]]) -> dict[str, str | None]:
    return {name: row.get("sha256", row.get("model")) for name, row in models.items()}


def server_named(file: PoolFile, server: str | None) -> str:
    """Name and version of the software that computes the replies.

    Args:
        server: as the caller knows it; None: the llama.cpp that `pool up` starts.

    Raises: PoolError if it is not known.
    """
    if server is not None:
        return server
    ours = file.servers is not None and file.servers.models and not file.servers.elsewhere
    if not ours or find_spec("xllamacpp") is None:
        raise PoolError(
            f"{file.path}: --server: name the software that answers, and its version; the provenance of the "
            "replies says it"
        )
    return f"llama.cpp through xllamacpp {version('xllamacpp')}"


def _conditions(
    now: Conditions, out: Path, known: Store | None, added: int
) -> tuple[Conditions, tuple[Earlier, ...]]:
    """Of the last replies, and of those before.

    Args:
        now: of the replies that are added.
        added: how many these are; without any, the store's own conditions stay.
    """
    before = read_provenance(out) if known is not None else None
    if before is None:
        return now, ()
    if not added:
        return before, before.earlier
    if (before.server, before.machine) == (now.server, now.machine):
        return now, before.earlier
    counted = sum(before.replies.values()) - sum(each.count for each in before.earlier)
    last = {name: getattr(before, name) for name in Conditions.model_fields}
    return now, (*before.earlier, Earlier(**last, count=counted))


def pack(
    file: PoolFile,
    log: Path,
    questions: Sequence[str],
    out: Path,
    *,
    known: Store | None = None,
    server: str,
    latency: str,
    today: date,
) -> Provenance:
    """Write the replies that `known` and `log` hold to `questions` as a store, and its provenance beside it.

    Conditions of a recording on another machine or server are kept beside those of the added replies.

    Args:
        server: see `server_named`.
        latency: one sentence on the conditions of the recording.

    Raises: PoolError if `log` is damaged or a candidate has no reply.
    """
    found = {record.key: record.reply for record in read_records(log)} if log.exists() else {}

    def stored(name: str, question: str) -> StoredReply | None:
        before = known.find(name, question) if known is not None else None
        reply = found.get(request_key(file.request(Call(name, question))))
        if before is not None or reply is None:
            return before
        return StoredReply(
            candidate=name,
            question=question,
            text=reply.text,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            latency_s=round(reply.latency_s, 3),
        )

    each = [stored(row.name, question) for row in file.candidates for question in questions]
    rows = [row for row in each if row is not None]
    counts = Counter(row.candidate for row in rows)
    for candidate in file.candidates:
        if not counts[candidate.name]:
            raise PoolError(f"{log}: holds no reply of candidate {candidate.name!r}; record on")
    before = known.replies if known is not None else {}
    added = sum((row.candidate, normalise(row.question)) not in before for row in rows)
    conditions, earlier = _conditions(
        Conditions(server=server, machine=machine(), recorded=today, latency=latency),
        out,
        known,
        added,
    )
    write_store(out, rows)
    whole = Counter(normalise(row.question) for row in rows)
    provenance = Provenance(
        **{name: getattr(conditions, name) for name in Conditions.model_fields},
        forms=forms_digest(file),
        models=_models(file),
        parameters={
            "temperature": max(row.temperature for row in file.candidates),
            "max_tokens": max(file.reply_tokens(row) for row in file.candidates),
        },
        replies=dict(sorted(counts.items())),
        questions=sum(count == len(file.candidates) for count in whole.values()),
        earlier=earlier,
    )
    write_json(provenance_file(out), provenance.model_dump(mode="json"))
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
