"""Around the answering of one request: its errors, its figures, and the row that is kept."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from routerr1.errors import BudgetExceeded, BudgetUnavailable, RouterError
from routerr1.pool.budget import Grant
from routerr1.serve.answers import call_body
from routerr1.serve.asked import Asked, Outcome
from routerr1.serve.errors import ApiError, no_database, over_budget
from routerr1.serve.store import RequestRow
from routerr1.types import Reply, Trajectory

if TYPE_CHECKING:
    from routerr1.serve.gateway import Gateway

_log = logging.getLogger(__name__)
CLIENT_GONE = 499  # nginx's word for a client that does not wait


class Kept:
    """Around the answering of one request: turns errors into those of the protocol, counts and keeps."""

    def __init__(
        self,
        gateway: "Gateway",
        asked: Asked,
        replies: list[Reply],
        grant: Grant,
        question: str,
    ) -> None:
        self._gateway = gateway
        self._asked = asked
        self._replies = replies
        self._grant = grant
        self._question = question
        self.answer: str | None = None
        self.trajectory: Trajectory | None = None

    def __enter__(self) -> "Kept":
        self._gateway.metrics.under_way.inc()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        failed = _as_api_error(error)
        self._gateway.metrics.under_way.dec()
        if failed is not None:
            self._write(failed.status, failed.code)
        elif isinstance(error, asyncio.CancelledError):
            self._write(CLIENT_GONE, "cancelled")
        else:
            self._write(200 if error is None else 500, None if error is None else "internal_error")
        if failed is not None and failed is not error:
            raise failed from error

    def _write(self, status: int, code: str | None) -> None:
        metrics, asked, label = (
            self._gateway.metrics,
            self._asked,
            self._asked.engine.identity.label,
        )
        model, spend = asked.request.model, asked.spend
        if not self._gateway.is_router(asked):
            spend = None
        level = "none" if spend is None else f"{spend:.0f}"
        labels = (label, model, level)
        seconds = time.perf_counter() - asked.began
        cost_usd = sum(reply.cost_usd for reply in self._replies)
        if status != 200:  # a call that broke off is on no reply, but it is booked
            cost_usd = max(cost_usd, self._grant.spent_usd)
        metrics.requests.labels(*labels, str(status)).inc()
        metrics.seconds.labels(*labels).observe(seconds)
        metrics.request_usd.labels(*labels).observe(cost_usd)
        if asked.first_s is not None:
            metrics.first_s.labels(*labels).observe(asked.first_s)
        if status == 429:
            metrics.over_budget.inc()
        metrics.replied(label, level, self._replies)
        if self.trajectory is not None:
            metrics.wrote(label, level, self.trajectory)
        if asked.engine.identity.name == model:
            said = Outcome(asked, self._question, status, seconds, cost_usd, self.answer)
            for observe in self._gateway.observers:
                observe(said)
        self._gateway.keep(
            RequestRow(
                id=asked.id,
                at_s=time.time(),
                key_id=asked.key.id if asked.key is not None else None,
                user_name=asked.request.user,
                version=label,
                model=model,
                spend=asked.request.spend or 0.0,
                status=status,
                code=code,
                cost_usd=cost_usd,
                seconds=seconds,
                calls=[call_body(reply).model_dump() for reply in self._replies],
                question=self._question,
                answer=self.answer,
            )
        )


def _as_api_error(error: BaseException | None) -> ApiError | None:
    match error:
        case ApiError():
            return error
        case SQLAlchemyError() | BudgetUnavailable():
            return no_database(error)
        case BudgetExceeded():
            return over_budget(str(error), "insufficient_quota")
        case RouterError():
            _log.warning("a request failed: %s", error)
            return ApiError(502, str(error), "router_failed")
    return None
