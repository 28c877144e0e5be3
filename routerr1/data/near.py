"""Near-duplicates between training and held-out questions.

MinHash over character 4-grams finds candidate pairs (datasketch), and exact Jaccard similarity
decides, so no reported pair is an artefact of hashing. Only held-out questions are indexed, so
memory does not grow with the training rows.

Rows of one data set that name their facts or a group (metadata `steps` and `group`) are not compared with
each other: groups keep them apart (expectation `no_fact_overlap`), and questions from one template, which
differ only in a name, would all be near-duplicates. They are compared with the rows of other data sets.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple
from zlib import crc32

_SHINGLE, _PERMUTATIONS, _SEED = 4, 96, 1
# Weights of a lost pair and of a needless comparison. A pair at a threshold of 0.7 is lost in 1 of 700
# cases, one at 0.75 in 1 of 10,000; exact similarity drops the needless ones.
_WEIGHTS = (0.002, 0.998)
_HIGHEST = 0.95  # towards 1 the index has no bands left; a lower one only finds more to compare


class Worded(NamedTuple):
    """A row as it is compared.

    Attributes:
        text: from `text.comparable`.
        apart: from `kept_apart`; rows with the same are not compared. None is compared with every row.
    """

    row: int
    text: str
    apart: str | None = None


class Near(NamedTuple):
    """A training row and the held-out row it resembles most."""

    row: int
    held_out: int
    similarity: float


def kept_apart(metadata: Mapping[str, Any]) -> bool:
    """True if a row names its facts or a group, by which it is kept apart within its data set."""
    return bool(metadata.get("steps") or metadata.get("group"))


def shingles(comparable: str) -> set[str]:
    """The character 4-grams of a text from `text.comparable`; the text itself if it is shorter."""
    last = max(len(comparable) - _SHINGLE, 0)
    return {comparable[start : start + _SHINGLE] for start in range(last + 1)}


class HeldOut:
    """Held-out questions, of which it finds those that a training question resembles.

    Add all of them before the first search.

    Args:
        threshold: Jaccard similarity from which two questions are near-duplicates, in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._rows: dict[int, Worded] = {}
        self._counts: Counter[str | None] = Counter()

    def add(self, rows: Iterable[Worded]) -> None:
        """Take held-out rows."""
        for row in rows:
            self._rows[row.row] = row
            self._counts[row.apart] += 1

    def num_compared(self, apart: str | None) -> int:
        """How many held-out rows a training row is compared with."""
        return len(self._rows) - (0 if apart is None else self._counts[apart])

    def find(self, rows: Iterable[Worded]) -> Iterator[Near]:
        """The rows that resemble a held-out one, each once with the most similar; equal texts included."""
        for row, text, apart in rows:
            if not self.num_compared(apart):
                continue
            mine = shingles(text)
            near = [
                Near(row, other.row, similarity)
                for number in sorted(self._index.query(self._sketch(mine)))
                if (other := self._rows[number]).apart is None or other.apart != apart
                if (similarity := jaccard(mine, shingles(other.text))) >= self.threshold
            ]
            if near:
                yield max(near, key=lambda pair: pair.similarity)

    # Made for the first search: importing datasketch takes a second, and many data sets have none to compare.
    @cached_property
    def _index(self) -> Any:
        from datasketch import MinHashLSH

        highest = min(self.threshold, _HIGHEST)
        index = MinHashLSH(highest, num_perm=_PERMUTATIONS, weights=_WEIGHTS)
        for row in self._rows.values():
            index.insert(row.row, self._sketch(shingles(row.text)), check_duplication=False)
        return index

    @cached_property
    def _empty(self) -> Any:
        from datasketch import MinHash

        return MinHash(num_perm=_PERMUTATIONS, seed=_SEED, hashfunc=crc32)

    def _sketch(self, pieces: set[str]) -> Any:
        sketch = self._empty.copy()
        sketch.update_batch([piece.encode() for piece in pieces])
        return sketch


def jaccard(left: set[str], right: set[str]) -> float:
    """Jaccard similarity of two sets of pieces, in [0, 1]."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
