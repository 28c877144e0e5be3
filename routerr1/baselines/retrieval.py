"""Passages instead of models: a pool with one candidate that searches, free of charge (BM25)."""

import asyncio
import json
import logging
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from routerr1.errors import DataError
from routerr1.files import atomic_directory
from routerr1.pool.base import Call, Pool
from routerr1.types import Card, Reply

NAME = "Retriever"
_OFFSETS = "offsets.npy"


class Index(Protocol):
    """Passages that can be searched."""

    @property
    def quick(self) -> bool:
        """Search at once: it is too short to run beside other work."""
        ...

    def search(self, query: str, count: int) -> list[str]:
        """The passages that fit best, best first; fewer than `count` if there are no more."""
        ...


class RetrieverPool(Pool):
    """A pool over a corpus; RAG asks it once, Search-R1 in every round.

    Args:
        count: passages in a reply, best first.
        aliases: further names for the search. A search action names no model, so a policy that was
            taught names may write any of them.
    """

    def __init__(self, index: Index, *, count: int, aliases: Sequence[str] = ()) -> None:
        self._index = index
        self._count = count
        self.cards = (Card(NAME, "searches passages for the words of the query", tuple(aliases)),)

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        query = call.query
        if call.candidate != NAME:
            return Reply(call.candidate, "", failure="unknown_model")
        if self._index.quick:
            found = self._index.search(query, self._count)
        else:
            found = await asyncio.to_thread(self._index.search, query, self._count)
        return Reply(NAME, " ".join(found))


class MemoryIndex:
    """Passages held in memory.

    Raises: DataError without passages.
    """

    quick = True

    def __init__(self, passages: Sequence[str]) -> None:
        self._passages = list(passages)
        self._bm25 = _indexed(self._passages)

    def search(self, query: str, count: int) -> list[str]:
        """See `Index.search`."""
        return [self._passages[place] for place in _best(self._bm25, query, count)]


class FileIndex:
    """A corpus file with its index beside it, both read where needed and never held in memory as a whole.

    Args:
        corpus: JSON lines with the passage in `contents` or `text`, as FlashRAG's; it must not
            change.
        folder: the index, made there if there is none: name it by the corpus's digest. One that was
            begun and not finished leaves nothing.

    Raises: DataError naming the file and line of what cannot be read.
    """

    quick = False

    def __init__(self, corpus: Path, folder: Path) -> None:
        import bm25s
        from filelock import FileLock

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # workers wait for the first of them
            if not folder.is_dir():
                with atomic_directory(folder) as aside:
                    _write_index(corpus, aside)
        _quiet()
        self._bm25 = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        self._offsets = np.load(folder / _OFFSETS, mmap_mode="r")
        self._corpus = corpus
        with corpus.open("rb") as stream:
            self._lines = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def search(self, query: str, count: int) -> list[str]:
        """See `Index.search`; may be called from several threads."""
        return [self._passage(int(place)) for place in _best(self._bm25, query, count)]

    def _passage(self, place: int) -> str:
        begin, end = (int(self._offsets[at]) for at in (place, place + 1))
        return _parsed(self._lines[begin:end], self._corpus, place + 1)


def _write_index(corpus: Path, folder: Path) -> None:
    texts, offsets = [], [0]
    for line, text in _lines(corpus):
        texts.append(text)
        offsets.append(offsets[-1] + len(line))
    _indexed(texts).save(folder, show_progress=False)
    np.save(folder / _OFFSETS, np.array(offsets, dtype=np.int64))


def _indexed(passages: Sequence[str]) -> Any:
    import bm25s

    if not passages:
        raise DataError("baselines.corpus: holds no passage to search")
    _quiet()
    # No stop words are dropped: "He" is an element, "in" a place.
    tokens = bm25s.tokenize(passages, stopwords=None, show_progress=False)
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    return index


def _best(index: Any, query: str, count: int) -> Sequence[int]:
    import bm25s

    tokens = bm25s.tokenize([query], stopwords=None, show_progress=False)
    held = min(count, index.scores["num_docs"])
    places: Sequence[int] = index.retrieve(tokens, k=held, show_progress=False)[0][0]
    return places


def _quiet() -> None:
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every step of an index


def _lines(path: Path) -> Iterator[tuple[bytes, str]]:
    """Each line of a corpus with its passage."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                yield line, _parsed(line, path, number)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _parsed(line: bytes, path: Path, number: int) -> str:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        raise DataError(f"{path}, line {number}: is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: is not JSON ({error.msg})") from None
    text = row.get("contents") or row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{path}, line {number}: needs a `contents` or `text` string")
    return text
