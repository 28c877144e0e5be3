"""Which questions are put to every candidate, and in which order.

Every part of the list completes a store that is usable by itself: first each single fact in its
canonical words, which are also the sub-questions of every two-hop question; then the other words of
the questions that are evaluated; then the two-hop questions that are evaluated, asked whole; then
the other words of training questions, single facts first.
"""

from collections.abc import Sequence

from routerr1.matching import normalise
from routerr1.types import Question

_SPLIT_ORDER = {"test": 0, "validation": 1, "train": 2}


def worklist(questions: Sequence[Question]) -> list[str]:
    """Distinct questions (by `normalise`), in the order in which they are recorded."""
    ordered = sorted(questions, key=_place)
    return list({normalise(row.question): row.question for row in reversed(ordered)}.values())[::-1]


def _place(row: Question) -> tuple[int, int, str, str]:
    """(part, split, phrasing, id); the id ends in `#` and the phrasing."""
    trained = row.split == "train"
    phrasing = row.id.rpartition("#")[2]
    if row.hops != 1:
        part = 4 if trained else 2
    elif phrasing == "0":
        part = 0
    else:
        part = 3 if trained else 1
    return part, _SPLIT_ORDER[row.split], phrasing, row.id
