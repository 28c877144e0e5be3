"""One try of one call: what its outcome means for retries, the breaker and the bill."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError
from pydantic import BaseModel, Field, ValidationError

from routerr1.pool.pricing import tokens_by_length
from routerr1.pool.transport import ReplyTooLarge

# Worth another try: timeouts, conflicts, "too early", rate limits; with them every 5xx.
RETRIED_STATUS = frozenset({408, 409, 425, 429})
# The request itself is at fault, or the rate: neither says that the candidate is unwell.
_HARMLESS_STATUS = frozenset({400, 413, 422, 429})
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply that can be used.

    Attributes:
        estimated: the server reported no usage; the token counts are by length.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


class TryError(Exception):
    """A try that gave no usable reply.

    Attributes:
        why: for records and people; never holds what the server said, which may hold a key.
        retry: another try may go better.
        ill: it counts against the candidate's health.
        retry_after_s: the pause the server asked for.
        usage: prompt and reply tokens the server reported nevertheless.
        billable: the server may have done (and will bill) work nobody saw the usage of.
    """

    def __init__(
        self,
        why: str,
        *,
        retry: bool = False,
        ill: bool = True,
        retry_after_s: float | None = None,
        usage: tuple[int, int] | None = None,
        billable: bool = False,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.retry = retry
        self.ill = ill
        self.retry_after_s = retry_after_s
        self.usage = usage
        self.billable = billable


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    # Beyond any context window there is: a server that says so is not to be believed.
    prompt_tokens: int = Field(ge=0, le=10**8)
    completion_tokens: int = Field(ge=0, le=10**8)


class _Body(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


def read_completion(content: bytes, query: str) -> Completion:
    """The first choice of a chat completion.

    Raises: TryError if there is none, it is empty, or the body is no chat completion.
    """
    try:
        body = _Body.model_validate_json(content)
    except ValidationError:
        raise TryError("the body is no chat completion", billable=True) from None
    usage = (body.usage.prompt_tokens, body.usage.completion_tokens) if body.usage else None
    text = (body.choices[0].message.content or "") if body.choices else ""
    if not text.strip():
        raise TryError("the reply is empty", usage=usage, billable=usage is None)
    if usage is None:
        return Completion(text, tokens_by_length(query), tokens_by_length(text), estimated=True)
    return Completion(text, *usage)


def status_failure(error: APIStatusError) -> TryError:
    """What an HTTP error status means."""
    status = error.status_code
    return TryError(
        f"status {status}",
        retry=status in RETRIED_STATUS or status >= 500,
        ill=status not in _HARMLESS_STATUS,
        retry_after_s=retry_after_s(error.response.headers.get("retry-after")),
    )


def transport_failure(error: APIConnectionError) -> TryError:
    """What a broken or absent connection means."""
    cause = error.__cause__
    if isinstance(cause, ReplyTooLarge):
        return TryError("the reply is too large", billable=True)
    sent = not isinstance(cause, _NOT_SENT)
    if isinstance(error, APITimeoutError):
        why = "the server took too long" if sent else "no connection within the time allowed"
    else:
        why = f"the connection failed ({type(cause).__name__})"
    return TryError(why, retry=True, billable=sent)


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
