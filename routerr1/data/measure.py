"""A SQLite file with one row per question, on which expectations are checked.

SQLite holds, sorts and groups the rows on disk and finds each offending row. Memory is the same for
a thousand rows and for millions, and no row is sampled.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routerr1.config import ChecksParams
from routerr1.data import near, text
from routerr1.data.drift import Profile, drifts
from routerr1.data.splits import Counts, open_parquet, read_tables, schema_problems, split_path
from routerr1.matching import Rule
from routerr1.types import SPLITS, Split

_TABLES = """
CREATE TABLE columns (split TEXT, file TEXT, problem TEXT);
CREATE TABLE questions (
    row INTEGER PRIMARY KEY, file TEXT, split TEXT, dataset TEXT, id TEXT, question TEXT, golds TEXT,
    key INTEGER, chars INTEGER, num_golds INTEGER, unusable_golds INTEGER, empty_golds INTEGER,
    hops INTEGER, metadata_ok INTEGER
);
CREATE TABLE facts (row INTEGER, split TEXT, fact TEXT);
CREATE TABLE near (
    split TEXT, id TEXT, question TEXT, held_out_id TEXT, held_out TEXT, similarity REAL
);
CREATE TABLE sets (
    dataset TEXT, split TEXT, rows INTEGER, wanted INTEGER, leaks INTEGER, leakage REAL, max_leakage REAL
);
CREATE TABLE drift (
    dataset TEXT, split TEXT, measure TEXT, distance REAL, max_distance REAL
);
"""
_INDEXES = """
CREATE INDEX by_key ON questions (key, split);
CREATE INDEX by_id ON questions (dataset, id);
CREATE INDEX by_fact ON facts (fact, split);
ANALYZE;
"""

Progress = Callable[[int, int], None]


@dataclass
class Measured:
    """Counts of the pass over the files, per data set and split."""

    counts: Counts = field(default_factory=dict)
    leaks: Counts = field(default_factory=dict)
    profile: Profile = field(default_factory=Profile)
    num_compared: int = 0
    num_held_out: int = 0
    num_near: int = 0
    num_facts: int = 0


def measure_columns(folder: Path, database: Path) -> list[str]:
    """Make the tables and put into `columns` how each split file differs from the schema.

    Raises: DataError if a file is missing or no Parquet file.
    """
    problems = []
    for split in SPLITS:
        path = split_path(folder, split)
        with open_parquet(path) as file:
            found = schema_problems(file.schema_arrow)
        problems += [(split, path.name, problem) for problem in found]
    with closing(sqlite3.connect(database)) as store, store:
        store.executescript(_TABLES)
        store.executemany("INSERT INTO columns VALUES (?, ?, ?)", problems)
    return [problem for *_, problem in problems]


def measure_rows(
    folder: Path,
    database: Path,
    params: ChecksParams,
    *,
    near_duplicate: float,
    wanted: Mapping[str, Mapping[str, int | None]],
    accepted: Profile,
    progress: Progress,
) -> Measured:
    """Fill the other tables from the split files of `folder`, in one pass.

    Args:
        near_duplicate: similarity from which a training question may not resemble a held-out one.
        wanted: rows that params require, by data set and split; None for any number.
        accepted: profile of the last accepted data; empty if there is none.
        progress: called with the rows read and their total.
    """
    seen = Measured()
    with closing(sqlite3.connect(database)) as store, store:
        # The file need not survive a crash, which discards it.
        store.execute("PRAGMA journal_mode = OFF")
        store.execute("PRAGMA synchronous = OFF")
        held_out = near.HeldOut(near_duplicate)
        total = sum(_num_rows(split_path(folder, split)) for split in SPLITS)
        # Held-out rows first, so that the index is complete for training rows.
        for split in reversed(SPLITS):
            for read in _load(store, folder, split, held_out, seen):
                progress(read, total)
        store.executescript(_INDEXES)
        store.executemany(
            "INSERT INTO sets VALUES (?, ?, ?, ?, ?, ?, ?)", _set_rows(seen, wanted, params)
        )
        store.executemany(
            "INSERT INTO drift VALUES (?, ?, ?, ?, ?)",
            drifts(seen.profile, accepted, params.max_drift),
        )
    return seen


def _load(
    store: sqlite3.Connection, folder: Path, split: Split, held_out: near.HeldOut, seen: Measured
) -> Iterator[int]:
    """Load one file; returns the number of rows so far."""
    path = split_path(folder, split)
    first = store.execute("SELECT coalesce(max(row), 0) + 1 FROM questions").fetchone()[0]
    for table in read_tables(path):
        rows = [_Row(first + place, row) for place, row in enumerate(table.to_pylist())]
        first += len(rows)
        store.executemany(
            "INSERT INTO questions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.columns(path.name) for row in rows),
        )
        facts = [fact for row in rows for fact in row.facts(split)]
        seen.num_facts += len(facts)
        store.executemany("INSERT INTO facts VALUES (?, ?, ?)", facts)
        for row in rows:
            _count(seen, row, split)
        _compare(store, split, held_out, [row for row in rows if row.comparable], seen)
        yield first - 1


def _num_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _count(seen: Measured, row: "_Row", split: Split) -> None:
    seen.counts.setdefault(row.dataset, dict.fromkeys(SPLITS, 0))[split] += 1
    seen.leaks.setdefault(row.dataset, dict.fromkeys(SPLITS, 0))[split] += row.leaks
    seen.profile.add(row.dataset, split, row.question, row.golds, row.topic)


def _compare(
    store: sqlite3.Connection,
    split: Split,
    held_out: near.HeldOut,
    rows: Sequence["_Row"],
    seen: Measured,
) -> None:
    if split != "train":
        held_out.add(row.worded for row in rows)
        return
    by_number = {row.number: row for row in rows}
    for row in rows:
        others = held_out.num_compared(row.worded.apart)
        seen.num_compared += others > 0
        seen.num_held_out = max(seen.num_held_out, others)
    for pair in held_out.find(row.worded for row in rows):
        row = by_number[pair.row]
        other = store.execute(
            "SELECT id, question, key FROM questions WHERE row = ?", (pair.held_out,)
        ).fetchone()
        if other[2] == row.key:
            continue  # another expectation covers exact duplicates
        seen.num_near += 1
        store.execute(
            "INSERT INTO near VALUES (?, ?, ?, ?, ?, ?)",
            (split, row.id, row.question, other[0], other[1], round(pair.similarity, 4)),
        )


def _set_rows(
    seen: Measured, wanted: Mapping[str, Mapping[str, int | None]], params: ChecksParams
) -> Iterator[tuple[object, ...]]:
    for dataset in sorted({*seen.counts, *wanted}):
        limit = params.max_leakage_by_set.get(dataset, params.max_leakage)
        for split in SPLITS:
            rows = seen.counts.get(dataset, {}).get(split, 0)
            leaks = seen.leaks.get(dataset, {}).get(split, 0)
            # A data set that params do not name must have no row.
            want = wanted[dataset].get(split, 0) if dataset in wanted else 0
            yield dataset, split, rows, want, leaks, leaks / rows if rows else 0.0, limit


class _Row:
    """One question as the file has it, valid or not, and its measurements."""

    def __init__(self, number: int, row: Mapping[str, Any]) -> None:
        self.number = number
        self.split = row["split"]
        self.dataset = row["dataset"] or ""
        self.id = row["id"]
        self.question = row["question"] or ""
        self.answers: list[str | None] = row["golden_answers"] or []
        self.golds = [gold for gold in self.answers if gold is not None]
        self.hops = row["hops"]
        self.metadata = _object(row["metadata"])
        self.comparable = text.comparable(self.question)
        self.key = text.key(self.comparable) if self.comparable else None
        self.matching: Rule = "text" if (self.metadata or {}).get("matching") == "text" else "squad"
        self.leaks = text.leaks(self.question, self.golds, self.matching)

    @property
    def worded(self) -> near.Worded:
        apart = self.dataset if near.kept_apart(self.metadata or {}) else None
        return near.Worded(self.number, self.comparable, apart)

    @property
    def topic(self) -> str | None:
        """What the row says it is about: a column of its own, or a topic that the import found."""
        named = (self.metadata or {}).get("topic")
        return named if isinstance(named, str) and named else None

    def columns(self, file: str) -> tuple[object, ...]:
        missing = sum(gold is None for gold in self.answers)
        # One alias among others may look written out: TriviaQA lists the colour (0, 255, 0).
        written_out = all(gold and text.looks_serialised(gold) for gold in self.answers)
        unusable = len(self.answers) if written_out else missing
        empty = [gold for gold in self.golds if not text.says_something(gold, self.matching)]
        return (
            self.number, file, self.split, self.dataset, self.id, self.question,
            json.dumps(self.answers, ensure_ascii=False), self.key, len(self.question),
            len(self.answers), unusable, len(empty), self.hops, self.metadata is not None,
        )  # fmt: skip

    def facts(self, split: Split) -> Iterator[tuple[object, ...]]:
        """The facts that a row needs: the names in its `group`, joined by slashes; each data set has its own."""
        group = self.metadata.get("group") if self.metadata else None
        if not group or not isinstance(group, str):
            return
        for fact in group.split("/"):
            yield self.number, split, f"{self.dataset}/{fact}"


def _object(metadata: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(metadata or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
