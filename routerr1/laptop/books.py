"""Books: the notes of a desk, and how the passages for a question are found (BM25)."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from routerr1.errors import PoolError
from routerr1.pool.servers import Book


class Fact(NamedTuple):
    """One sentence of the file of facts."""

    topic: str
    text: str


def read_facts(path: Path) -> tuple[Fact, ...]:
    """The facts in `path`, in file order.

    Raises: PoolError naming the file and the line at fault.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror})") from None
    facts = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            facts.append(Fact(str(row["topic"]), str(row["text"])))
        except (ValueError, TypeError, KeyError):
            raise PoolError(
                f"{path}, line {number}: must be a JSON object with `topic` and `text`"
            ) from None
    return tuple(facts)


def passages(book: Book, facts: Sequence[Fact]) -> tuple[str, ...]:
    """The sentences a book holds, sorted.

    Raises: PoolError if a topic of the book has no facts.
    """
    held: list[str] = []
    for topic in book.topics:
        texts = sorted(fact.text for fact in facts if fact.topic == topic)
        if not texts:
            raise PoolError(f"the facts hold none of topic {topic!r}, which a book names")
        # A string seeds the generator alike in every process.
        held += Random(f"{book.seed}/{topic}").sample(texts, round(book.share * len(texts)))
    return tuple(sorted(held))


class Notes:
    """A book that can be searched."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._texts = tuple(texts)
        self._index = bm25s.BM25()
        self._index.index(bm25s.tokenize(list(texts), show_progress=False), show_progress=False)

    def search(self, question: str, count: int, least_score: float = 0.0) -> list[str]:
        """At most `count` passages that share a word with the question, the best first; none if the best
        scores less than `least_score`."""
        import bm25s

        # Words that no passage holds are dropped, and a question without any other finds nothing.
        words = bm25s.tokenize([question], return_ids=False, show_progress=False)
        if not any(word in self._index.vocab_dict for word in words[0]):
            return []
        places, scores = self._index.retrieve(
            words, k=min(count, len(self._texts)), show_progress=False
        )
        if scores[0][0] < least_score:
            return []
        return [
            self._texts[place]
            for place, score in zip(places[0], scores[0], strict=True)
            if score > 0
        ]
