"""Hard limits on spending, shared by every process that opens the same file.

Before a call its worst-case price is set aside in every limited scope, in one transaction; afterwards
the price it really had takes its place. So the sum of what is spent and what is under way never passes a
limit, whatever runs in parallel. What a killed process had set aside stays counted: its call may have
been billed. Amounts are whole nano-dollars, rounded up.
"""

import json
import logging
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from routerr1.errors import BudgetExceeded, PoolError
from routerr1.pool.interface import Pool
from routerr1.pool.pricing import worst_case_usd
from routerr1.pool.records import describe_of
from routerr1.pool.scope import asked_for
from routerr1.types import Card, Reply

log = logging.getLogger(__name__)

_NANO = 10**9
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (scope TEXT PRIMARY KEY, nano INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS under_way (
    id INTEGER PRIMARY KEY AUTOINCREMENT, nano INTEGER NOT NULL, scopes TEXT NOT NULL,
    pid INTEGER NOT NULL, since TEXT NOT NULL
);
"""
_ADD = (
    "INSERT INTO spent (scope, nano) VALUES (?, ?) "
    "ON CONFLICT (scope) DO UPDATE SET nano = nano + excluded.nano"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """US dollars; None where there is no limit.

    Attributes:
        question_usd: of one playing of one question (`scope.asking_for`).
        run_usd: of one run, its restarts and parallel workers included.
        month_usd: of everything that shares the file, per calendar month in UTC.
    """

    question_usd: float | None = None
    run_usd: float | None = None
    month_usd: float | None = None


class Budget:
    """The purse of one run.

    Args:
        path: SQLite file; made if absent.
        run: what the run's limit is counted under; a restart that gives the same name goes on counting.

    Raises: PoolError if `path` is not such a file.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        run: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._limits = limits
        self._run = run
        self._now = now
        self._lock = threading.Lock()
        self._exhausted: str | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(
                path, timeout=60, isolation_level=None, check_same_thread=False
            )
            # A commit survives the death of the process; only a power cut may lose the last ones.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise PoolError(f"{path}: cannot be used as a budget file ({error})") from None

    @property
    def exhausted(self) -> str | None:
        """Why a call was refused for the run's or month's sake; None while neither has run out.

        Once this is set no later call of the run is sure to be made: training stops here.
        """
        return self._exhausted

    def reserve(self, usd: float) -> int:
        """Set `usd` aside in every scope.

        Returns: a number for `settle`.
        Raises: BudgetExceeded naming the scope whose limit would be passed; nothing is set aside.
        """
        amount = _nano(usd)
        scopes = self._scopes()
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for scope, limit in scopes:
                    self._refuse_beyond(scope, limit, amount)
                self._db.executemany(_ADD, [(scope, amount) for scope, _ in scopes])
                cursor = self._db.execute(
                    "INSERT INTO under_way (nano, scopes, pid, since) VALUES (?, ?, ?, ?)",
                    (
                        amount,
                        json.dumps([scope for scope, _ in scopes]),
                        os.getpid(),
                        self._now().isoformat(),
                    ),
                )
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        return int(cursor.lastrowid or 0)

    def settle(self, reservation: int, usd: float) -> None:
        """Put what the call really cost in place of what was set aside.

        Raises: ValueError if there is no such reservation (settled twice).
        """
        actual = _nano(usd)
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            row = self._db.execute(
                "SELECT nano, scopes FROM under_way WHERE id = ?", (reservation,)
            ).fetchone()
            if row is None:
                self._db.execute("ROLLBACK")
                raise ValueError(f"reservation {reservation} is not open")
            reserved, scopes = int(row[0]), json.loads(row[1])
            self._db.executemany(_ADD, [(scope, actual - reserved) for scope in scopes])
            self._db.execute("DELETE FROM under_way WHERE id = ?", (reservation,))
            self._db.execute("COMMIT")
        if actual > reserved:
            log.warning(
                "a call cost %.9f USD, more than its worst case of %.9f",
                actual / _NANO,
                reserved / _NANO,
            )

    def spent_usd(self) -> dict[str, float]:
        """Every scope of the file to what is spent and set aside in it."""
        with self._lock:
            rows = self._db.execute("SELECT scope, nano FROM spent ORDER BY scope").fetchall()
        return {str(scope): nano / _NANO for scope, nano in rows}

    def under_way_usd(self) -> float:
        """What is set aside and not settled, by anybody; with nobody running, what killed runs left."""
        with self._lock:
            (nano,) = self._db.execute("SELECT COALESCE(SUM(nano), 0) FROM under_way").fetchone()
        return float(nano) / _NANO

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _scopes(self) -> list[tuple[str, float | None]]:
        scopes = [
            (f"run {self._run}", self._limits.run_usd),
            (f"month {self._now():%Y-%m}", self._limits.month_usd),
        ]
        key = asked_for()
        if key is not None and self._limits.question_usd is not None:
            scopes.append((f"question {key} of run {self._run}", self._limits.question_usd))
        return scopes

    def _refuse_beyond(self, scope: str, limit: float | None, amount: int) -> None:
        if limit is None:
            return
        row = self._db.execute("SELECT nano FROM spent WHERE scope = ?", (scope,)).fetchone()
        spent = int(row[0]) if row else 0
        # The limit is rounded down, amounts are rounded up.
        if spent + amount > math.floor(limit * _NANO + 1e-6):
            why = (
                f"{scope}: the next call could cost {amount / _NANO:.6f} USD, and {spent / _NANO:.6f} "
                f"of {limit:.6f} USD are spent or set aside"
            )
            if not scope.startswith("question "):
                self._exhausted = why
            raise BudgetExceeded(why)


def _nano(usd: float) -> int:
    if not (math.isfinite(usd) and usd >= 0):
        raise ValueError(f"amount is {usd}, must be finite and at least 0")
    # Less a hair, so that 0.1 USD held as a binary fraction does not become one nano-dollar more.
    return math.ceil(usd * _NANO - 1e-6)


@runtime_checkable
class Limited(Protocol):
    """A pool that a budget may stop."""

    @property
    def exhausted(self) -> str | None:
        """See `Budget.exhausted`."""
        ...


def exhausted(pool: Pool) -> str | None:
    """Why the run's or month's budget refused a call of this pool; None if it did not."""
    return pool.exhausted if isinstance(pool, Limited) else None


class BudgetedPool:
    """A budget before any pool that does not keep one itself (the HTTP pool does, try by try)."""

    def __init__(self, pool: Pool, budget: Budget, *, max_reply_tokens: int) -> None:
        self.inner = pool
        self._budget = budget
        self._max_reply_tokens = max_reply_tokens

    @property
    def cards(self) -> Sequence[Card]:
        """The wrapped pool's."""
        return self.inner.cards

    @property
    def exhausted(self) -> str | None:
        """See `Budget.exhausted`."""
        return self._budget.exhausted

    def request(self, name: str, query: str) -> dict[str, Any]:
        """The wrapped pool's."""
        return describe_of(self.inner)(name, query)

    async def ask(self, name: str, query: str) -> Reply:
        """See `Pool.ask`; at a limit the reply has failure `budget` and nothing was asked."""
        card = next((card for card in self.cards if card.name == name), None)
        if card is None:
            return Reply(name, "", failure="unknown_model")
        worst = worst_case_usd(card, query, self._max_reply_tokens)
        try:
            reservation = self._budget.reserve(worst)
        except BudgetExceeded as error:
            return Reply(name, "", failure="budget", note=str(error))
        paid = worst
        try:
            reply = await self.inner.ask(name, query)
            paid = 0.0 if reply.cached else reply.cost_usd
        finally:
            # Cancelled or broken off: it may have been billed, so the worst case stays.
            self._budget.settle(reservation, paid)
        return reply

    async def aclose(self) -> None:
        """Close the pool and the budget."""
        await self.inner.aclose()
        self._budget.close()
