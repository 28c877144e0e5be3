"""Import of a user's file of questions, with a report of the refused rows and the reasons."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from routerr1.answers.long_answer import Embed
from routerr1.answers.verifiers import answers_in_words, without_options
from routerr1.config import ColumnsParams
from routerr1.data import embedded, text
from routerr1.data.benchmarks import BENCHMARKS
from routerr1.data.clean import SAYS, Cleaned, Reason, RefusedError, clean
from routerr1.data.conversation import gist
from routerr1.data.meaning import find_topics, same_meaning
from routerr1.data.sources import Raw, read_rows
from routerr1.data.splits import GROUP_ROWS, FileWriter, chunks, to_table
from routerr1.errors import DataError
from routerr1.files import atomic_path, read_json, sha256, write_json
from routerr1.matching import Rule
from routerr1.types import SPLITS, Question, Split

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RESERVED = {embedded.DATASET, *BENCHMARKS}
_log = logging.getLogger(__name__)

MOST_EMBEDDED = 20_000
"""Rows of a file that are embedded; a row takes some milliseconds."""


KNOWN = Path("data/imported.json")
"""Digest of every imported file, by path. Git keeps it, and DVC uses it in a clone without the files."""


class Shares(NamedTuple):
    """How much of a file is held out; the rest is for training. Each in [0, 1], together at most 1."""

    test: float
    validation: float


class Imported(NamedTuple):
    """The result of an import.

    Attributes:
        refused: number of rows by reason; the report lists each with its line.
        dropped_golds: empty or repeated golds in rows that were kept.
        topics: topic -> its questions; empty where the rows name none and none were found.
        topics_found: the topics are clusters, not a column's.
        alike: rows that ask the same as an earlier row in other words, and so share its split.
    """

    path: Path
    report: Path
    rows: Counter[Split]
    refused: Counter[Reason]
    dropped_golds: int
    topics: Counter[str]
    topics_found: bool
    alike: int

    def lines(self) -> list[str]:
        """What was imported and what was not, as lines for people."""
        rows = ", ".join(f"{split} {count}" for split, count in sorted(self.rows.items()))
        lines = [f"{self.path}: {self.rows.total()} questions ({rows})"]
        if self.topics:
            named = ", ".join(f"{name} ({count})" for name, count in self.topics.most_common())
            lines.append(f"topics{' found' if self.topics_found else ''}: {named}")
            if self.topics_found:
                lines.append("(--topic COLUMN takes topics of your own, which are better)")
        elif self.topics_found:
            lines.append("topics: none found, the questions are all of one kind")
        if self.alike:
            lines.append(
                f"{self.alike} questions ask what another asks in other words; each stays in the other's split"
            )
        lines += [f"refused {n}: {SAYS[reason]}" for reason, n in sorted(self.refused.items())]
        if self.dropped_golds:
            lines.append(f"dropped {self.dropped_golds} answers that are empty or repeated")
        if self.refused:
            lines.append(f"lines and reasons: {self.report}")
        return lines


def import_file(
    file: Path,
    name: str,
    columns: ColumnsParams,
    *,
    out: Path,
    shares: Shares,
    split_column: str | None = None,
    seed: int = 42,
    matching: Rule = "text",
    header: Sequence[str] = (),
    embed: Embed | None = None,
) -> Imported:
    """Turn `file` into out/NAME.parquet, with out/NAME.refused.jsonl beside it.

    Args:
        shares: used unless `split_column` names a column that holds the splits. Without `embed`, which
            split a question goes to depends on its wording and `seed` only, not on the rest of the file.
        embed: finds topics, unless `columns.topic` names them, and questions that ask the same, which go
            to one split. Of up to `MOST_EMBEDDED` rows, which are held in memory; None finds neither.
        matching: the rule that compares answers; each row has it.
        header: names of the columns of a CSV file without a header line.

    Raises: DataError naming file and line if the file cannot be understood, if no row can be used,
        if a split is unknown, or if the name is taken by a benchmark.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise DataError(
            f"--name {name}: must be letters, digits, '_', '.' or '-', and none of {sorted(_RESERVED)}"
        )
    if min(shares) < 0 or sum(shares) > 1:
        raise DataError("--test and --validation: must be at least 0, and together at most 1")
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: is a file; name a folder")
    path, report = out / f"{name}.parquet", out / f"{name}.refused.jsonl"
    importer = _Importer(file, name, columns, shares, split_column, seed, matching, header, embed)
    with (
        atomic_path(path) as rows_aside,
        atomic_path(report) as report_aside,
        report_aside.open("w", encoding="utf-8") as importer.report,
    ):
        with FileWriter(rows_aside) as writer:
            for some in chunks(importer.questions(), GROUP_ROWS):
                writer.write(to_table(some))
        if not importer.rows:
            raise DataError(f"{file}: no usable row; {importer.reasons()}")
    return Imported(
        path, report, importer.rows, importer.refused, importer.dropped_golds,
        importer.topics, importer.topics_found, importer.alike,
    )  # fmt: skip


def remember(path: Path) -> None:
    """Note an imported file's digest in `KNOWN`.

    Raises: DataError if `KNOWN` is not such a list.
    """
    write_json(KNOWN, {**_known(), path.as_posix(): sha256(path)})


def require_known(paths: Iterable[Path]) -> None:
    """Refuse files that `KNOWN` does not list, because DVC would not see them change.

    Raises: DataError naming the file that is missing, or is not the one that was imported.
    """
    known = _known()
    for path in paths:
        if path.as_posix() not in known:
            raise DataError(f"{path}: is not in {KNOWN}; `routerr1 data import` writes it there")
        if not path.is_file():
            raise DataError(f"{path}: not found; fetch it (`dvc pull`) or import it again")
        if sha256(path) != known[path.as_posix()]:
            raise DataError(
                f"{path}: is not the file that {KNOWN} knows; fetch that one (`dvc checkout`), or import yours"
            )


def named_by_digest(paths: Iterable[Path]) -> str:
    """Each imported file by its name and the beginning of its digest.

    Raises: DataError as `require_known`.
    """
    files = sorted(paths)
    require_known(files)
    known = _known()
    return ", ".join(f"{path.stem}@{known[path.as_posix()][:12]}" for path in files)


def _known() -> dict[str, Any]:
    known = read_json(KNOWN) if KNOWN.is_file() else {}
    if not isinstance(known, dict):
        raise DataError(f"{KNOWN}: is no list of files and digests")
    return known


class _Importer:
    def __init__(
        self,
        file: Path,
        name: str,
        columns: ColumnsParams,
        shares: Shares,
        split_column: str | None,
        seed: int,
        matching: Rule,
        header: Sequence[str],
        embed: Embed | None,
    ) -> None:
        self.file = file
        self.name = name
        self.columns = columns
        self.shares = shares
        self.split_column = split_column
        self.seed = seed
        self.matching = matching
        self.header = header
        self.embed = embed
        self.topics: Counter[str] = Counter()
        self.topics_found = False
        self.alike = 0
        self.rows: Counter[Split] = Counter()
        self.refused: Counter[Reason] = Counter()
        self.dropped_golds = 0
        self.report: IO[str]
        self._ids: set[int] = set()
        self._keys: set[int] = set()

    def questions(self) -> Iterator[Question]:
        rows = self._usable()
        some = [] if self.embed is None else list(islice(rows, MOST_EMBEDDED + 1))
        if self.embed is not None and 0 < len(some) <= MOST_EMBEDDED:
            yield from self._arranged(some, self.embed)
            return
        if some:
            _log.warning(
                "%s: holds more than %d rows, so topics and questions of one meaning are not looked for",
                self.file, MOST_EMBEDDED,
            )  # fmt: skip
        for raw, row in chain(some, rows):
            yield self._taken(row, self._split(raw, row))

    def _usable(self) -> Iterator[tuple[Raw, Cleaned]]:
        needed = [self.columns.question, self.columns.golden_answers]
        needed += [
            c for c in (self.columns.hops, self.columns.topic, self.split_column) if c is not None
        ]
        needed += self.columns.options
        more = (self.columns.id, self.columns.metadata)
        only = [*needed, *(c for c in more if c is not None)]
        for raw in read_rows(self.file, needed, self.header, only=only):
            try:
                yield raw, self._clean(raw)
            except RefusedError as error:
                self._refuse(raw.line, error.reason)

    def _taken(self, row: Cleaned, split: Split) -> Question:
        self.rows[split] += 1
        self.dropped_golds += row.dropped_golds
        if topic := row.metadata.get("topic"):
            self.topics[str(topic)] += 1
        return row.to_question(self.name, split)

    def _arranged(self, rows: Sequence[tuple[Raw, Cleaned]], embed: Embed) -> Iterator[Question]:
        """The rows with topics, and with the questions of one meaning in one split."""
        # Options say what an answer may be, not what the question is about.
        texts = [without_options(row.question, row.metadata) for _, row in rows]
        vectors = embed(texts)
        topics: Sequence[str | None] = [None] * len(rows)
        if self.columns.topic is None and not any("topic" in row.metadata for _, row in rows):
            self.topics_found = True
            named_by = [gist(each) for each in texts]
            topics = find_topics(named_by, vectors, seed=self.seed) or topics
        answers = [answers_in_words(row.golden_answers, row.metadata) for _, row in rows]
        groups = same_meaning(vectors, answers, [self.matching] * len(rows))
        self.alike = len(groups) - len(set(groups))
        splits = {} if self.split_column is not None else self._splits_of(groups, texts)
        for place, (raw, row) in enumerate(rows):
            found = {"topic": topics[place]} if topics[place] is not None else {}
            group = rows[groups[place]][1].id.replace("/", "_")  # a slash joins facts
            known = {"group": group, **found, **row.metadata}
            if self.split_column is not None:  # wording decides what is left out of training
                del known["group"]
                known |= {key: row.metadata[key] for key in ("group",) if key in row.metadata}
            split = splits.get(groups[place]) or self._split(raw, row)
            yield self._taken(replace(row, metadata=known), split)

    def _splits_of(self, groups: Sequence[int], texts: Sequence[str]) -> dict[int, Split]:
        """The split of each group: test and validation are filled in the order of a seeded digest."""
        sizes = Counter(groups)
        order = sorted(sizes, key=lambda group: self._place(texts[group]))
        wanted = {"test": self.shares.test, "validation": sum(self.shares)}
        found: dict[int, Split] = {}
        filled = 0
        for group in order:
            place = (filled + sizes[group] / 2) / len(groups)
            filled += sizes[group]
            found[group] = (
                "test" if place < wanted["test"]
                else "validation" if place < wanted["validation"] else "train"
            )  # fmt: skip
        return found

    def _clean(self, raw: Raw) -> Cleaned:
        if raw.values is None:
            raise RefusedError("line_too_long")
        row = clean(raw.values, self.columns, f"{self.name}_{raw.line}", self.matching)
        row_id, key = text.key(row.id), text.key(text.comparable(row.question))
        if row_id in self._ids:
            raise RefusedError("duplicate_id")
        if key in self._keys:
            raise RefusedError("duplicate")
        self._ids.add(row_id)
        self._keys.add(key)
        return row

    def _refuse(self, line: int, reason: Reason) -> None:
        self.refused[reason] += 1
        entry = {"file": str(self.file), "line": line, "reason": reason, "says": SAYS[reason]}
        self.report.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")

    def _split(self, raw: Raw, row: Cleaned) -> Split:
        if self.split_column is not None:
            found = (raw.values or {})[self.split_column]
            for split in SPLITS:
                if found == split:
                    return split
            raise DataError(
                f"{self.file}, line {raw.line}: {self.split_column} is {found!r}, "
                f"must be one of {', '.join(SPLITS)}"
            )
        place = self._place(row.question)
        if place < self.shares.test:
            return "test"
        return "validation" if place < sum(self.shares) else "train"

    def _place(self, question: str) -> float:
        """A number from 0 to 1 that depends on the wording and the seed."""
        seeded = f"{self.seed}\0{text.comparable(question)}".encode()
        return int.from_bytes(blake2b(seeded, digest_size=8).digest(), "big") / 2**64

    def reasons(self) -> str:
        """Counts of the refusals, in words."""
        return ", ".join(f"{count} refused: {SAYS[why]}" for why, count in self.refused.items())
