"""Passages instead of models: a pool with one candidate that searches, free of charge (BM25)."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from routerr1.errors import DataError
from routerr1.pool.simulated import Fact
from routerr1.types import Card, Reply

NAME = "Retriever"


class RetrieverPool:
    """The `Pool` interface over a corpus; RAG asks it once, Search-R1 in every round.

    Args:
        passages: the corpus.
        count: passages in a reply, best first.
        aliases: further names for the search. A search action names no model, so a policy that was taught
            names may write any of them.

    Raises: DataError without passages.
    """

    def __init__(self, passages: Sequence[str], *, count: int, aliases: Sequence[str] = ()) -> None:
        import bm25s

        if not passages:
            raise DataError("baselines.corpus: holds no passage to search")
        self._passages = list(passages)
        self._count = min(count, len(passages))
        self._aliases = tuple(aliases)
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells every step of an index
        # No stop words are dropped: "He" is an element, "in" a place.
        tokens = bm25s.tokenize(self._passages, stopwords=None, show_progress=False)
        self._index = bm25s.BM25()
        self._index.index(tokens, show_progress=False)

    @property
    def cards(self) -> tuple[Card, ...]:
        """The one card."""
        return (Card(NAME, f"searches {len(self._passages)} passages", self._aliases),)

    async def ask(self, name: str, query: str) -> Reply:
        """See `Pool.ask`."""
        import bm25s

        if name != NAME:
            return Reply(name, "", failure="unknown_model")
        tokens = bm25s.tokenize([query], stopwords=None, show_progress=False)
        places, _ = self._index.retrieve(tokens, k=self._count, show_progress=False)
        return Reply(NAME, " ".join(self._passages[place] for place in places[0]))

    async def aclose(self) -> None:
        """Nothing to release."""


def passages_of(known: Mapping[str, Fact]) -> list[str]:
    """The embedded world as a corpus: one sentence for each single fact, in sorted order."""
    return sorted({f.statement.format(f.answer) for f in known.values() if f.hops == 1})


def read_passages(path: Path) -> list[str]:
    """A corpus of JSON lines with a `contents` or `text` field, as FlashRAG's.

    Raises: DataError naming the file and line.
    """
    passages = []
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                row = json.loads(line)
                text = row.get("contents") or row.get("text") if isinstance(row, dict) else None
                if not isinstance(text, str):
                    raise DataError(f"{path}, line {number}: needs a `contents` or `text` string")
                passages.append(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: is not JSON ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    return passages
