"""Hard limits on spending, shared by every process that opens the same file or database.

Before a call its worst-case price is set aside in every limited scope, in one transaction. Afterwards
its real price takes the place of the worst case. The sum of what is spent and set aside therefore never
passes a limit, whatever runs in parallel. What a killed process had set aside stays counted, because its
call may have been billed. Amounts are whole nano-dollars, rounded up.
"""

import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from routerr1.errors import BudgetExceeded
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.pool.pricing import worst_case_usd
from routerr1.pool.spending import Spending, Transaction
from routerr1.types import Reply

log = logging.getLogger(__name__)

_NANO = 10**9


class QuestionBudgetSpent(Exception):
    """The limit of one question does not allow the call; other questions can still be asked."""


@dataclass(frozen=True, slots=True)
class Limits:
    """US dollars; None where there is no limit.

    Attributes:
        question_usd: for one rollout of one question (`Call.scope`).
        run_usd: for one run, its restarts and parallel workers included.
        month_usd: for everything that shares the file, per calendar month in UTC.
    """

    question_usd: float | None = None
    run_usd: float | None = None
    month_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Payer:
    """One more sum that the calls of a rollout count towards.

    Attributes:
        name: of the sum, the same for every process that shares the file.
        limit_usd: of the sum; None counts without a limit.
    """

    name: str
    limit_usd: float | None = None


class Grant:
    """What one rollout may spend, beside the limits of question, run and month.

    Args:
        limit_usd: for this rollout alone; None for no limit.
        payers: sums that its calls count towards.
    """

    def __init__(self, limit_usd: float | None = None, payers: tuple[Payer, ...] = ()) -> None:
        self.limit_usd = limit_usd
        self.payers = payers
        self._nano = 0

    @property
    def spent_usd(self) -> float:
        """What is spent and set aside; the worst case of a call that was broken off is included."""
        return self._nano / _NANO

    def add(self, nano: int) -> None:
        """Set an amount aside.

        Raises: QuestionBudgetSpent if it would pass the limit.
        """
        if self.limit_usd is not None and self._nano + nano > _floor(self.limit_usd):
            raise QuestionBudgetSpent(
                f"the next call could cost {_usd(nano)} USD, and {_usd(self._nano)} of "
                f"{_usd(_floor(self.limit_usd))} USD are spent or set aside"
            )
        self._nano += nano

    def settle(self, nano: int) -> None:
        """Count the difference between what a call cost and what was set aside for it."""
        self._nano += nano


@dataclass(slots=True)
class Reservation:
    """Money set aside for a call.

    Attributes:
        cost_usd: what is counted when the call ends: the worst case until the caller knows better.
    """

    cost_usd: float


class Budget:
    """The limits of one run, kept in a SQLite file or a database.

    Args:
        place: see `Spending`.
        run: name that the run's limit is counted under; a restart with the same name keeps counting.

    Raises: PoolError if `place` cannot be used.
    """

    def __init__(
        self,
        place: Path | str,
        limits: Limits,
        *,
        run: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._limits = limits
        self._run = run
        self._now = now
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}
        self._spending = Spending(place)

    @contextmanager
    def granted(self, scope: str, grant: Grant) -> Iterator[None]:
        """Count the calls of the rollout `scope` towards `grant` while the block runs."""
        self._grants[scope] = grant
        try:
            yield
        finally:
            del self._grants[scope]

    @contextmanager
    def reserve(self, usd: float, scope: str | None = None) -> Iterator[Reservation]:
        """Set `usd` aside while a call runs, then count `Reservation.cost_usd` in its place.

        A call that is cancelled or breaks off may have been billed, so its worst case stays counted.

        Args:
            usd: the worst case, in US dollars.
            scope: the rollout that pays; None: only the limits of run and month apply.

        Raises:
            BudgetExceeded: the limit of the run or month does not allow the call.
            QuestionBudgetSpent: the limit of the question does not allow it.
            ValueError: an amount is negative or not finite.
        """
        grant = self._grants.get(scope) if scope is not None else None
        number = self._set_aside(usd, scope, grant)
        reservation = Reservation(usd)
        try:
            yield reservation
        finally:
            self._settle(number, reservation.cost_usd, grant)

    def _set_aside(self, usd: float, scope: str | None, grant: Grant | None) -> int:
        amount = _nano(usd)
        scopes = self._scopes(scope, grant)
        names = json.dumps([each.name for each in scopes])
        with self._lock, self._spending.transaction() as transaction:
            for each in scopes:
                _set_aside(transaction, each, amount)
            if grant is not None:
                grant.add(amount)
            row = transaction.one(
                "INSERT INTO under_way (nano, scopes, pid, since) VALUES (?, ?, ?, ?) RETURNING id",
                amount, names, os.getpid(), self._now().isoformat(),
            )  # fmt: skip
        return int(row[0])

    def _settle(self, number: int, usd: float, grant: Grant | None) -> None:
        actual = _nano(usd)
        with self._lock, self._spending.transaction() as transaction:
            row = transaction.one("SELECT nano, scopes FROM under_way WHERE id = ?", number)
            reserved, names = int(row[0]), json.loads(row[1])
            for name in names:
                transaction.add(name, actual - reserved)
            transaction.do("DELETE FROM under_way WHERE id = ?", number)
            if grant is not None:
                grant.settle(actual - reserved)
        if actual > reserved:
            log.warning(
                "a call cost %.9f USD, more than its worst case of %.9f",
                actual / _NANO,
                reserved / _NANO,
            )

    def spent_usd(self) -> dict[str, float]:
        """Every scope of the file, with what is spent and set aside in it."""
        with self._lock, self._spending.transaction() as transaction:
            rows = transaction.all("SELECT scope, nano FROM spent ORDER BY scope")
        return {str(scope): nano / _NANO for scope, nano in rows}

    def under_way_usd(self) -> float:
        """The amount set aside by all processes; without running processes, what killed ones left."""
        with self._lock, self._spending.transaction() as transaction:
            (nano,) = transaction.one("SELECT COALESCE(SUM(nano), 0) FROM under_way")
        return float(nano) / _NANO

    def close(self) -> None:
        """Close the connections."""
        self._spending.close()

    def _scopes(self, rollout: str | None, grant: Grant | None) -> list["_Scope"]:
        limits = self._limits
        scopes = [
            _Scope(f"run {self._run}", limits.run_usd, BudgetExceeded, "run_usd"),
            _Scope(f"month {self._now():%Y-%m}", limits.month_usd, BudgetExceeded, "month_usd"),
        ]
        if rollout is not None and limits.question_usd is not None:
            name = f"question {rollout} of run {self._run}"
            scopes.append(_Scope(name, limits.question_usd, QuestionBudgetSpent, "question_usd"))
        payers = grant.payers if grant is not None else ()
        return [*scopes, *(_Scope(each.name, each.limit_usd, BudgetExceeded) for each in payers)]


@dataclass(frozen=True, slots=True)
class _Scope:
    """One sum that a call counts towards, its limit, and what a refusal raises.

    Attributes:
        key: of pool.budget that sets the limit; "" if something else does.
    """

    name: str
    limit_usd: float | None
    refusal: type[BudgetExceeded | QuestionBudgetSpent]
    key: str = ""


def _set_aside(transaction: Transaction, scope: _Scope, amount: int) -> None:
    """Add to a sum, unless it would pass its limit.

    Raises: the scope's refusal.
    """
    total = transaction.add(scope.name, amount)
    if scope.limit_usd is not None and total > _floor(scope.limit_usd):
        of_key = f" (pool.budget.{scope.key})" if scope.key else ""
        raise scope.refusal(
            f"{scope.name}: the next call could cost {_usd(amount)} USD, and {_usd(total - amount)} of "
            f"{_usd(_floor(scope.limit_usd))} USD are spent or set aside{of_key}"
        )


def _usd(nano: int) -> str:
    """An amount with six decimals, and more where a tiny one needs them.

    >>> _usd(500_000_000), _usd(1_200)
    ('0.500000', '0.0000012')
    """
    whole, decimals = f"{nano / _NANO:.9f}".split(".")
    return f"{whole}.{decimals.rstrip('0').ljust(6, '0')}"


def _floor(limit_usd: float) -> int:
    """A limit is rounded down, amounts are rounded up."""
    return math.floor(limit_usd * _NANO + 1e-6)


def _nano(usd: float) -> int:
    if not (math.isfinite(usd) and usd >= 0):
        raise ValueError(f"amount is {usd}, must be finite and at least 0")
    # Subtract a little, so that 0.1 USD as a binary fraction does not become one nano-dollar more.
    return math.ceil(usd * _NANO - 1e-6)


class BudgetedPool(PoolWrapper):
    """A budget around a pool that has none. (The HTTP pool counts every try itself.)

    Args:
        count_cached: also count replies that were paid for earlier, as if they were paid now.
    """

    def __init__(
        self, inner: Pool, budget: Budget, *, max_reply_tokens: int, count_cached: bool = False
    ) -> None:
        super().__init__(inner)
        self._budget = budget
        self._count_cached = count_cached
        self._max_reply_tokens = max_reply_tokens

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        card = next((card for card in self.cards if card.name == call.candidate), None)
        if card is None:
            return Reply(call.candidate, "", failure="unknown_model")
        worst = worst_case_usd(card, call.query, self._max_reply_tokens)
        try:
            with self._budget.reserve(worst, call.scope) as reservation:
                reply = await self.inner.ask(call)
                free = reply.cached and not self._count_cached
                reservation.cost_usd = 0.0 if free else reply.cost_usd
        except QuestionBudgetSpent as refused:
            return Reply(call.candidate, "", failure="budget", note=str(refused))
        return reply

    async def aclose(self) -> None:
        """Close the pool and the budget."""
        await self.inner.aclose()
        self._budget.close()
