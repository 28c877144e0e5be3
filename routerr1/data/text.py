"""Comparison of questions by their text, and measurements of a question and its answers."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b
from typing import Literal

from routerr1.matching import Rule, normalise

AnswerType = Literal["yes_no", "number", "date", "phrase", "sentence"]
ANSWER_TYPES: tuple[AnswerType, ...] = ("yes_no", "number", "date", "phrase", "sentence")

_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_YEAR = r"[12]\d{3}"
_DATE = re.compile(rf"(?:\b(?:{_MONTHS})\b.*\d|^{_YEAR}s?$|\b{_YEAR}\b.*\b(?:{_MONTHS})\b)")
_NUMBER = re.compile(r"^\W*\d[\d.,:/ –-]*\W*(?:\w+\W*){0,2}$")
# A tuple, unlike a remark in brackets, has a comma after a quote or a number.
_SERIALISED = re.compile(
    r"\[.*\]|\{.*\}|\((?:'[^']*'|\"[^\"]*\"|[\d.]+)\s*,.*\)"
    # Objects as Python, NumPy, pandas and PyTorch write them.
    r"|(?:(?:np|numpy|pd|datetime|decimal|collections)\.\w+|array|tensor|(?:frozen)?set|list|tuple|dict(?:_\w+)?"
    r"|Counter|OrderedDict|defaultdict|deque|Decimal|Timestamp|Timedelta|UUID)\(.*\)"
    r"|<.*\bat 0x[0-9a-fA-F]+>|b'[^']*'|b\"[^\"]*\"",
    re.DOTALL,
)
# What pandas, R, SQL and spreadsheets write for a missing value.
# "none", "na" and "undefined" are left out: they can be answers (sodium is Na).
_MISSING = {
    "nan", "-nan", "nat", "null", "(null)", "\\n", "n/a", "#n/a", "#n/a n/a", "#na", "<na>",
    "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan",
    "#value!", "#ref!", "#div/0!", "#name?", "#num!", "#null!",
}  # fmt: skip
_LONGEST_PHRASE = 6  # words; beyond that an answer is a sentence


@cache
def _to_blank() -> dict[int, str]:
    """Every punctuation character of Unicode, to a blank."""
    points = range(sys.maxunicode + 1)
    return {point: " " for point in points if unicodedata.category(chr(point)).startswith("P")}


def squeeze(text: str) -> str:
    """White space folded, none at the ends."""
    return " ".join(text.split())


def comparable(text: str) -> str:
    """NFKC, case folded, punctuation to blanks, white space folded.

    Two questions with the same result are duplicates. Symbols stay: C and C++ are not the same.

    >>> comparable("Who’s  the KING?")
    'who s the king'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return squeeze(folded.translate(_to_blank()))


def key(text: str) -> int:
    """64 bits of `comparable(text)`, the same in every process; signed, as SQLite and Arrow store it.

    Among 2 million questions the chance of any accidental collision is about 1e-7.
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def is_missing(cell: str) -> bool:
    """True for the words that other programs write where a value is missing.

    >>> [is_missing(each) for each in ("NaN", " #N/A ", "None", "")]
    [True, True, False, False]
    """
    return cell.strip().casefold() in _MISSING


def says_something(gold: str, rule: Rule = "squad") -> bool:
    """True if a gold is not empty after the scorer's normalisation. An empty one would match everything."""
    return bool(normalise(gold, rule))


def looks_serialised(gold: str) -> bool:
    """True if the text is a written-out list, tuple, set, dict or array.

    >>> [looks_serialised(each) for each in ("['x']", "('x', 'y')", "{'text': 1}", "(1997)", "(a band)")]
    [True, True, True, False, False]
    """
    gold = gold.strip()
    return bool(_SERIALISED.fullmatch(gold))


def leaks(question: str, golds: Iterable[str], rule: Rule = "squad") -> bool:
    """True if a gold occurs word for word in its question. Yes and no cannot leak.

    >>> leaks("Is Paris older than Rome?", ["paris"]), leaks("Who wrote Parisian?", ["paris"])
    (True, False)
    """
    asked = f" {normalise(question, rule)} "
    said = {normalise(gold, rule) for gold in golds} - {"", "yes", "no"}
    return any(f" {gold} " in asked for gold in said)


def answer_type(golds: Sequence[str]) -> AnswerType:
    """A coarse type of the first gold.

    >>> [answer_type([gold]) for gold in ("No", "1,200 km", "3 May 1990", "Paris")]
    ['yes_no', 'number', 'date', 'phrase']
    """
    first = golds[0].strip().lower() if golds else ""
    if first in ("yes", "no"):
        return "yes_no"
    if _DATE.search(first):
        return "date"
    if _NUMBER.match(first):
        return "number"
    return "phrase" if len(first.split()) <= _LONGEST_PHRASE else "sentence"
