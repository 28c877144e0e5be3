"""Errors in the form of OpenAI's protocol: a status and `{"error": {message, type, param, code}}`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from routerr1.errors import BudgetUnavailable

_log = logging.getLogger(__name__)


class ErrorBody(BaseModel):
    """What went wrong.

    Attributes:
        type: the kind, in OpenAI's words, e.g. `invalid_request_error`.
        param: the field of the request at fault.
        code: the exact reason, for programs.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every response that is an error."""

    error: ErrorBody


_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


@dataclass
class ApiError(Exception):
    """A request that is refused or that failed.

    Attributes:
        kind: replaces the type that belongs to the status.
        retry: whether the same request may succeed later; clients heed `x-should-retry`.
    """

    status: int
    message: str
    code: str
    param: str | None = None
    kind: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry: bool | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, object]:
        """The JSON body."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = self.kind or _TYPES.get(HTTPStatus(self.status), default)
        error = ErrorBody(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorResponse(error=error).model_dump()

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers, with what clients of OpenAI read."""
        found = dict(self.headers)
        if self.retry is not None:
            found["x-should-retry"] = str(self.retry).lower()
        return found


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A request that cannot be served as it is written."""
    return ApiError(400, message, code, param)


def no_database(error: SQLAlchemyError | BudgetUnavailable) -> ApiError:
    """A database of the gateway that does not answer, or is locked; the log has its words."""
    _log.error("the database fails: %s", str(error).splitlines()[0])
    return ApiError(
        503, "the gateway's database does not answer", "database_unavailable", retry=True
    )


def over_budget(message: str, code: str = "budget_exceeded") -> ApiError:
    """A budget that does not allow another call; OpenAI's word for it is quota."""
    return ApiError(429, message, code, kind="insufficient_quota", retry=False)


def of_validation(error: ValidationError) -> ApiError:
    """The first problem that pydantic found, without the value that was sent."""
    first = error.errors(include_input=False, include_url=False)[0]
    param = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    message = first["msg"].removeprefix("Value error, ")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return invalid(f"{param}: {message}" if param else message, param or None, code)
