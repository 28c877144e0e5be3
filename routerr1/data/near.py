"""Near-duplicates between training and held-out questions.

MinHash over character 4-grams finds candidate pairs (datasketch), and exact Jaccard similarity
decides, so no reported pair is an artefact of hashing. Only held-out questions are indexed, so
memory does not grow with the training rows.

A row that names its facts (metadata `steps`, as in the embedded benchmark) is compared by them
(expectation `no_fact_overlap`), not by wording. Questions from one template differ only in a name
and would all be near-duplicates.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple
from zlib import crc32

_SHINGLE, _PERMUTATIONS, _SEED = 4, 96, 1
# Weights of a lost pair and of a needless comparison. A pair at a threshold of 0.7 is lost in 1 of 700
# cases, one at 0.75 in 1 of 10,000; exact similarity drops the needless ones.
_WEIGHTS = (0.002, 0.998)
_HIGHEST = 0.95  # towards 1 the index has no bands left; a lower one only finds more to compare


class Near(NamedTuple):
    """A training row and the held-out row it resembles most."""

    row: int
    held_out: int
    similarity: float


def by_wording(metadata: Mapping[str, Any]) -> bool:
    """True if a row is compared by its wording, because it names neither facts nor a group."""
    return not (metadata.get("steps") or metadata.get("group"))


def shingles(comparable: str) -> set[str]:
    """The character 4-grams of a text from `text.comparable`; the text itself if it is shorter."""
    last = max(len(comparable) - _SHINGLE, 0)
    return {comparable[start : start + _SHINGLE] for start in range(last + 1)}


class HeldOut:
    """An index of held-out questions that finds those a training question resembles.

    Args:
        threshold: Jaccard similarity from which two questions are near-duplicates, in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._texts: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, rows: Iterable[tuple[int, str]]) -> None:
        """Index (row number, comparable text) pairs."""
        for row, text in rows:
            self._index.insert(row, self._sketch(shingles(text)), check_duplication=False)
            self._texts[row] = text

    def find(self, rows: Iterable[tuple[int, str]]) -> Iterator[Near]:
        """The rows that resemble a held-out one, each once with the most similar; equal texts included."""
        if not self._texts:
            return
        for row, text in rows:
            mine = shingles(text)
            near = [
                Near(row, other, similarity)
                for other in sorted(self._index.query(self._sketch(mine)))
                if (similarity := jaccard(mine, shingles(self._texts[other]))) >= self.threshold
            ]
            if near:
                yield max(near, key=lambda pair: pair.similarity)

    # Made for the first text: importing datasketch takes a second, and many data sets have none to compare.
    @cached_property
    def _index(self) -> Any:
        from datasketch import MinHashLSH

        highest = min(self.threshold, _HIGHEST)
        return MinHashLSH(highest, num_perm=_PERMUTATIONS, weights=_WEIGHTS)

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
