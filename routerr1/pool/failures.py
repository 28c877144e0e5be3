"""A failed try of a call: what it means for retries, the breaker and the bill, and how it is named."""

import math
import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError

from routerr1.pool.tally import KEY_LIKE
from routerr1.pool.transport import ReplyTooLarge, UnaskedEncoding
from routerr1.pool.wire import parse_body, parse_text
from routerr1.types import Usage

# Worth another try: timeouts, conflicts, "too early", rate limits; with them every 5xx.
RETRIED_STATUS = frozenset({408, 409, 425, 429})
# The request itself is at fault, or the rate: neither says that the candidate is unwell.
_HARMLESS_STATUS = frozenset({400, 413, 422, 429})
_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
_MOST_WORDS = 200  # characters of what a server says about a failure
_DEEPEST = 6  # errors within errors
_SHORTEST_SECRET = 8  # shorter "keys" would be found in ordinary words
# Where servers put an error's code and its words.
_CODES = (
    "code", "status", "status_code", "statusCode", "http_status", "error_code", "errorcode", "type"
)  # fmt: skip
_WORDS = (
    "error", "message", "detail", "errors", "msg", "Message", "error_msg", "faultstring",
    "reason", "code", "type",
)  # fmt: skip
# Servers that name an error by a word, and the status that the word means.
_STATUS_OF_WORD = (
    ("rate_limit", HTTPStatus.TOO_MANY_REQUESTS),
    ("ratelimit", HTTPStatus.TOO_MANY_REQUESTS),
    ("throttl", HTTPStatus.TOO_MANY_REQUESTS),
    ("too_many", HTTPStatus.TOO_MANY_REQUESTS),
    ("resource_exhausted", HTTPStatus.TOO_MANY_REQUESTS),
    ("quota", HTTPStatus.PAYMENT_REQUIRED),
    ("overloaded", HTTPStatus.SERVICE_UNAVAILABLE),
    ("unavailable", HTTPStatus.SERVICE_UNAVAILABLE),
    ("timeout", HTTPStatus.GATEWAY_TIMEOUT),
    ("deadline_exceeded", HTTPStatus.GATEWAY_TIMEOUT),
    ("server_error", HTTPStatus.INTERNAL_SERVER_ERROR),
    ("internal", HTTPStatus.INTERNAL_SERVER_ERROR),
    ("content_filter", HTTPStatus.BAD_REQUEST),
    ("content_policy", HTTPStatus.BAD_REQUEST),
    ("context_length", HTTPStatus.BAD_REQUEST),
    ("invalid_argument", HTTPStatus.BAD_REQUEST),
    ("validation", HTTPStatus.UNPROCESSABLE_ENTITY),
    ("invalid_request", HTTPStatus.BAD_REQUEST),
    ("bad_request", HTTPStatus.BAD_REQUEST),
    ("authentication", HTTPStatus.UNAUTHORIZED),
    ("unauthenticated", HTTPStatus.UNAUTHORIZED),
    ("unauthorized", HTTPStatus.UNAUTHORIZED),
    ("api_key", HTTPStatus.UNAUTHORIZED),
    ("permission", HTTPStatus.FORBIDDEN),
    ("not_found", HTTPStatus.NOT_FOUND),
)


class TryError(Exception):
    """A try that gave no usable reply.

    Attributes:
        why: the reason in our words, for records and people.
        said: the server's own words; they may hold a key, so `without_secrets` comes first.
        retry: another try may go better.
        ill: it counts against the candidate's health.
        retry_after_s: the pause the server asked for.
        usage: tokens the server reported nevertheless.
        cost_usd: the price that the server stated for them.
        billable: the server may have done (and will bill) work whose usage was never seen.
    """

    def __init__(
        self,
        why: str,
        *,
        said: str = "",
        retry: bool = False,
        ill: bool = True,
        retry_after_s: float | None = None,
        usage: Usage | None = None,
        cost_usd: float | None = None,
        billable: bool = False,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.said = said
        self.retry = retry
        self.ill = ill
        self.retry_after_s = retry_after_s
        self.usage = usage
        self.cost_usd = cost_usd
        self.billable = billable


def status_failure(error: APIStatusError) -> TryError:
    """What an HTTP error status means."""
    response = error.response
    if response.has_redirect_location:
        target = httpx2.URL(response.headers["location"])
        address = str(response.url.join(target).copy_with(userinfo=b"", query=None, fragment=None))
        return TryError(
            f"status {response.status_code}, a redirect to {address}; set base_url to its beginning"
        )
    return failure_of(
        response.status_code,
        words_of(parse_body(response.content), response.text),
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )


def failure_of(
    status: int,
    said: str = "",
    *,
    retry_after_s: float | None = None,
    usage: Usage | None = None,
    cost_usd: float | None = None,
    billable: bool = False,
) -> TryError:
    """What a status means, whether it is the response's own or in an error object of its body."""
    return TryError(
        f"status {status}",
        said=said,
        retry=status in RETRIED_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR,
        ill=status not in _HARMLESS_STATUS,
        retry_after_s=retry_after_s,
        usage=usage,
        cost_usd=cost_usd,
        billable=billable,
    )


def status_of(error: object) -> int | None:
    """The status that an error object names by number or word; None if it names none.

    >>> status_of({"code": "429"}), status_of({"type": "overloaded_error"}), status_of("no idea")
    (429, 503, None)
    """
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, Mapping):
        return _status_of_word(error) if isinstance(error, str) else None
    inner = error.get("detail")
    named = [place.get(key) for place in (error, inner) if isinstance(place, Mapping) for key in _CODES]  # fmt: skip
    for value in named:
        number = float(value) if isinstance(value, str) and value.isdecimal() else value
        if isinstance(number, int | float) and 400 <= number < 600:
            return int(number)
    words = (_status_of_word(value) for value in named if isinstance(value, str))
    return next((status for status in words if status is not None), None)


def _status_of_word(word: str) -> int | None:
    low = word.lower().replace(" ", "_").replace("-", "_")
    return next((int(status) for part, status in _STATUS_OF_WORD if part in low), None)


def words_of(body: object, text: str = "") -> str:
    """What a server says about an error, in one short line.

    Args:
        body: the parsed body; None if it is no JSON.
        text: the body as text, for one that is no JSON.
    """
    found = next((words for words in _words(body, depth=0) if words.strip()), None)
    if found is None:
        found = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", text[:5000], flags=re.DOTALL)
    plain = "".join(char if char.isprintable() else " " for char in found[:5000])
    line = " ".join(plain.split()).replace('"', "'")
    return line if len(line) <= _MOST_WORDS else f"{line[: _MOST_WORDS - 1]}…"


def _words(body: object, *, depth: int) -> Iterator[str]:
    if isinstance(body, str):
        # It may be the provider's own error, written out.
        inner = parse_text(body) if depth < _DEEPEST else None
        yield from _words(inner, depth=depth + 1) if inner else (body,)
    elif isinstance(body, list) and depth < _DEEPEST:
        for item in body[:3]:
            yield from _words(item, depth=depth + 1)
    elif isinstance(body, Mapping) and depth < _DEEPEST:
        metadata = body.get("metadata")  # OpenRouter: what the provider behind it said
        if isinstance(metadata, Mapping):
            yield from _words(metadata.get("raw"), depth=depth + 1)
        for key in _WORDS:
            yield from _words(body.get(key), depth=depth + 1)


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """`text` without these secrets: a server may send a key back, and it must not get into records."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[key]")
    return text


def clear_of_secrets(text: str, secrets: Iterable[str]) -> int:
    """How many of the first characters hold no secret, whatever follows `text`.

    >>> clear_of_secrets("the key is sk-1", ["sk-123456"]), clear_of_secrets("no key", ["sk-123456"])
    (11, 6)
    """
    clear = len(text)
    for secret in secrets:
        if len(secret) < _SHORTEST_SECRET:
            continue
        found = text.find(secret)
        begun = (size for size in range(len(secret) - 1, 0, -1) if text.endswith(secret[:size]))
        start = found if found >= 0 else len(text) - next(begun, 0)
        clear = min(clear, start)
    return clear


def described(failed: TryError, secrets: Iterable[str]) -> str:
    """The reason with the server's own words in quotation marks, secrets removed."""
    said = KEY_LIKE.sub("[key]", without_secrets(failed.said, secrets))
    return f'{failed.why} "{said}"' if said else failed.why


def transport_failure(error: APIConnectionError) -> TryError:
    """What a broken or absent connection means."""
    cause = error.__cause__
    if isinstance(cause, ReplyTooLarge | UnaskedEncoding):
        return TryError(str(cause), billable=True)
    sent = not isinstance(cause, _NOT_SENT)
    refused = _refused_certificate(error)
    if refused is not None:
        return TryError(refused)
    if isinstance(error, APITimeoutError):
        why = "the server took too long" if sent else "no connection within the time allowed"
    elif isinstance(cause, httpx2.ProxyError):
        return TryError("the proxy refused the connection", said=words_of(str(cause)), retry=True)
    else:
        why = f"the connection failed ({_reason(error) or type(cause).__name__})"
    return TryError(why, retry=not isinstance(cause, httpx2.LocalProtocolError), billable=sent)


def _refused_certificate(error: BaseException) -> str | None:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the server's certificate is not trusted ({cause.verify_message}); "
                "set verify to the file of its CA"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in (
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
        ):
            return (
                "the server does not speak TLS at this address; does base_url begin with http://?"
            )
    return None


def _reason(error: BaseException) -> str | None:
    """The operating system's words."""
    found = [_words_of_system(cause) for cause in _causes(error) if isinstance(cause, OSError)]
    return next((words for words in reversed(found) if words), None)


def _words_of_system(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLError):
        return error.reason
    # asyncio puts the address in place of the system's words.
    refused = isinstance(error, ConnectionError) and error.errno is not None
    return os.strerror(error.errno) if refused and error.errno else error.strerror


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
        if isinstance(following, BaseExceptionGroup):
            following = following.exceptions[0]


def retry_after_s(value: str | None) -> float | None:
    """Seconds a Retry-After header asks for, given in seconds or as a date; None if it says nothing.

    >>> retry_after_s("2.5")
    2.5
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value).astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        seconds = (until - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
