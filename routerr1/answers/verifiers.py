"""Whether an answer or a whole reply is right, by the task of its question.

`short`: a reference answer, exactly; a reply has to contain one. `choice`: one of the options, by its letter or its
text. `number`: the last number, within a tolerance. Further tasks are entry points of the group
`routerr1.verifiers`: a name and a `Verify`. The tasks of `GRADED` take more than a comparison: see
`routerr1.pool.grading`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

from routerr1.matching import Rule, contains, exact_match, normalise

Verify = Callable[[str, Sequence[str], Rule, bool, Mapping[str, Any]], float]
"""(said, reference answers, rule, is it a whole reply, metadata of the question) -> 0.0 to 1.0. Never raises."""

SHORT = "short"
GRADED = ("code", "judge", "long")
"""Tasks whose answers are graded by running them, by a judge, or by an embedding."""

LETTERS = "ABCDEFGHIJ"
GROUP = "routerr1.verifiers"

# A small letter counts only before punctuation or the end: "the answer is a bird" names no option.
_SAID = re.compile(
    r"(?i:(?:answer|option|choice|antwort|lösung)(?:\s+(?:is|ist|would be|lautet))?)\s*:?\s*[\[(*]*"
    r"([A-J](?![\w'’])|[a-j](?=[^\w\s'’-]|\s*(?:\n|$)))"
)
_LEADING = re.compile(r"^[\[(*]*([A-J])(?:[\])*]*[).:]|[\])*]+)(?!\w)")
_MARKED = re.compile(r"[\[(]([A-J])[\])]")
_NUMBER = re.compile(r"(?<![\w.,])[-−]?\d+(?:[.,'’]\d+)*(?:[eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-−]?[1-9]\d{0,2}(?:\.\d{3})+")
_UNIT = re.compile(r"\s*([^\W\d_]+|%)")
_UNITS: Mapping[str, tuple[str, float]] = {
    "mm": ("m", 1e-3), "cm": ("m", 1e-2), "m": ("m", 1.0), "km": ("m", 1e3),
    "mg": ("g", 1e-3), "g": ("g", 1.0), "kg": ("g", 1e3), "t": ("g", 1e6),
    "ms": ("s", 1e-3), "s": ("s", 1.0), "min": ("s", 60.0), "h": ("s", 3600.0),
    "ml": ("l", 1e-3), "l": ("l", 1.0),
}  # fmt: skip
_TOLERANCE = 1e-6  # relative

_Quantity = tuple[float, str]  # a number and its unit


def verify(
    said: str,
    references: Sequence[str],
    rule: Rule,
    known: Mapping[str, Any],
    *,
    whole_reply: bool = False,
) -> float:
    """How right `said` is, in [0, 1].

    Args:
        known: metadata of the question; `task` names the verifier, `short` without it.
        whole_reply: `said` is a candidate's reply, in which the answer has to be found.

    Raises: KeyError for a task without a verifier, such as one that is graded.
    """
    return verifiers()[task_of(known)](said, references, rule, whole_reply, known)


def task_of(known: Mapping[str, Any]) -> str:
    """The task that the metadata of a question names; `short` without one."""
    return str(known.get("task", SHORT))


def tasks() -> list[str]:
    """The names of all tasks, in order."""
    return sorted({*verifiers(), *GRADED})


@cache
def verifiers() -> Mapping[str, Verify]:
    """Every task by name, those of installed packages included; an own name cannot be replaced."""
    installed: dict[str, Verify] = {
        point.name: point.load() for point in metadata.entry_points(group=GROUP)
    }
    return {**installed, SHORT: short, "choice": choice, "number": number}


def short(
    said: str,
    references: Sequence[str],
    rule: Rule,
    whole_reply: bool,
    known: Mapping[str, Any],  # noqa: ARG001 - of the interface
) -> float:
    """A reference answer, exactly; a whole reply has to contain one."""
    return (contains if whole_reply else exact_match)(said, references, rule)


def choice(
    said: str,
    references: Sequence[str],
    rule: Rule,
    whole_reply: bool,  # noqa: ARG001 - read alike
    known: Mapping[str, Any],
) -> float:
    """The option that `said` settles on is the reference's; several options, or none, are wrong.

    >>> options = {"options": ["Rome", "Paris", "Bonn"]}
    >>> [choice(text, ["B"], "text", True, options) for text in ("The answer is B.", "Paris", "A or B", "A good one")]
    [1.0, 1.0, 0.0, 0.0]
    """
    options = [str(each) for each in known.get("options", ())]
    wanted = {place for each in references if (place := _exactly(each, options, rule)) is not None}
    return float(_chosen(said, options, rule) in wanted)


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with its options behind it, a letter each.

    >>> with_options("Capital of France?", ["Rome", "Paris"])
    'Capital of France? A) Rome B) Paris'
    """
    lettered = [f"{letter}) {each}" for letter, each in zip(LETTERS, options, strict=False)]
    return " ".join([question, *lettered])


def without_options(question: str, known: Mapping[str, Any]) -> str:
    """Inverse of `with_options`; a question that does not end in its options stays as it is.

    >>> without_options("Capital of France? A) Rome B) Paris", {"options": ["Rome", "Paris"]})
    'Capital of France?'
    """
    options = [str(each) for each in known.get("options", ())]
    return question.removesuffix(with_options("", options)) if options else question


def answers_in_words(references: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """Reference answers with the text of an option in place of its letter.

    >>> answers_in_words(["B"], {"options": ["Rome", "Paris"]}), answers_in_words(["B"], {})
    (['Paris'], ['B'])
    """
    options = [str(each) for each in known.get("options", ())]
    return [
        each if (place := _exactly(each, options, "text")) is None else options[place]
        for each in references
    ]


def _exactly(text: str, options: Sequence[str], rule: Rule) -> int | None:
    """The place of an option that is named by nothing but its letter or its text."""
    letter = text.strip().strip("()[].:*").upper()
    if len(letter) == 1 and letter in LETTERS[: len(options)]:
        return LETTERS.index(letter)
    said = normalise(text, rule)
    places = [place for place, each in enumerate(options) if normalise(each, rule) == said]
    return places[0] if said and places else None


def _chosen(said: str, options: Sequence[str], rule: Rule) -> int | None:
    exact = _exactly(said, options, rule)
    if exact is not None:
        return exact
    for pattern in (_SAID, _LEADING, _MARKED):
        letters = {letter.upper() for letter in pattern.findall(said.strip())}
        if letters:
            only = letters.pop()
            known = only in LETTERS[: len(options)]
            return LETTERS.index(only) if not letters and known else None
    named = [place for place, each in enumerate(options) if contains(said, [each], rule)]
    return named[0] if len(named) == 1 else None


def number(
    said: str,
    references: Sequence[str],
    rule: Rule,  # noqa: ARG001 - numbers are read alike
    whole_reply: bool,  # noqa: ARG001 - read alike
    known: Mapping[str, Any],
) -> float:
    """The last number of `said` is the reference's within `known["tolerance"]` (relative).

    Where both name a unit of length, mass, time or volume, the units count; other words do not. "1.500" may be
    1.5 or, as in German, 1500: nothing tells which, so both are right.

    >>> [number(text, ["1.5 km"], "text", True, {}) for text in ("It is 1,500 m.", "1.5", "2 km", "1.5 kg")]
    [1.0, 1.0, 0.0, 0.0]
    """
    found = _last_number(said)
    tolerance = float(known.get("tolerance", _TOLERANCE))
    golds = [gold for each in references for gold in _last_number(each)]
    return float(any(_alike(one, gold, tolerance) for one in found for gold in golds))


def _last_number(text: str) -> list[_Quantity]:
    """The readings of the last number, with the unit behind it; "" for a unit that is not known."""
    matches = list(_NUMBER.finditer(text))
    if not matches:
        return []
    last = matches[-1]
    unit = _UNIT.match(text, last.end())
    word = unit[1] if unit else ""
    known = word if word in _UNITS or word == "%" else ""
    return [(float(digits), known) for digits in _readings(last[0])]


def _readings(text: str) -> list[str]:
    """Digits with a decimal point; where a dot may part thousands, as in German, those without it too.

    >>> [_readings(each) for each in ("1.500", "1.50", "1.500.000", "0.125")]
    [['1.500', '1500'], ['1.50'], ['1500000'], ['0.125']]
    """
    plain = _plain(text)
    parted = _THOUSANDS.fullmatch(text) is not None
    return list(dict.fromkeys([plain, plain.replace(".", "")] if parted else [plain]))


def _plain(text: str) -> str:
    """Digits with a decimal point: a comma or dot before other than three digits is one.

    >>> [_plain(each) for each in ("1,500", "1.500,5", "1,234.5", "3,5", "1'000", "−2")]
    ['1500', '1500.5', '1234.5', '3.5', '1000', '-2']
    """
    text = text.replace("−", "-").replace("'", "").replace("’", "")
    whole, mark, part = max(
        (text.rpartition(","), text.rpartition(".")), key=lambda each: len(each[0])
    )
    if not mark:
        return text
    grouped = mark == "," and len(part) == 3 and part.isdigit()
    if grouped or (mark == "." and text.count(".") > 1):
        return text.replace(",", "").replace(".", "")
    return f"{whole.replace(',', '').replace('.', '')}.{part}"


def _alike(found: _Quantity, gold: _Quantity, tolerance: float) -> bool:
    (mine, my_unit), (theirs, their_unit) = found, gold
    if my_unit and their_unit and my_unit != their_unit:
        mine_in, my_factor = _UNITS.get(my_unit, (my_unit, 1.0))
        theirs_in, their_factor = _UNITS.get(their_unit, (their_unit, 1.0))
        if mine_in != theirs_in:
            return False
        mine, theirs = mine * my_factor, theirs * their_factor
    return abs(mine - theirs) <= tolerance * max(abs(theirs), 1e-12)
