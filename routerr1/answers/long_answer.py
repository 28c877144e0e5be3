"""How much a longer answer says what a reference says: meaning by embedding, words by overlap.

The score is a mean of both. Numbers that differ from the reference's, and a negation of what the other side says,
lower it: embeddings hardly see either. What neither sees is an answer in the reference's own words with their parts
exchanged, or one that holds right and wrong side by side; the task `judge` is for those.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from routerr1.answers.negation import Relation, relation
from routerr1.matching import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""Texts to unit vectors, one row each."""

AT_LEAST = 0.6
"""Score from which an answer counts as right; tests/answers/test_long_answer.py has what it separates."""

_MEANING = 0.7  # weight of the cosine; the rest is that of the words
_STEM = 5  # letters by which two words count as one, as in most inflections
_LEAST_LETTERS = 4
_WINDOW = 3  # sentences of a long reply that are compared at once
_MOST_SENTENCES = 60  # of a reply; the rest is not read
_FACTOR: dict[Relation, float] = {"same": 1.0, "denies": 0.85, "silent": 0.8, "contradicts": 0.6}
_OTHER_NUMBERS = 0.5
_NO_NUMBERS = 0.8
_NO_NEWS = 0.7
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_WORDS = {
    word: str(value)
    for words in (
        "two three four five six seven eight nine ten eleven twelve",
        "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    )
    for value, word in enumerate(words.split(), start=2)
}


def long_score(question: str, said: str, references: Sequence[str], embed: Embed) -> float:
    """The score of `said` against the reference that it is nearest to, in [0, 1].

    Args:
        embed: each text is embedded by itself, so that scores do not depend on what is scored beside.
    """
    return max((_score(question, said, each, embed) for each in references), default=0.0)


def _score(question: str, said: str, reference: str, embed: Embed) -> float:
    windows = _windows(said)
    if not windows or not reference.strip():
        return 0.0
    wanted = embed([reference])[0]
    near = [float(embed([window])[0] @ wanted) for window in windows]
    best = max(range(len(near)), key=near.__getitem__)
    new = _stems(reference) - _stems(question)  # an echo of the question says nothing
    words = len(new & _stems(said)) / len(new) if new else 1.0
    score = _MEANING * max(near[best], 0.0) + (1 - _MEANING) * words
    factors = (
        _negation(windows[best], said, reference), _numbers(question, said, reference),
        1.0 if words else _NO_NEWS,
    )  # fmt: skip
    for factor in factors:
        score *= factor
    return min(max(score, 0.0), 1.0)


def _windows(said: str) -> list[str]:
    """The reply as a whole, and up to three sentences of it that follow each other."""
    sentences = [each.strip() for each in _SENTENCE.split(said) if each.strip()]
    sentences = sentences[:_MOST_SENTENCES]
    found = [" ".join(sentences)] if sentences else []
    for size in range(1, min(_WINDOW, len(sentences) - 1) + 1):
        found += [" ".join(sentences[at : at + size]) for at in range(len(sentences) - size + 1)]
    return found


def _stems(text: str) -> set[str]:
    """The beginnings of the words that carry meaning: long ones and numbers."""
    words = normalise(text, "text").split()
    return {word[:_STEM] for word in words if len(word) >= _LEAST_LETTERS or word.isdigit()}


def _negation(window: str, said: str, reference: str) -> float:
    if relation(said, reference) == "contradicts":
        return _FACTOR["contradicts"]
    return _FACTOR[relation(window, reference)]


def _numbers(question: str, said: str, reference: str) -> float:
    wanted, found = _numbers_in(reference), _numbers_in(said)
    if wanted <= found:
        return 1.0
    if found - wanted:
        return _OTHER_NUMBERS
    # Need not be repeated: the number of an order, or of an error message.
    return 1.0 if wanted - found <= _numbers_in(question) else _NO_NUMBERS


def _numbers_in(text: str) -> set[str]:
    words = normalise(text, "text").split()
    spelled = {_NUMBER_WORDS[word] for word in words if word in _NUMBER_WORDS}
    return spelled | {word for word in words if _NUMBER.fullmatch(word)}
