"""Sums of money in a database, SQLite or PostgreSQL, changed in transactions that see each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from routerr1.errors import BudgetUnavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (scope TEXT PRIMARY KEY, nano {number} NOT NULL);
CREATE TABLE IF NOT EXISTS under_way (
    id {serial}, nano {number} NOT NULL, scopes TEXT NOT NULL, pid INTEGER NOT NULL, since TEXT NOT NULL
);
"""
_SQLITE = {"number": "INTEGER", "serial": "INTEGER PRIMARY KEY AUTOINCREMENT"}
_POSTGRESQL = {"number": "BIGINT", "serial": "BIGSERIAL PRIMARY KEY"}
# Two processes that make the same new tables at once would both fail.
_ONE_MAKES = "SELECT pg_advisory_xact_lock(4711)"
# The row stays locked until the transaction ends, so the sum that comes back is the last word.
_ADD = (
    "INSERT INTO spent (scope, nano) VALUES (?, ?) "
    "ON CONFLICT (scope) DO UPDATE SET nano = spent.nano + excluded.nano RETURNING nano"
)


class _Cursor(Protocol):
    def execute(self, statement: str, values: tuple[Any, ...] = ..., /) -> Any: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> Sequence[Any]: ...


class Transaction:
    """One transaction; it is rolled back if its block raises."""

    def __init__(self, cursor: _Cursor, mark: str) -> None:
        self._cursor = cursor
        self._mark = mark

    def add(self, scope: str, nano: int) -> int:
        """Add to a sum, and return the new sum. Scopes are always added in the same order."""
        return int(self.one(_ADD, scope, nano)[0])

    def one(self, statement: str, *values: object) -> Any:
        """The first row of a statement, whose values stand as `?`."""
        self._cursor.execute(statement.replace("?", self._mark), values)
        return self._cursor.fetchone()

    def all(self, statement: str) -> Sequence[Any]:
        """Every row of a statement."""
        self._cursor.execute(statement)
        return self._cursor.fetchall()

    def do(self, statement: str, *values: object) -> None:
        """A statement without rows."""
        self._cursor.execute(statement.replace("?", self._mark), values)


class Spending:
    """The database.

    Args:
        place: a SQLite file, which is made if absent; or a SQLAlchemy address.

    Raises: BudgetUnavailable if it cannot be used.
    """

    def __init__(self, place: Path | str) -> None:
        # Not every command that reads a pool opens a budget.
        import sqlalchemy as sa
        from sqlalchemy.pool import StaticPool

        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
            url = sa.URL.create("sqlite", database=str(place))
        else:
            url = sa.make_url(place)
        self._is_sqlite = url.get_backend_name() == "sqlite"
        # A password may also be among the parameters.
        bare = url.set(query={})
        shown = place if isinstance(place, Path) else bare.render_as_string(hide_password=True)
        try:
            if self._is_sqlite:
                options = {"timeout": 60, "isolation_level": None, "check_same_thread": False}
                self._engine = sa.create_engine(url, poolclass=StaticPool, connect_args=options)
            else:
                self._engine = sa.create_engine(url, pool_pre_ping=True)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise _unusable(shown, error) from None
        self._shown = shown
        self._failures = (sa.exc.SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error)
        try:
            self._make_tables()
        except self._failures as error:
            raise _unusable(shown, error) from None

    def _make_tables(self) -> None:
        if self._is_sqlite:
            connection = self._engine.raw_connection()
            # A commit survives the death of the process; only a power cut may lose the last ones.
            for setting in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"):
                connection.cursor().execute(setting)
            connection.close()
        with self.transaction() as transaction:
            if not self._is_sqlite:
                transaction.do(_ONE_MAKES)
            schema = _SCHEMA.format(**(_SQLITE if self._is_sqlite else _POSTGRESQL))
            for statement in schema.split(";")[:-1]:
                transaction.do(statement)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Change sums; an exception leaves them unchanged.

        Raises: BudgetUnavailable if the database is locked or does not answer.
        """
        try:
            with self._transaction() as transaction:
                yield transaction
        except self._failures as error:
            raise _unusable(self._shown, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            if self._is_sqlite:
                cursor.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(cursor, "?" if self._is_sqlite else "%s")
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _unusable(shown: Path | str, error: Exception) -> BudgetUnavailable:
    first = str(error).strip().splitlines()[0]
    return BudgetUnavailable(f"{shown}: cannot be used as a budget file ({first})")
