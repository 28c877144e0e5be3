"""Requests as they come in: who asks, what for, and what the answer's headers say."""

import re
import uuid
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from routerr1.serve.asked import Asked
from routerr1.serve.errors import of_validation
from routerr1.serve.gateway import Gateway
from routerr1.serve.requests import ChatRequest, ResponsesRequest, budget_header
from routerr1.serve.store import Key
from routerr1.serve.transport import read_json

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
M = TypeVar("M", bound=BaseModel)
Q = TypeVar("Q", ChatRequest, ResponsesRequest)


async def admitted(gateway: Gateway, request: Request) -> Key | None:
    """The key of a request; see `Keyring.admit`."""
    return await gateway.keyring.admit(request.headers.get("authorization"))


async def read_as(
    gateway: Gateway, request: Request, kind: type[M]
) -> tuple[M, dict[str, Any], Key | None]:
    """The body of a request that is admitted, as `kind` and as it came.

    Raises: ApiError if the key may not ask, or the body is not one of `kind`.
    """
    key = await admitted(gateway, request)
    body = await read_json(request, gateway.params.max_body_bytes)
    try:
        return kind.model_validate(body), body, key
    except ValidationError as error:
        raise of_validation(error) from None


async def read_question(
    gateway: Gateway, request: Request, kind: type[Q]
) -> tuple[Q, dict[str, Any], Asked]:
    """A request for an answer: as `kind`, as it came, and on its way.

    Raises: ApiError, see `read_as` and `Gateway.asked`.
    """
    wanted, body, key = await read_as(gateway, request, kind)
    parent = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    budget = budget_header(request.headers.get("x-budget-usd"))
    asked_for = wanted if isinstance(wanted, ChatRequest) else wanted.as_chat()
    asked = gateway.asked(asked_for, key, budget, parent[1] if parent else None)
    request.state.asked = asked
    return wanted, body, asked


def headers_of(asked: Asked) -> dict[str, str]:
    """Names of request, version and trace."""
    return {
        "x-request-id": asked.id,
        "x-routerr1-version": asked.engine.identity.version,
        "traceparent": f"00-{asked.trace_id}-{uuid.uuid4().hex[:16]}-01",
    }
