"""Replies that real models gave once, as a pool: no server, no key, the same in every process.

A store is one compressed file of JSON lines, one a call. Unlike the log of a run (`records.py`), it is
keyed by candidate and normalised question, holds no request, and is meant to be committed.
"""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routerr1.errors import PoolError
from routerr1.files import atomic_write_bytes
from routerr1.jobs.rejected import Fault, Rejected
from routerr1.matching import normalise
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.pool.cards import first_problem
from routerr1.pool.pool_file import PoolFile
from routerr1.pool.pricing import usage_usd
from routerr1.pool.tally import FailureTally
from routerr1.types import Card, Question, Reply, Usage


class StoredReply(BaseModel):
    """One reply of the store.

    Attributes:
        latency_s: as it was when the call was recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    question: str
    text: str
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    latency_s: float = Field(ge=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Store:
    """Replies by candidate and normalised question."""

    path: Path
    replies: Mapping[tuple[str, str], StoredReply]

    def find(self, candidate: str, question: str) -> StoredReply | None:
        """The reply to this question, whatever its case, blanks, articles and punctuation."""
        return self.replies.get((candidate, normalise(question)))


def read_store(path: Path, max_rejected: float = 0.0) -> Store:
    """The store at `path`.

    Args:
        max_rejected: share of the lines that may be damaged; these are put aside.

    Raises: PoolError naming the file, and the line at fault.
    """
    replies: dict[tuple[str, str], StoredReply] = {}
    try:
        with gzip.open(path) as stream:
            lines = stream.readlines()
    except (OSError, EOFError) as error:
        raise PoolError(f"{path}: cannot be read as a store of replies ({error})") from None
    rejected = Rejected("replies", max_rejected, len(lines), error=PoolError)
    for number, line in enumerate(lines, start=1):
        try:
            row = StoredReply.model_validate_json(line)
        except ValidationError as error:
            rejected.add(
                Fault(f"{path}, line {number}", first_problem(error), line.decode(errors="replace"))
            )
        else:
            replies[row.candidate, normalise(row.question)] = row
    if not replies:
        raise PoolError(f"{path}: holds no recorded reply")
    return Store(path, replies)


def write_store(path: Path, rows: Iterable[StoredReply]) -> None:
    """Write a store; equal rows give equal bytes, in whatever order they come."""
    ordered = sorted(rows, key=lambda row: (row.question, row.candidate))
    text = "".join(json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in ordered)
    atomic_write_bytes(path, gzip.compress(text.encode(), compresslevel=9, mtime=0))


class RecordedPool(Pool):
    """A pool over a store.

    A question that was never put to a candidate gets a reply with failure `not_recorded`. Prices are the
    pool file's of today, so a changed price needs no new recording. When it is closed it logs which calls
    failed and why.

    Args:
        cards: shown in place of the file's.
    """

    def __init__(self, file: PoolFile, store: Store, cards: Sequence[Card] | None = None) -> None:
        self.store = store
        self.tally: FailureTally = FailureTally()
        self._priced = {card.name: card for card in file.cards}
        self.cards = tuple(cards) if cards is not None else file.cards
        held = {candidate for candidate, _ in store.replies}
        for name in self._priced.keys() - held:
            raise PoolError(f"{store.path}: holds no reply of candidate {name!r} of {file.path}")

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        if call.candidate not in self._priced:
            return Reply(call.candidate, "", failure="unknown_model")
        reply = self._reply(call.candidate, call.query)
        self.tally.add(call.candidate, reply)
        return reply

    async def aclose(self) -> None:
        """Log which calls failed and why."""
        self.tally.log_once(self.store.path)

    def _reply(self, name: str, query: str) -> Reply:
        found = self.store.find(name, query)
        if found is None:
            return Reply(
                name,
                "",
                failure="not_recorded",
                note=f"{self.store.path.name} holds no reply of {name} to this question",
            )
        usage = Usage(found.prompt_tokens, found.completion_tokens)
        return Reply(
            name,
            found.text,
            found.prompt_tokens,
            found.completion_tokens,
            usage_usd(self._priced[name], usage),
            found.latency_s,
            cached=True,
        )


def answerable(questions: Sequence[Question], pool: Pool) -> list[Question]:
    """The questions to which a recorded pool holds a reply of each of its candidates; all for other pools."""
    while isinstance(pool, PoolWrapper):
        pool = pool.inner
    if not isinstance(pool, RecordedPool):
        return list(questions)
    store, names = pool.store, [card.name for card in pool.cards]
    return [row for row in questions if all(store.find(name, row.question) for name in names)]
