"""What gateways share: keys, counts of requests, requests and feedback, in SQLite or PostgreSQL."""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from routerr1.config import ServeParams
from routerr1.errors import ConfigError
from routerr1.files import project_folder
from routerr1.tracking.store import redact

FILE = Path("runs/serve.sqlite")
VARIABLE = "ROUTERR1_SERVE_DATABASE"
_GATHER_S = 0.05  # a thread that wakes for each request would slow the server's own
_log = logging.getLogger(__name__)
T = TypeVar("T")
_tables = sa.MetaData()

_keys = sa.Table(
    "serve_keys",
    _tables,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("created_s", sa.Float, nullable=False),
    sa.Column("rate_per_minute", sa.Integer),
    sa.Column("month_usd", sa.Float),
    sa.Column("max_spend", sa.Float),
    sa.Column("candidates", sa.Text),
)
_rates = sa.Table(
    "serve_rates",
    _tables,
    sa.Column("key_id", sa.String(16), primary_key=True),
    sa.Column("minute", sa.BigInteger, primary_key=True),
    sa.Column("requests", sa.Integer, nullable=False),
)
_requests = sa.Table(
    "serve_requests",
    _tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("key_id", sa.String(16)),
    sa.Column("user_name", sa.String(512)),
    sa.Column("version", sa.String(200), nullable=False),
    sa.Column("model", sa.String(512), nullable=False),
    sa.Column("spend", sa.Float, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("code", sa.String(64)),
    sa.Column("cost_usd", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("calls", sa.Text, nullable=False),
    sa.Column("question", sa.Text),
    sa.Column("answer", sa.Text),
)
sa.Index("serve_requests_at_s", _requests.c.at_s)
_feedback = sa.Table(
    "serve_feedback",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.String(64), nullable=False, index=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("key_id", sa.String(16)),
    sa.Column("score", sa.Float),
    sa.Column("answer", sa.Text),
    sa.Column("comment", sa.Text),
    sa.Column("consent", sa.Boolean, nullable=False),
    sa.Column("question", sa.Text),
)

_pairs = sa.Table(
    "serve_pairs",
    _tables,
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("shadow", sa.String(200), primary_key=True),
    sa.Column("champion", sa.String(200), nullable=False),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("same", sa.Boolean, nullable=False),
    sa.Column("verdict", sa.Float),
    sa.Column("failed", sa.Boolean, nullable=False),
    sa.Column("champion_usd", sa.Float, nullable=False),
    sa.Column("shadow_usd", sa.Float, nullable=False),
    sa.Column("champion_s", sa.Float, nullable=False),
    sa.Column("shadow_s", sa.Float, nullable=False),
)
_trials = sa.Table(
    "serve_trials",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("canary", sa.String(200), nullable=False, index=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("version", sa.String(200), nullable=False),
    sa.Column("request_id", sa.String(64)),
    sa.Column("value", sa.Float),
    sa.Column("why", sa.Text),
)


@dataclass(frozen=True, slots=True)
class Key:
    """Who may ask, and how much; the key itself is kept nowhere.

    Attributes:
        id: first digits of the digest, which names it in logs and budgets.
        digest: SHA-256 of the key.
        candidates: that it may reach; None for all.
    """

    id: str
    name: str
    digest: str
    created_s: float
    rate_per_minute: int | None = None
    month_usd: float | None = None
    max_spend: float | None = None
    candidates: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request as it is kept.

    Attributes:
        calls: one object a call: model, cost, seconds, failure.
        question, answer: None unless texts are kept. The question of a request that was passed on is its whole body.
    """

    id: str
    at_s: float
    key_id: str | None
    user_name: str | None
    version: str
    model: str
    spend: float
    status: int
    code: str | None
    cost_usd: float
    seconds: float
    calls: Sequence[dict[str, Any]]
    question: str | None = None
    answer: str | None = None

    @property
    def was_passed_on(self) -> bool:
        """Whether a candidate was asked by its name, and not the router or a version of it."""
        return self.model not in (self.version, self.version.rpartition("@")[0])


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """What a user said of an answer.

    Attributes:
        score: from 0 (wrong) to 1 (right).
        answer: the right answer, where the user gave one.
        consent: whether it may become data.
        question: the question, where it is known.
    """

    request_id: str
    at_s: float
    key_id: str | None
    score: float | None
    answer: str | None
    comment: str | None
    consent: bool
    question: str | None


@dataclass(frozen=True, slots=True)
class PairRow:
    """The champion's answer and a shadow's, to one request.

    Attributes:
        same: whether they are equal by the rule `text`.
        verdict: 1 if the shadow's is better, -1 if it is worse, 0 if neither; None if unjudged.
        failed: whether the shadow gave no answer.
    """

    request_id: str
    shadow: str
    champion: str
    at_s: float
    same: bool
    verdict: float | None
    failed: bool
    champion_usd: float
    shadow_usd: float
    champion_s: float
    shadow_s: float


@dataclass(frozen=True, slots=True)
class TrialRow:
    """What happened in the trial of a canary, beside its requests.

    Attributes:
        kind: `began` or `returned`, or what says the value: the `reference` of a request, or the `judge`.
        version: whose answer is judged by its reference; the champion that the judge compared with.
        value: 1 if the answer is right; for `judge`, how much better the canary's is.
        why: it returned.
    """

    canary: str
    at_s: float
    kind: Literal["began", "returned", "reference", "judge"]
    version: str
    request_id: str | None = None
    value: float | None = None
    why: str | None = None


class Store:
    """The database of the gateway.

    Args:
        url: SQLAlchemy address, see `database_of`; None is runs/serve.sqlite in the project folder.

    Raises: ConfigError if it cannot be opened.
    """

    def __init__(self, url: str | None) -> None:
        if url is None:
            file = project_folder() / FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{file}"
        try:
            options: dict[str, Any] = (
                {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}
            )
            self._engine = sa.create_engine(url, pool_pre_ping=True, **options)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _tune)
            self._create()
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(
                f"params.yaml: serve.database: {redact(url)}: cannot be opened ({redact(first)})"
            ) from None
        insert: Any = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        self._count = (
            insert(_rates)
            .values(key_id=sa.bindparam("k"), minute=sa.bindparam("m"), requests=1)
            .on_conflict_do_update(
                index_elements=["key_id", "minute"], set_={"requests": _rates.c.requests + 1}
            )
            .returning(_rates.c.requests)
        )

    def _create(self) -> None:
        """Tables and indexes that are not there; another gateway may be making them. Looking first takes no lock."""
        known = sa.inspect(self._engine)
        for table in _tables.sorted_tables:
            made: list[sa.schema.ExecutableDDLElement] = []
            there = known.has_table(table.name)
            if not there:
                made.append(sa.schema.CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                if not there or not known.has_index(table.name, str(index.name)):
                    made.append(sa.schema.CreateIndex(index, if_not_exists=True))
            for statement in made:
                with self._engine.begin() as db:
                    db.execute(statement)

    def read_keys(self) -> list[Key]:
        """Every key, oldest first."""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(_keys).order_by(_keys.c.created_s)).mappings().all()
        return [
            Key(
                **{
                    **row,
                    "candidates": frozenset(json.loads(row["candidates"]))
                    if row["candidates"] is not None
                    else None,
                }
            )
            for row in rows
        ]

    def add_key(self, key: Key) -> None:
        """Keep a key's digest and limits.

        Raises: ConfigError if another key has its name.
        """
        allowed = None if key.candidates is None else json.dumps(sorted(key.candidates))
        values = {name: getattr(key, name) for name in Key.__dataclass_fields__}
        try:
            with self._engine.begin() as db:
                db.execute(_keys.insert().values({**values, "candidates": allowed}))
        except sa.exc.IntegrityError:
            raise ConfigError(
                f"key {key.name!r}: exists already; remove it or choose another name"
            ) from None

    def remove_key(self, name: str) -> None:
        """Forget a key.

        Raises: ConfigError if there is none of this name.
        """
        with self._engine.begin() as db:
            found = db.execute(_keys.delete().where(_keys.c.name == name)).rowcount
        if not found:
            raise ConfigError(f"key {name!r}: there is none of this name")

    def count_request(self, key_id: str, minute: int) -> int:
        """Count one more request of a key in a minute; gives the count of all gateways."""
        with self._engine.begin() as db:
            count = db.execute(self._count, {"k": key_id, "m": minute}).scalar_one()
            if count == 1:
                db.execute(
                    _rates.delete().where(_rates.c.key_id == key_id, _rates.c.minute < minute - 1)
                )
        return int(count)

    def write_requests(self, rows: Iterable[RequestRow]) -> None:
        """Keep finished requests."""
        values = [
            {
                **_values(row),
                "calls": json.dumps(list(row.calls)),
            }
            for row in rows
        ]
        with self._engine.begin() as db:
            db.execute(_requests.insert(), values)

    def request(self, number: str) -> RequestRow | None:
        """A request by its id."""
        with self._engine.connect() as db:
            row = (
                db.execute(sa.select(_requests).where(_requests.c.id == number)).mappings().first()
            )
        return None if row is None else RequestRow(**{**row, "calls": json.loads(row["calls"])})

    def requests(self, since_s: float = 0.0) -> list[RequestRow]:
        """The requests since a time, oldest first."""
        query = sa.select(_requests).where(_requests.c.at_s >= since_s).order_by(_requests.c.at_s)
        with self._engine.connect() as db:
            rows = db.execute(query).mappings().all()
        return [RequestRow(**{**row, "calls": json.loads(row["calls"])}) for row in rows]

    def write_feedback(self, row: FeedbackRow) -> None:
        """Keep what a user said."""
        values = _values(row)
        with self._engine.begin() as db:
            db.execute(_feedback.insert().values(values))

    def feedback(self) -> list[FeedbackRow]:
        """All feedback, oldest first."""
        query = sa.select(_feedback).order_by(_feedback.c.at_s, _feedback.c.id)
        with self._engine.connect() as db:
            rows = db.execute(query).mappings().all()
        names = FeedbackRow.__dataclass_fields__
        return [FeedbackRow(**{name: row[name] for name in names}) for row in rows]

    def write_pair(self, row: PairRow) -> None:
        """Keep a pair of answers."""
        values = {name: getattr(row, name) for name in PairRow.__dataclass_fields__}
        with self._engine.begin() as db:
            db.execute(_pairs.insert().values(values))

    def pairs(self, shadow: str) -> list[PairRow]:
        """All pairs with a shadow, oldest first."""
        query = sa.select(_pairs).where(_pairs.c.shadow == shadow).order_by(_pairs.c.at_s)
        with self._engine.connect() as db:
            return [PairRow(**row) for row in db.execute(query).mappings().all()]

    def count_pairs(self, shadow: str, champion: str) -> int:
        """How many pairs there are of these two, of all gateways that share the database."""
        query = (
            sa.select(sa.func.count())
            .select_from(_pairs)
            .where(_pairs.c.shadow == shadow, _pairs.c.champion == champion)
        )
        with self._engine.connect() as db:
            return int(db.execute(query).scalar_one())

    def outcomes(
        self, version: str, model: str, since_s: float, most: int
    ) -> list[tuple[str, int, float]]:
        """Id, status and seconds of the latest requests, oldest first; not of those that the client got wrong."""
        kept = _requests.c
        query = (
            sa.select(kept.id, kept.status, kept.seconds)
            .where(kept.at_s >= since_s, kept.version == version, kept.model == model)
            .where(sa.not_(kept.status.between(400, 499)))
            .order_by(kept.at_s.desc())
            .limit(most)
        )
        with self._engine.connect() as db:
            return [(row.id, row.status, row.seconds) for row in db.execute(query)][::-1]

    def scores(self, version: str, model: str, since_s: float, most: int) -> dict[str, float]:
        """Users' latest scores by request, oldest first."""
        said, kept = _feedback.c, _requests.c
        query = (
            sa.select(said.request_id, said.score)
            .join(_requests, kept.id == said.request_id)
            .where(said.at_s >= since_s, said.score.is_not(None))
            .where(kept.version == version, kept.model == model)
            .order_by(said.at_s.desc(), said.id.desc())
            .limit(most)
        )
        with self._engine.connect() as db:
            return {row.request_id: row.score for row in db.execute(query).all()[::-1]}

    def write_trials(self, rows: Iterable[TrialRow]) -> None:
        """Keep what happened in trials."""
        with self._engine.begin() as db:
            db.execute(_trials.insert(), [_values(row) for row in rows])

    def trial_values(
        self, canary: str, kind: str, version: str, since_s: float, most: int
    ) -> dict[str, float]:
        """The latest values by request, oldest first."""
        row = _trials.c
        query = (
            sa.select(row.request_id, row.value)
            .where(row.canary == canary, row.kind == kind, row.version == version)
            .where(row.at_s >= since_s)
            .order_by(row.at_s.desc())
            .limit(most)
        )
        with self._engine.connect() as db:
            return {found.request_id: found.value for found in db.execute(query).all()[::-1]}

    def join_trial(self, canary: str, now_s: float) -> float:
        """When the trial of a canary began: now, unless one is under way."""
        last = self._last_of_trial(canary)
        if last is not None and last.kind == "began":
            return last.at_s
        self.write_trials([TrialRow(canary, now_s, "began", canary)])
        return now_s

    def trial_ended(self, canary: str, since_s: float) -> str | None:
        """Why a gateway ended the trial that began then; None if none did."""
        row = _trials.c
        query = (
            sa.select(row.why)
            .where(row.canary == canary, row.kind == "returned", row.at_s >= since_s)
            .order_by(row.at_s)
            .limit(1)
        )
        with self._engine.connect() as db:
            return db.execute(query).scalar_one_or_none()

    def _last_of_trial(self, canary: str) -> TrialRow | None:
        row = _trials.c
        query = (
            sa.select(_trials)
            .where(row.canary == canary, row.kind.in_(("began", "returned")))
            .order_by(row.at_s.desc(), row.id.desc())
            .limit(1)
        )
        with self._engine.connect() as db:
            found = db.execute(query).mappings().first()
        names = TrialRow.__dataclass_fields__
        return None if found is None else TrialRow(**{name: found[name] for name in names})

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def database_of(params: ServeParams) -> str | None:
    """The address of the database: of the parameters, else of the environment, which may hold a password."""
    return params.database or os.environ.get(VARIABLE) or None


def _values(row: RequestRow | FeedbackRow | TrialRow) -> dict[str, object]:
    """The fields of a row. PostgreSQL refuses texts with the character 0, so it is replaced."""
    found = {name: getattr(row, name) for name in type(row).__dataclass_fields__}
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in found.items()
    }


class Writer:
    """Writes finished requests and trials in a thread of its own, several in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: queue.Queue[RequestRow | TrialRow | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="routerr1-serve-writer", daemon=True)
        self._thread.start()

    def put(self, row: RequestRow | TrialRow) -> None:
        """Write a row soon."""
        self._waiting.put(row)

    def flush(self) -> None:
        """Wait until what was put is written; used before a request is looked up."""
        deadline = time.monotonic() + 5
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.002)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            rows = [self._waiting.get()]
            if rows[0] is not None:
                time.sleep(_GATHER_S)
            while len(rows) < 500 and not self._waiting.empty():
                rows.append(self._waiting.get())
            requests = [row for row in rows if isinstance(row, RequestRow)]
            trials = [row for row in rows if isinstance(row, TrialRow)]
            _write(self._store.write_requests, requests)
            _write(self._store.write_trials, trials)
            for _ in rows:
                self._waiting.task_done()
            if None in rows:
                return


def _write(write: Callable[[list[T]], None], rows: list[T]) -> None:
    if not rows:
        return
    try:
        write(rows)
    except sa.exc.SQLAlchemyError as error:
        _log.error("%d rows are not kept: %s", len(rows), str(error).splitlines()[0])


def _tune(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
