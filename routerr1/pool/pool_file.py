"""The pool file: which candidates there are, where they answer, and what they cost.

Everything that can be wrong with a pool file or its keys is found here, before any call is made.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from routerr1.errors import DataError, PoolError
from routerr1.files import read_yaml
from routerr1.pool.cards import (
    Amount,
    CardRow,
    Name,
    first_problem,
    parse_entry,
    refuse_shared_names,
)
from routerr1.types import Card

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must name an environment variable: letters, digits and _")
    return name


Variable = Annotated[str, AfterValidator(_variable)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prices(_Section):
    """Where the prices of the file come from, and of which day they are."""

    as_of: date
    source: str = Field(min_length=1)


class Endpoint(_Section):
    """An OpenAI-compatible server, and how patient to be with it.

    Attributes:
        key_env: name of the environment variable that holds the key; null where none is needed.
        max_concurrency: calls under way at once.
        total_s: longest time of one try; a try that takes longer is given up.
        max_tries: of one call, the first included.
        backoff_s: upper bound of the first pause between tries; it doubles from try to try.
        max_wait_s: a server that asks for a longer pause (Retry-After) is given up instead.
        breaker_failures: failures in a row after which a candidate is left alone for `breaker_s`.
        cost: what a call costs: what the server says if it says so, or what the prices of the file make.
    """

    base_url: str
    key_env: Variable | None = None
    max_concurrency: int = Field(default=32, ge=1)
    connect_s: Seconds = 5.0
    read_s: Seconds = 60.0
    total_s: Seconds = 120.0
    max_tries: int = Field(default=4, ge=1)
    backoff_s: Seconds = 0.5
    max_wait_s: Seconds = 30.0
    breaker_failures: int = Field(default=10, ge=1)
    breaker_s: Seconds = 30.0
    cost: Literal["reported", "prices"] = "reported"

    @field_validator("base_url")
    @classmethod
    def _is_plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https address")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "must hold no key or password; name an environment variable in key_env"
            )
        return url


class CandidateRow(CardRow):
    """One candidate: what its card starts from, and how it is reached.

    Attributes:
        model: the provider's own id.
        context_window: tokens of prompt and reply together; more than the longest reply.
        max_reply_tokens: asked for in every call; null leaves it to the pool's parameters.
        fallback: name of the candidate that is asked when this one cannot answer.
        thoughts: whether what the model thinks is dropped from its replies or kept as a part of them.
    """

    endpoint: str
    model: str = Field(min_length=1)
    prompt_usd_per_mtok: Amount
    completion_usd_per_mtok: Amount
    context_window: int = Field(ge=1)
    max_reply_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    fallback: Name | None = None
    thoughts: Literal["drop", "keep"] = "drop"


@dataclass(frozen=True, slots=True)
class PoolFile:
    """A pool file that holds together.

    Attributes:
        max_reply_tokens: of candidates that name none themselves.
        max_reply_bytes: of a whole HTTP reply; a longer one is not read to its end.
    """

    path: Path
    prices: Prices
    endpoints: Mapping[str, Endpoint]
    candidates: tuple[CandidateRow, ...]
    max_reply_tokens: int
    max_reply_bytes: int = 1_000_000

    @property
    def cards(self) -> tuple[Card, ...]:
        """What the file says of each candidate; profiling adds the rest."""
        fields = set(CardRow.model_fields)
        return tuple(Card(**row.model_dump(include=fields)) for row in self.candidates)

    def joined(self, other: "PoolFile") -> "PoolFile":
        """The candidates and endpoints of both files.

        Raises: PoolError if both use a name for different things.
        """
        for name in self.endpoints.keys() & other.endpoints.keys():
            if self.endpoints[name] != other.endpoints[name]:
                raise PoolError(
                    f"{other.path}: endpoint {name!r} is another than that of {self.path}; rename it"
                )
        rows = (*self.candidates, *other.candidates)
        refuse_shared_names(rows, other.path)
        return replace(self, endpoints={**self.endpoints, **other.endpoints}, candidates=rows)

    def candidate(self, name: str) -> CandidateRow | None:
        """By canonical name."""
        return next((row for row in self.candidates if row.name == name), None)

    def chain(self, name: str) -> Iterator[CandidateRow]:
        """The candidate of this name, its fallback, that one's, and so on; no circle gets past reading."""
        row = self.candidate(name)
        while row is not None:
            yield row
            row = self.candidate(row.fallback) if row.fallback is not None else None

    def reply_tokens(self, row: CandidateRow) -> int:
        """The most tokens a reply of this candidate may have."""
        return row.max_reply_tokens or self.max_reply_tokens

    def request(self, name: str, query: str) -> dict[str, Any]:
        """The body of the call, as it is sent and as it is hashed.

        Raises: PoolError if there is no such candidate.
        """
        row = self.candidate(name)
        if row is None:
            raise PoolError(f"{self.path}: no candidate is named {name!r}")
        return {
            "model": row.model,
            "messages": [{"role": "user", "content": query}],
            "max_tokens": self.reply_tokens(row),
            "temperature": row.temperature,
        }

    def keys(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The key of every endpoint in use; empty where none is needed.

        Raises: PoolError naming the file, the endpoint and the missing variable.
        """
        keys = {}
        for name in dict.fromkeys(row.endpoint for row in self.candidates):
            variable = self.endpoints[name].key_env
            if variable is not None and not environ.get(variable, "").strip():
                raise PoolError(
                    f"{self.path}: endpoint {name!r} needs its key in the environment variable "
                    f"{variable}, which is not set"
                )
            keys[name] = environ[variable].strip() if variable else ""
        return keys


class _Raw(_Section):
    prices: Prices
    endpoints: dict[str, Endpoint] = Field(min_length=1)
    candidates: list[dict[str, Any]] = Field(min_length=1)
    max_reply_bytes: int = Field(default=1_000_000, ge=1)


def read_pool_file(path: Path, *, max_reply_tokens: int = 600) -> PoolFile:
    """Read and check a pool file.

    Raises: PoolError naming the file and the line, candidate, endpoint or key at fault.
    """
    try:
        content = read_yaml(path)
    except DataError as error:
        raise PoolError(str(error)) from None
    try:
        raw = _Raw.model_validate(content)
    except ValidationError as error:
        raise PoolError(f"{path}: {first_problem(error)}") from None
    rows = tuple(
        parse_entry(CandidateRow, row, path, place) for place, row in enumerate(raw.candidates)
    )
    refuse_shared_names(rows, path)
    _refuse_lost_references(rows, raw.endpoints, path)
    _refuse_cycles({row.name: row.fallback for row in rows}, path)
    _refuse_small_windows(rows, max_reply_tokens, path)
    return PoolFile(path, raw.prices, raw.endpoints, rows, max_reply_tokens, raw.max_reply_bytes)


def _refuse_lost_references(
    rows: tuple[CandidateRow, ...], endpoints: Mapping[str, Endpoint], path: Path
) -> None:
    names = {row.name for row in rows}
    for row in rows:
        if row.endpoint not in endpoints:
            raise PoolError(
                f"{path}: candidate {row.name!r}: endpoint {row.endpoint!r} is not among those of "
                f"the file ({', '.join(endpoints)})"
            )
        if row.fallback is not None and row.fallback not in names:
            raise PoolError(
                f"{path}: candidate {row.name!r}: fallback {row.fallback!r} is no candidate of the file"
            )


def _refuse_cycles(fallbacks: Mapping[str, str | None], path: Path) -> None:
    for start in fallbacks:
        way = [start]
        while (following := fallbacks[way[-1]]) is not None:
            if following in way:
                cycle = " -> ".join([*way[way.index(following) :], following])
                raise PoolError(
                    f"{path}: candidate {start!r}: its fallbacks run in a circle: {cycle}"
                )
            way.append(following)


def _refuse_small_windows(
    rows: tuple[CandidateRow, ...], max_reply_tokens: int, path: Path
) -> None:
    for row in rows:
        asked = row.max_reply_tokens or max_reply_tokens
        if row.context_window <= asked:
            raise PoolError(
                f"{path}: candidate {row.name!r}: context_window is {row.context_window}, and replies of "
                f"{asked} tokens leave no room for a question in it; set a smaller max_reply_tokens"
            )
