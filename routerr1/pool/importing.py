"""Import logs of other programs into a store of recorded calls."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from routerr1.data.sources import Raw, read_rows
from routerr1.data.text import is_missing
from routerr1.errors import DataError, PoolError
from routerr1.jobs.rejected import Fault, Rejected
from routerr1.pool.base import Call
from routerr1.pool.cards import first_problem
from routerr1.pool.pool_file import PoolFile
from routerr1.pool.pricing import is_free, usage_usd
from routerr1.pool.records import Record, RecordStore, read_records
from routerr1.pool.thoughts import split_thoughts
from routerr1.pool.usage import Reported, estimated
from routerr1.types import Card, Reply

Count = Annotated[int, Field(ge=0, le=10**8)]


class LogRow(BaseModel):
    """One question put to one model. `response` is null where a source published scores only.

    In CSV and TSV an empty cell, or a word for a missing value, is null.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    query_id: str
    query: str = Field(min_length=1)
    model: str
    response: str | None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @field_validator("prompt_tokens", "completion_tokens", "cost_usd", mode="before")
    @classmethod
    def _gaps(cls, value: object) -> object:
        """A table has nan or an empty cell where a number is missing."""
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, str):
            return None if not value.strip() or is_missing(value) else value.strip()
        return value

    @field_validator("response", mode="before")
    @classmethod
    def _nothing_said(cls, value: object) -> object:
        return None if isinstance(value, float) and math.isnan(value) else value


class Imported(BaseModel):
    """What an import did, in rows."""

    added: int = 0
    already_there: int = 0
    without_text: int = 0
    rejected: int = 0


def import_log(
    log: Path,
    store: Path,
    file: PoolFile,
    *,
    max_rejected: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Write the rows of a log, in any form that `read_rows` takes, to `store` as calls of the candidates of `file`.

    A row belongs to the candidate with the same `model`. Its request is the one that `file` sends
    today, because such logs hold no sampling parameters; `origin` names the source. Token counts that
    are missing, or 0 beside a text, are estimated by length, and costs by the prices of `file`.
    Thoughts in a response are treated as in a reply of the candidate. Rows that the store already holds
    are skipped, so an import can be repeated.

    Args:
        max_rejected: share of the rows that may be malformed or of a model that the pool file does not
            have; these are put aside.

    Raises: PoolError naming the line of a row that is one too many of these, or that the log cannot be
        parsed or holds no row; then nothing was added.
    """
    candidates = {row.model: card for row, card in zip(file.candidates, file.cards, strict=True)}
    raws = _raw_rows(log)
    rejected = Rejected("import", max_rejected, len(raws), remedy=f"correct {log}", error=PoolError)
    known = {(r.key, r.origin) for r in read_records(store)} if store.exists() else set()
    done = Imported()
    records: list[Record] = []
    for raw in raws:
        try:
            row = _row(raw)
            if row.model not in candidates:
                raise ValueError(
                    f"{file.path} has no candidate with model {row.model!r} "
                    f"(it has: {', '.join(candidates)})"
                )
        except ValueError as error:
            why = first_problem(error) if isinstance(error, ValidationError) else str(error)
            rejected.add(Fault(f"{log}, line {raw.line}", why, raw.values))
            continue
        if row.response is None:
            done.without_text += 1
            continue
        record = _record(row, candidates[row.model], file, log)
        if (record.key, record.origin) in known:
            done.already_there += 1
            continue
        known.add((record.key, record.origin))
        records.append(record)
    with RecordStore(store) as opened:
        opened.extend(records, progress)
    done.added, done.rejected = len(records), rejected.count
    return done


def _record(row: LogRow, card: Card, file: PoolFile, log: Path) -> Record:
    candidate = file.candidate(card.name)
    assert candidate is not None  # the card is made of it
    text, thoughts = row.response or "", ""
    if candidate.thoughts == "drop":
        said, thoughts = split_thoughts(text)
        text, thoughts = (said, thoughts) if said.strip() else (text, "")
    # An answer that seems to cost nothing would win every comparison of costs.
    answered, free = bool(text.strip()), is_free(card)
    given = {
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cost_usd": row.cost_usd,
    }
    unknown = [
        name
        for name, value in given.items()
        if value is None or (value == 0 and answered and not (free and name == "cost_usd"))
    ]
    reported = Reported(
        None if "prompt_tokens" in unknown else row.prompt_tokens,
        None if "completion_tokens" in unknown else row.completion_tokens,
    )
    usage = reported.whole or estimated(reported, row.query, text, thoughts)[0]
    cost = usage_usd(card, usage) if "cost_usd" in unknown else row.cost_usd
    guessed = f"; estimated: {', '.join(unknown)}" if unknown else ""
    reply = Reply(
        card.name,
        text,
        usage.prompt_tokens,
        usage.completion_tokens,
        cost or 0.0,
        failure=None if text.strip() else "unavailable",
        note=f"imported; the log does not tell latency_s{guessed}",
        reasoning_tokens=usage.reasoning_tokens,
        thoughts=thoughts,
    )
    return Record(
        file.request(Call(card.name, row.query)), reply, origin=f"{log.name}: {row.query_id}"
    )


def _raw_rows(log: Path) -> list[Raw]:
    columns = ("query", "model", "response")
    try:
        rows = list(read_rows(log, columns, only=tuple(LogRow.model_fields)))
    except DataError as error:
        raise PoolError(str(error)) from None
    if log.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        return [Raw(row.line, row.values and _without_gaps(row.values)) for row in rows]
    return rows


def _without_gaps(values: Mapping[str, str]) -> Mapping[str, str | None]:
    """A row of CSV or TSV, where every cell is text, also that of a missing response."""
    said = values.get("response", "")
    return {**values, "response": None} if not said.strip() or is_missing(said) else values


def _row(raw: Raw) -> LogRow:
    """Raises: ValueError with the reason."""
    if raw.values is None:
        raise ValueError("is longer than a megabyte")
    return LogRow.model_validate(raw.values)
