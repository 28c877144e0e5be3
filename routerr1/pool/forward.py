"""A client's own request on its way to a candidate: sent with its messages, passed back but for keys."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import httpx2
from openai import APIConnectionError, APITimeoutError
from pydantic import JsonValue

from routerr1.pool.attempts import Completion, read_forwarded
from routerr1.pool.base import Call
from routerr1.pool.failures import (
    TryError,
    failure_of,
    retry_after_s,
    transport_failure,
    words_of,
)
from routerr1.pool.keyless import KeylessEvents, without_keys
from routerr1.pool.pool_file import CandidateRow, PoolFile
from routerr1.pool.wire import parse_body
from routerr1.types import Reply

_LIMITS = ("max_tokens", "max_completion_tokens")
_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint as requests reach it; the headers hold its key."""

    http: httpx2.AsyncClient
    url: str
    headers: Mapping[str, str]
    timeout: httpx2.Timeout


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What came of a forwarded request.

    Attributes:
        reply: the bill, and why there is no reply if there is none.
        content: the whole body without keys of the pool; empty for a stream, and for a body that is no chat
            completion of OpenAI's form.
        emitted: whether a part of a stream was passed on.
        status: of the last response; 0 without one.
    """

    reply: Reply
    content: bytes = b""
    emitted: bool = False
    status: int = 0


class Passing:
    """One request while it is tried.

    Args:
        secrets: keys and headers that a server may send back; they are not passed on.
    """

    def __init__(
        self,
        body: Mapping[str, JsonValue],
        emit: Callable[[bytes], None] | None,
        secrets: Sequence[str],
    ) -> None:
        self._body = body
        self._emit = emit
        self._secrets = [secret for secret in secrets if secret]
        self.content = b""
        self.emitted = False
        self.status = 0

    async def send(
        self,
        target: Target,
        file: PoolFile,
        row: CandidateRow,
        query: str,
        total_s: float,
    ) -> Completion:
        """Make one try.

        Raises: TryError; it is not to be retried if a part of a stream is passed on already.
        """
        if self.emitted:
            raise TryError("the stream broke off before its end", ill=False)
        body = forwarded_body(self._body, file, row, stream=self._emit is not None)
        events = KeylessEvents(self._secrets)

        def read(event: bytes) -> None:
            self._pass_on(events.more(event))

        try:
            content, headers = await exchanged(
                target, body, total_s, None if self._emit is None else read, self._answered
            )
        except TryError as failed:
            failed.retry = failed.retry and not self.emitted
            raise
        completion = read_forwarded(content, query, headers)
        if self._emit is None:
            self.content = self._keyless(content)
        else:
            self._pass_on(events.rest())
        return completion

    def _keyless(self, content: bytes) -> bytes:
        body = parse_body(content)
        if not isinstance(body, Mapping) or not isinstance(body.get("choices"), list):
            return b""
        return json.dumps(without_keys(body, self._secrets)).encode()

    def _answered(self, status: int) -> None:
        self.status = status

    def _pass_on(self, events: Iterable[bytes]) -> None:
        assert self._emit is not None
        for event in events:
            self.emitted = True
            self._emit(event)


async def exchanged(
    target: Target,
    body: Mapping[str, JsonValue],
    total_s: float,
    emit: Callable[[bytes], None] | None,
    answered: Callable[[int], None] = lambda _: None,
) -> tuple[bytes, Mapping[str, str]]:
    """One request and the whole body of its response, with the headers.

    Args:
        emit: called with the JSON of each event of a stream, when it arrives; None for a body without events.
        answered: called with the status of the response.

    Raises: TryError if there is no whole body, or another status than 200.
    """
    request = target.http.build_request(
        "POST", target.url, json=body, headers=target.headers, timeout=target.timeout
    )
    try:
        async with asyncio.timeout(total_s):
            response = await target.http.send(request, stream=True)
            try:
                answered(response.status_code)
                if response.status_code != httpx2.codes.OK:
                    raise _refused(response, await response.aread())
                content = await (response.aread() if emit is None else _streamed(response, emit))
                return content, response.headers
            finally:
                await response.aclose()
    except TimeoutError:
        raise TryError(f"no whole reply within {total_s:g} s", retry=True, billable=True) from None
    except httpx2.TimeoutException as error:
        raise _broken(APITimeoutError(request=error.request), error) from None
    except httpx2.TransportError as error:
        raise _broken(APIConnectionError(request=request), error) from None


async def _streamed(response: httpx2.Response, emit: Callable[[bytes], None]) -> bytes:
    events, lines, rest = _Events(emit), list[bytes](), b""
    async for piece in response.aiter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            lines.append(line)
            events.read(line)
    events.read(rest)
    return b"\n".join([*lines, rest])


class _Events:
    """Emits the events of a stream without its end and its errors, line by line."""

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit
        self._is_error = False  # the event that is read now

    def read(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        event = value.strip()
        if field == b"event":
            self._is_error = event == b"error"
        elif not line.strip():
            self._is_error = False
        elif (
            field == b"data"
            and event != _DONE
            and not self._is_error
            and b'"error"' not in event[:10]
        ):
            self._emit(event)


def _broken(named: APIConnectionError, cause: httpx2.TransportError) -> TryError:
    named.__cause__ = cause
    return transport_failure(named)


def forwarded_body(
    body: Mapping[str, JsonValue], file: PoolFile, row: CandidateRow, *, stream: bool
) -> dict[str, JsonValue]:
    """A client's request as the candidate gets it.

    The limit of tokens is the smaller one of client and pool file. What the pool file sets under
    `parameters` holds for clients too.
    """
    fixed = file.request(Call(row.name, ""))
    most = file.reply_tokens(row)
    asked = [value for name in _LIMITS if isinstance(value := body.get(name), int)]
    own = {name: value for name, value in body.items() if name not in _LIMITS}
    limit = {"max_tokens": min([*asked, most])} if "max_tokens" in fixed or asked else {}
    sent: dict[str, JsonValue] = {
        "temperature": row.temperature,
        **own,
        **limit,
        **row.parameters,
        "model": row.model,
    }
    sent.pop("stream_options", None)
    sent["stream"] = stream or None
    if stream:
        sent["stream_options"] = {"include_usage": True}  # or the call could not be priced
    return {name: value for name, value in sent.items() if value is not None}


def _refused(response: httpx2.Response, content: bytes) -> TryError:
    return failure_of(
        response.status_code,
        words_of(parse_body(content), response.text),
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )
