"""The pool file: the candidates, their endpoints and their prices.

Every mistake in a pool file or its keys is found here, before any call.
"""

import json
import logging
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
)

from routerr1.errors import DataError, PoolError
from routerr1.files import read_yaml
from routerr1.pool import addresses
from routerr1.pool.base import Call
from routerr1.pool.cards import (
    Amount,
    CardRow,
    Name,
    first_problem,
    parse_entry,
    refuse_shared_names,
)
from routerr1.pool.servers import Servers
from routerr1.pool.wire import clean
from routerr1.types import Card

log = logging.getLogger(__name__)

# Names that servers have for the limit of a reply's tokens.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
_PRICES = (
    "prompt_usd_per_mtok",
    "completion_usd_per_mtok",
    "cached_prompt_usd_per_mtok",
    "reasoning_usd_per_mtok",
)
_LEAST_USD, _MOST_USD = 1e-3, 1e3  # per million tokens; 0 is a model of one's own
_MOST_REQUEST_USD = 1e3

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Variable = Annotated[str, AfterValidator(addresses.variable)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prices(_Section):
    """Source and date of the prices.

    Attributes:
        confirmed: names of candidates whose prices are meant, though hardly any model has such prices.
    """

    as_of: date
    source: str = Field(min_length=1)
    confirmed: tuple[str, ...] = ()


class Endpoint(_Section):
    """An OpenAI-compatible server, with its limits and retries.

    Attributes:
        key_env: name of the environment variable that holds the key; null where none is needed.
        max_concurrency: calls under way at once.
        total_s: time limit of one try.
        max_tries: of one call, the first included.
        backoff_s: upper bound of the first pause between tries; it doubles from try to try.
        max_wait_s: longest pause between tries; a longer Retry-After ends the tries of the candidate.
        breaker_failures: failures in a row after which a candidate is not called for `breaker_s`.
        cost: what a call costs: what the server says if it says so, or what the prices of the file make.
        headers: sent with every call; `$NAME` in a value is an environment variable.
        query: put behind the `?` of every address, likewise, e.g. Azure's `api-version`.
        proxy: address to go through, or `$NAME`; by default the environment's.
        trust_env: heed HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
        verify: file of the certificates (PEM) that are trusted, instead of the system's.
    """

    base_url: Annotated[str, AfterValidator(addresses.base_url)]
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

    headers: dict[str, str] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    proxy: Annotated[str, AfterValidator(addresses.proxy)] | None = None
    trust_env: bool = True
    verify: Path | None = None

    @field_validator("verify", mode="before")
    @classmethod
    def _checks_certificates(cls, verify: object) -> object:
        if isinstance(verify, bool):
            raise ValueError("must be a file of certificates (PEM); the check cannot be turned off")
        return verify

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            addresses.header(name, value)
        return headers

    @field_validator("query", mode="before")
    @classmethod
    def _written_out(cls, query: object) -> object:
        """YAML makes a date of Azure's versions."""
        if not isinstance(query, dict):
            return query
        return {name: str(each) if isinstance(each, date) else each for name, each in query.items()}

    @field_validator("query")
    @classmethod
    def _can_be_asked(cls, query: dict[str, str]) -> dict[str, str]:
        for name, value in query.items():
            addresses.parameter(name, value)
        return query


class CandidateRow(CardRow):
    """One candidate: what its card starts from, and how it is reached.

    Attributes:
        model: the provider's own id.
        context_window: tokens of prompt and reply together; more than the longest reply.
        max_reply_tokens: asked for in every call; null leaves it to the pool's parameters.
        fallback: name of the candidate that is asked when this one cannot answer.
        thoughts: whether what the model thinks is dropped from its replies or kept as a part of them.
        parameters: merged into the body of every call; null removes one.
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
    parameters: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _are_no_call(cls, parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in ("model", "messages"):
            if name in parameters:
                raise ValueError(f"{name} is no parameter; every call sets it itself")
        json.dumps(parameters, allow_nan=False)  # raises ValueError for a number that is not finite
        return parameters

    @property
    def reply_limits(self) -> tuple[int, ...]:
        """Limits of a reply's tokens that `parameters` set, under any of their names."""
        found = [self.parameters.get(name) for name in _LIMITS]
        return tuple(value for value in found if isinstance(value, int) and value > 0)


@dataclass(frozen=True, slots=True)
class PoolFile:
    """A pool file that holds together.

    Attributes:
        max_reply_tokens: of candidates that name none themselves.
        max_reply_bytes: of a whole HTTP reply; a longer one is not read to its end.
        servers: what `routerr1 pool up` starts on this machine; None where the servers run elsewhere.
        held_out: names of candidates that are kept from training.
    """

    path: Path
    prices: Prices
    endpoints: Mapping[str, Endpoint]
    candidates: tuple[CandidateRow, ...]
    max_reply_tokens: int
    max_reply_bytes: int = 1_000_000
    servers: Servers | None = None
    held_out: tuple[str, ...] = ()

    @property
    def cards(self) -> tuple[Card, ...]:
        """One card per candidate, with what the file holds; profiling adds measurements."""
        fields = set(CardRow.model_fields)
        return tuple(Card(**row.model_dump(include=fields)) for row in self.candidates)

    @property
    def odd_prices(self) -> tuple[str, ...]:
        """Prices that hardly any model has and that the file does not confirm, each with the likely slip."""
        confirmed = self.prices.confirmed
        return tuple(
            implausible_prices(row for row in self.candidates if row.name not in confirmed)
        )

    def joined(self, other: "PoolFile") -> "PoolFile":
        """The candidates and endpoints of both files.

        Raises: PoolError if both use a name for different things.
        """
        for name in self.endpoints.keys() & other.endpoints.keys():
            if self.endpoints[name] != other.endpoints[name]:
                raise PoolError(
                    f"{other.path}: endpoint {name!r} differs from that of {self.path}; rename it"
                )
        rows = (*self.candidates, *other.candidates)
        refuse_shared_names(rows, other.path)
        return replace(self, endpoints={**self.endpoints, **other.endpoints}, candidates=rows)

    def candidate(self, name: str) -> CandidateRow | None:
        """The candidate with this canonical name; None if there is none."""
        return next((row for row in self.candidates if row.name == name), None)

    def chain(self, name: str) -> Iterator[CandidateRow]:
        """The candidate of this name, its fallback, the fallback's fallback, and so on; never a circle."""
        row = self.candidate(name)
        while row is not None:
            yield row
            row = self.candidate(row.fallback) if row.fallback is not None else None

    def reply_tokens(self, row: CandidateRow) -> int:
        """The most tokens that a call of this candidate may be billed as replies."""
        return _replies_asked(row) * (_limit(row, self.max_reply_tokens) or row.context_window)

    def request(self, call: Call) -> dict[str, Any]:
        """The body of the call, as it is sent and as it is hashed.

        Raises: PoolError if there is no such candidate.
        """
        row = self.candidate(call.candidate)
        if row is None:
            raise PoolError(f"{self.path}: no candidate is named {call.candidate!r}")
        body = {
            "model": row.model,
            "messages": [{"role": "user", "content": clean(call.query)}],
            "max_tokens": row.max_reply_tokens or self.max_reply_tokens,
            "temperature": row.temperature,
            **row.parameters,
        }
        return {key: value for key, value in body.items() if value is not None}

    def keys(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The key of every endpoint in use; empty where none is needed.

        Raises: PoolError naming the file, the endpoint and the variable that is missing or unusable.
        """
        keys = {}
        for name in dict.fromkeys(row.endpoint for row in self.candidates):
            variable = self.endpoints[name].key_env
            try:
                keys[name] = addresses.key_of(variable, environ) if variable else ""
            except ValueError as error:
                raise PoolError(
                    f"{self.path}: endpoint {name!r} needs its key in {error}"
                ) from None
        return keys

    def access(
        self, keys: Mapping[str, str], environ: Mapping[str, str]
    ) -> dict[str, addresses.Access]:
        """How every endpoint in use is reached.

        Raises: PoolError naming the file, the endpoint and what of it cannot be used.
        """
        contexts: dict[Path | None, ssl.SSLContext] = {}
        found = {}
        for name, key in keys.items():
            endpoint = self.endpoints[name]
            try:
                if endpoint.verify not in contexts:
                    contexts[endpoint.verify] = addresses.trusted(endpoint.verify)
                found[name] = addresses.access(
                    endpoint.base_url,
                    key,
                    endpoint.headers,
                    endpoint.query,
                    endpoint.proxy,
                    contexts[endpoint.verify],
                    trust_env=endpoint.trust_env,
                    environ=environ,
                )
            except ValueError as error:
                raise PoolError(f"{self.path}: endpoint {name!r}: {error}") from None
        return found


class _Raw(_Section):
    prices: Prices
    endpoints: dict[str, Endpoint] = Field(min_length=1)
    candidates: list[dict[str, Any]] = Field(min_length=1)
    max_reply_bytes: int = Field(default=1_000_000, ge=1)
    servers: Servers | None = None
    held_out: tuple[str, ...] = ()


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
    _refuse_strangers(rows, raw, path)
    file = PoolFile(
        path,
        raw.prices,
        raw.endpoints,
        rows,
        max_reply_tokens,
        raw.max_reply_bytes,
        raw.servers,
        raw.held_out,
    )
    for problem in file.odd_prices:
        log.warning("%s: %s", path, problem)
    return file


def _refuse_strangers(rows: tuple[CandidateRow, ...], raw: _Raw, path: Path) -> None:
    """Held-out and confirmed names must be candidates, and servers endpoints."""
    names = {row.name for row in rows}
    for key, listed in (("held_out", raw.held_out), ("prices.confirmed", raw.prices.confirmed)):
        for name in listed:
            if name not in names:
                raise PoolError(f"{path}: {key}: {name!r} is no candidate of the file")
    for name in (*raw.servers.names, *raw.servers.elsewhere) if raw.servers else ():
        if name not in raw.endpoints:
            raise PoolError(
                f"{path}: servers: {name!r} is no endpoint of the file; add its address"
            )


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
        asked = _limit(row, max_reply_tokens)
        if asked is not None and row.context_window <= asked:
            raise PoolError(
                f"{path}: candidate {row.name!r}: context_window is {row.context_window}, and replies of "
                f"{asked} tokens leave no room for a question in it; set a smaller max_reply_tokens"
            )


def _limit(row: CandidateRow, max_reply_tokens: int) -> int | None:
    """The most tokens of one reply; None where the call asks for no limit."""
    if row.reply_limits:
        return max(row.reply_limits)
    limited = "max_tokens" not in row.parameters
    return (row.max_reply_tokens or max_reply_tokens) if limited else None


def _replies_asked(row: CandidateRow) -> int:
    """Replies that a call asks for and that are billed, though one is read."""
    number = row.parameters.get("n")
    return number if isinstance(number, int) and number > 1 else 1


def implausible_prices(rows: Iterable[CandidateRow]) -> Iterator[str]:
    """Prices that hardly any model has, with the likely slip."""
    for row in rows:
        for key in _PRICES:
            price = getattr(row, key)
            if not price or _LEAST_USD <= price <= _MOST_USD:
                continue
            per = "per token" if price < _LEAST_USD else "per million tokens, times 10^6"
            factor = 1e6 if price < _LEAST_USD else 1e-6
            yield (
                f"candidate {row.name!r}: {key} is {price:g} USD per million tokens; if that is the price "
                f"{per}, write {price * factor:g}"
            )
        if row.request_usd > _MOST_REQUEST_USD:
            yield (
                f"candidate {row.name!r}: request_usd is {row.request_usd:g} USD for each call; if that is "
                f"the price of a million calls, write {row.request_usd * 1e-6:g}"
            )
