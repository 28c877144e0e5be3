"""Description of the questions for people: tables on the console and a data card beside the files."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routerr1.config import DatasetParams
from routerr1.data import embedded
from routerr1.data.benchmarks import BENCHMARKS
from routerr1.data.splits import open_parquet, read_tables, split_path
from routerr1.errors import DataError
from routerr1.files import read_json, sha256
from routerr1.types import SPLITS


@dataclass
class Group:
    """One data set in one split."""

    rows: int = 0
    hops: Counter[int | None] = field(default_factory=Counter)
    chars: int = 0
    longest: int = 0
    golds: int = 0
    rules: set[str] = field(default_factory=set)

    def cells(self) -> list[str]:
        """rows, hops, mean and longest question in characters, golds a question, rule of matching."""
        hops = sorted(self.hops.items(), key=lambda item: item[0] or 0)
        named = ", ".join(f"{hop or 'unknown'}: {rows}" for hop, rows in hops)
        mean = f"{self.chars / self.rows:.0f} / {self.longest}"
        return [
            str(self.rows),
            named,
            mean,
            f"{self.golds / self.rows:.1f}",
            ", ".join(sorted(self.rules)),
        ]


_TEXT = re.compile(r'"matching":\s*"text"')
HEADINGS = (
    "data set", "split", "rows", "hops: rows", "chars mean / longest", "golds a question", "compared by",
)  # fmt: skip


def describe(folder: Path) -> dict[tuple[str, str], Group]:
    """Rows, hops and lengths by (data set, split), streamed from the files.

    Raises: DataError naming a file that is missing or not a split file.
    """
    groups: dict[tuple[str, str], Group] = {}
    for split in SPLITS:
        for table in read_tables(split_path(folder, split)):
            columns = table.select(
                ["dataset", "question", "golden_answers", "hops", "metadata"]
            ).to_pydict()
            for dataset, question, golds, hops, about in zip(*columns.values(), strict=True):
                group = groups.setdefault((dataset, split), Group())
                group.rows += 1
                group.hops[hops] += 1
                group.chars += len(question)
                group.longest = max(group.longest, len(question))
                group.golds += len(golds)
                group.rules.add("text" if _TEXT.search(about or "") else "squad")
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], SPLITS.index(item[0][1]))))


def sources(params: DatasetParams, datasets: Sequence[str]) -> list[tuple[str, str, str]]:
    """(data set, where it comes from, licence) of each."""
    found = []
    for dataset in datasets:
        if dataset == embedded.DATASET:
            found += [(dataset, package, terms) for package, terms in embedded.SOURCES.items()]
        elif dataset in BENCHMARKS and params.source == "benchmarks":
            at = params.benchmarks
            where = at.folder or f"{at.repo} at {at.revision}"
            known = BENCHMARKS[dataset]
            found.append((dataset, f"{known.source}, through {where}", known.licence))
        else:
            found.append((dataset, "imported", "as its owner says"))
    return found


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each split file, by name."""
    return {(path := split_path(folder, split)).name: sha256(path) for split in SPLITS}


def render(params: DatasetParams, folder: Path, metrics: Mapping[str, Any]) -> str:
    """The data card, in Markdown."""
    groups = describe(folder)
    rows = [[*place, *group.cells()] for place, group in groups.items()]
    refused = [
        [dataset, reason, str(count)]
        for dataset, reasons in sorted(metrics["refused"].items())
        for reason, count in sorted(reasons.items())
    ]
    files = [
        [name, str(open_parquet(folder / name).metadata.num_rows), f"`{digest}`"]
        for name, digest in digests(folder).items()
    ]
    parts = [
        "# Questions",
        f"Source: {params.source}; seed {params.seed}. Columns: id, dataset, question, "
        "golden_answers (any one counts as right), split, hops, metadata (JSON).",
        "## Rows",
        _table(HEADINGS, rows),
        "## Where they come from",
        _table(("data set", "source", "licence"), sources(params, sorted({p[0] for p in groups}))),
        "## Left out",
        "Every row left out stands in refused.jsonl with file, line and reason. Exact duplicates are "
        "found after NFKC, case folding and punctuation to blanks; the copy in the most reserved split "
        f"stays. Training questions with a Jaccard similarity of at least {params.near_duplicate} "
        "(character 4-grams) to a held-out one are dropped; rows that name the facts they ask for are "
        "kept apart by fact instead."
        + (
            " Imported rows with groups are compared by wording with other data sets only."
            if params.imported
            else ""
        ),
        _table(("data set", "reason", "rows"), refused) if refused else "Nothing was left out.",
        "## Files",
        _table(("file", "rows", "SHA-256"), files),
    ]
    return "\n\n".join(parts) + "\n"


def read(folder: Path) -> str:
    """The data card that the stage dataset wrote.

    Raises: DataError if it cannot be read.
    """
    path = folder / "card.md"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        why = error.strerror
        raise DataError(f"{path}: cannot be read ({why}); run `dvc repro dataset`") from None


def findings(checks: Path) -> str:
    """What the checks found, in Markdown; how to run them if they have not run.

    Raises: DataError if the metrics cannot be read.
    """
    file = checks / "metrics.json"
    if not file.is_file():
        return "## Checks\n\nNot run yet; run `dvc repro checks`."
    metrics = read_json(file)
    near, leaks = metrics.get("near"), metrics.get("leaks", {})
    compared = (
        f" Of {near['compared']} questions compared by wording with {near['held_out']} held-out ones, "
        f"{near['found']} are near duplicates."
        if near
        else ""
    )
    rows = [
        [dataset, *(str(counts.get(split, 0)) for split in SPLITS)]
        for dataset, counts in sorted(leaks.items())
    ]
    return "\n\n".join(
        [
            "## Checks",
            f"{metrics['passed']} of {metrics['expectations']} checks hold.{compared}",
            "Questions whose facts another split asks for too:",
            _table(("data set", *SPLITS), rows),
        ]
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
