"""Choice of rows and splits, from numbers alone, not from texts.

A row is 40-odd bytes here (keys, rank, place), so millions fit while their texts stay on disk.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from routerr1.data import text
from routerr1.types import SPLITS, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UNUSED = -1


class Stock(NamedTuple):
    """Rows of one data set that may serve the same splits.

    Attributes:
        takes: split -> how many rows to draw; None: all that no other split took.
    """

    dataset: str
    takes: Mapping[Split, int | None]


@dataclass
class Rows:
    """The numbers of every usable row, in the order they were read."""

    stock: "array[int]" = field(default_factory=lambda: array("H"))
    line: "array[int]" = field(default_factory=lambda: array("q"))
    key: "array[int]" = field(default_factory=lambda: array("q"))
    id: "array[int]" = field(default_factory=lambda: array("q"))
    rank: "array[int]" = field(default_factory=lambda: array("Q"))

    def add(
        self, stock: int, line: int, dataset: str, row_id: str, question: str, seed: int
    ) -> None:
        """Add a row.

        Each rank is an independent random number, so the draw does not depend on other rows or on
        their order.
        """
        drawn = blake2b(f"{seed}\0{dataset}\0{row_id}".encode(), digest_size=8).digest()
        self.stock.append(stock)
        self.line.append(line)
        self.key.append(text.key(text.comparable(question)))
        self.id.append(text.key(f"{dataset}\0{row_id}"))
        self.rank.append(int.from_bytes(drawn, "big"))

    def __len__(self) -> int:
        return len(self.line)


class Repeat(NamedTuple):
    """A row with the same text as another; both by number."""

    row: int
    kept: int


class Allocation:
    """Drops exact duplicates, then draws test, validation and (after `drop`) training rows."""

    def __init__(self, rows: Rows, stocks: Sequence[Stock]) -> None:
        import numpy as np

        self._stocks = stocks
        self._stock = np.frombuffer(rows.stock, np.uint16)
        self._rank = np.frombuffer(rows.rank, np.uint64)
        # Of two copies the one for the most reserved split stays, then the one that was read first.
        reserved = [min(SPLITS[::-1].index(split) for split in stock.takes) for stock in stocks]
        order = np.lexsort((np.arange(len(rows)), np.array(reserved)[self._stock]))
        self._usable = np.ones(len(rows), bool)
        self.repeated_ids = self._drop_repeats(np.frombuffer(rows.id, np.int64), order)
        self.repeated = self._drop_repeats(np.frombuffer(rows.key, np.int64), order)
        self._split = np.full(len(rows), _UNUSED, np.int8)
        for split in ("test", "validation"):
            self._draw(split)

    def _drop_repeats(self, keys: "NDArray[np.int64]", order: "NDArray[np.int64]") -> list[Repeat]:
        import numpy as np

        order = order[self._usable[order]]
        _, first, group = np.unique(keys[order], return_index=True, return_inverse=True)
        kept = order[first][group]
        repeats = np.flatnonzero(kept != order)
        self._usable[order[repeats]] = False
        pairs = sorted(zip(order[repeats].tolist(), kept[repeats].tolist(), strict=True))
        return [Repeat(row, other) for row, other in pairs]

    def _draw(self, split: Split) -> None:
        import numpy as np

        for number, stock in enumerate(self._stocks):
            if split in stock.takes:
                free = np.flatnonzero(
                    (self._stock == number) & self._usable & (self._split == _UNUSED)
                )
                chosen = free[np.argsort(self._rank[free], kind="stable")][: stock.takes[split]]
                self._split[chosen] = SPLITS.index(split)

    def held_out(self) -> "NDArray[np.bool_]":
        """The rows drawn for test and validation."""
        return self._split > 0

    def may_train(self) -> "NDArray[np.bool_]":
        """The rows that training may draw from."""
        import numpy as np

        trains = np.array(["train" in stock.takes for stock in self._stocks], bool)
        free: NDArray[np.bool_] = trains[self._stock] & self._usable & (self._split == _UNUSED)
        return free

    def drop(self, rows: Sequence[int]) -> None:
        """Keep `rows` out of training, then draw the training rows."""
        self._usable[list(rows)] = False
        self._draw("train")

    def split_codes(self) -> Any:
        """The split of each row, in order: an index of SPLITS, or -1 for an unused row."""
        return self._split
