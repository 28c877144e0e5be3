"""The dataset stage: from the sources to the split files, in two passes over a spool on disk.

The first pass reads and cleans every row once; duplicates and splits are then decided on numbers
(`allocate.py`); the second pass writes the rows that stay. Memory grows by some 40 bytes a row.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1.config import DatasetParams
from routerr1.data import card, text
from routerr1.data.allocate import Allocation, Repeat, Rows
from routerr1.data.clean import SAYS, Reason, RefusedError
from routerr1.data.near import HeldOut, Worded, kept_apart
from routerr1.data.origins import Origin, origins
from routerr1.data.splits import GROUP_ROWS, SplitWriter, chunks, schema, to_table
from routerr1.errors import DataError
from routerr1.files import atomic_directory, atomic_write_text, write_json
from routerr1.types import SPLITS, Question

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
Progress = Callable[[int], None]


def build_dataset(
    params: DatasetParams, folder: Path, *, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Write the split files, card.md, metrics.json and refused.jsonl into `folder`, all or nothing.

    Args:
        progress: called with the number of rows read.

    Returns: what metrics.json holds: per data set the rows of each split, how many rows were read,
        how many were left out by reason, and how many golds were dropped from rows that were kept.
    Raises: DataError naming file and line of a source that cannot be understood.
    """
    with atomic_directory(folder) as aside:
        metrics = _Build(params, aside, progress).run()
        write_json(aside / "metrics.json", metrics)
        atomic_write_text(aside / "card.md", card.render(params, aside, metrics))
    return metrics


class _Build:
    """One run of the stage; `folder` holds the spool and the list of refusals meanwhile."""

    def __init__(self, params: DatasetParams, folder: Path, progress: Progress) -> None:
        self.params = params
        self.folder = folder
        self.progress = progress
        self.origins = origins(params)
        self.rows = Rows()
        self.kept_apart = bytearray()
        self.read: Counter[str] = Counter()
        self.dropped_golds: Counter[str] = Counter()
        self.refused: dict[str, Counter[Reason]] = {}
        self.spool = folder / "spool.parquet"

    def run(self) -> dict[str, Any]:
        with (self.folder / "refused.jsonl").open("w", encoding="utf-8") as self._refusals:
            self._ingest()
            if not len(self.rows):
                reasons = sum(self.refused.values(), Counter[Reason]())
                listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
                raise DataError(f"params.yaml: dataset: no usable row in any source ({listed})")
            allocation = Allocation(self.rows, [origin.stock for origin in self.origins])
            self._note_repeats("duplicate_id", allocation.repeated_ids)
            self._note_repeats("duplicate", allocation.repeated)
            near = self._near(allocation)
            allocation.drop([repeat.row for repeat in near])
            self._note_repeats("near_duplicate", near)
        counts = self._write(allocation)
        self.spool.unlink()
        return {
            "rows": counts,
            "read": dict(self.read),
            "refused": {name: dict(reasons) for name, reasons in self.refused.items()},
            "dropped_golds": dict(self.dropped_golds),
        }

    def _ingest(self) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(self.spool, schema(), compression="zstd") as writer:
            for some in chunks(self._questions(), GROUP_ROWS):
                writer.write_table(to_table(some))
                self.progress(len(self.rows))

    def _questions(self) -> Iterator[Question]:
        for number, origin in enumerate(self.origins):
            for read in origin.read():
                self.read[origin.stock.dataset] += 1
                if isinstance(read.row, RefusedError):
                    self._refuse(origin, read.line, read.row.reason)
                    continue
                row = read.row
                self.rows.add(
                    number, read.line, row.dataset, row.id, row.question, self.params.seed
                )
                self.kept_apart.append(kept_apart(row.metadata))
                self.dropped_golds[row.dataset] += read.dropped_golds
                yield row

    def _refuse(self, origin: Origin, line: int, reason: Reason, **more: object) -> None:
        self.refused.setdefault(origin.stock.dataset, Counter())[reason] += 1
        entry = {"file": origin.name, "line": line, "reason": reason, "says": SAYS[reason], **more}
        self._refusals.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")

    def _note_repeats(self, reason: Reason, repeats: list[Repeat]) -> None:
        for repeat in repeats:
            origin = self.origins[self.rows.stock[repeat.row]]
            kept = self.origins[self.rows.stock[repeat.kept]]
            also = f"{kept.name}, line {self.rows.line[repeat.kept]}"
            self._refuse(origin, self.rows.line[repeat.row], reason, kept=also)

    def _near(self, allocation: Allocation) -> list[Repeat]:
        held_out = HeldOut(self.params.near_duplicate)
        held_out.add(self._spooled(allocation.held_out()))
        found = held_out.find(self._spooled(allocation.may_train()))
        return [Repeat(near.row, near.held_out) for near in found]

    def _spooled(self, wanted: Any) -> Iterator[Worded]:
        """The rows `wanted` (a mask) as they are compared, from the spool."""
        first = 0
        for table in self._tables():
            mask = wanted[first : first + table.num_rows]
            questions = table["question"].filter(mask).to_pylist()
            for place, question in zip(mask.nonzero()[0].tolist(), questions, strict=True):
                row = first + place
                apart = self._dataset(row) if self.kept_apart[row] else None
                yield Worded(row, text.comparable(question), apart)
            first += table.num_rows

    def _dataset(self, row: int) -> str:
        return self.origins[self.rows.stock[row]].stock.dataset

    def _tables(self) -> Iterator["pa.Table"]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.spool) as file:
            for batch in file.iter_batches(batch_size=GROUP_ROWS):
                yield pa.Table.from_batches([batch])

    def _write(self, allocation: Allocation) -> Mapping[str, Mapping[str, int]]:
        import numpy as np
        import pyarrow as pa

        codes = allocation.split_codes()
        place = schema().get_field_index("split")
        with SplitWriter(self.folder) as writer:
            first = 0
            for table in self._tables():
                mine = codes[first : first + table.num_rows]
                first += table.num_rows
                names = pa.array(np.array(SPLITS)[mine[mine >= 0]], pa.string())
                kept = table.filter(mine >= 0).set_column(place, "split", names)
                writer.write(kept.cast(schema()))
        return writer.counts


def wanted_rows(params: DatasetParams) -> Mapping[str, Mapping[str, int | None]]:
    """Rows that `params` require, by data set and split; None for any number."""
    wanted: dict[str, dict[str, int | None]] = {}
    for origin in origins(params):
        splits = wanted.setdefault(origin.stock.dataset, dict.fromkeys(SPLITS, 0))
        for split, rows in origin.wanted().items():
            before = splits[split]
            splits[split] = None if rows is None or before is None else before + rows
    return wanted
