"""From a raw row to a usable question, or the reason for its refusal."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from routerr1.answers.verifiers import LETTERS, task_of, tasks, verify, with_options
from routerr1.config import ColumnsParams
from routerr1.data import text
from routerr1.data.conversation import Said, as_question, asked_and_answered, messages_in
from routerr1.matching import Rule
from routerr1.types import Question, Split

Reason = Literal[
    "answer_is_missing",
    "answer_never_right",
    "answers_as_text",
    "answers_not_text",
    "answers_say_nothing",
    "duplicate",
    "duplicate_id",
    "hops_not_a_number",
    "line_too_long",
    "near_duplicate",
    "no_answer",
    "no_id",
    "no_question",
    "not_unicode",
    "options_unclear",
    "unknown_task",
]
SAYS: Mapping[Reason, str] = {
    "answer_is_missing": "the answer is nan, NULL, N/A or a like word for a missing value",
    "answer_never_right": "no reply could be right by the task: the answer names no option, or holds no number",
    "answers_as_text": "the answers are a list or an object written out as text, and not as JSON",
    "answers_not_text": "an answer is neither text, a number nor a boolean",
    "answers_say_nothing": "every answer normalises to nothing, which would match everything",
    "duplicate": "the same question stands elsewhere, ignoring case and punctuation",
    "duplicate_id": "the id stands earlier in the same data set",
    "hops_not_a_number": "hops is not a whole number from 1 to 1000",
    "line_too_long": "the line or a cell of it is longer than a megabyte",
    "near_duplicate": "a training question that resembles a held-out one",
    "no_answer": "there is no answer",
    "no_id": "the id is empty",
    "no_question": "there is no question, or one without a letter or digit, or a conversation that does not end in one",
    "not_unicode": "the text holds half a character (a lone surrogate)",
    "options_unclear": "the options are not 2 to 10 different texts with a label each or none, or the answer "
    "is the number of none, or the number or letter of one and the text of another",
    "unknown_task": "`task` in its metadata names no verifier (short, choice, number, long, code, judge, or one of a package)",
}
_CHECKED_TASKS = (
    "choice",
    "number",
)  # a task of a package may compare with what is no answer itself
_FEWEST_OPTIONS = 2
_MOST_HOPS = 1000
_MOST_DIGITS = 100  # an exponent may ask for a gigabyte of zeros
_ANSWER_KEYS = ("text", "value", "aliases", "answer", "Value", "Aliases")


class RefusedError(Exception):
    """A row that cannot be used; the reader of the file catches and counts it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A usable row.

    Attributes:
        dropped_golds: how many of its golds are empty after normalisation or repeated.
    """

    id: str
    question: str
    golden_answers: tuple[str, ...]
    hops: int | None
    metadata: dict[str, Any]
    dropped_golds: int

    def to_question(self, dataset: str, split: Split, hops: int | None = None) -> Question:
        """The row as a question; `hops` is the default for a row without hops."""
        return Question(
            id=self.id,
            dataset=dataset,
            question=self.question,
            golden_answers=self.golden_answers,
            split=split,
            hops=self.hops or hops,
            metadata=self.metadata,
        )


def clean(
    values: Mapping[str, Any], columns: ColumnsParams, fallback_id: str, matching: Rule = "squad"
) -> Cleaned:
    """Read a row by its column map.

    Args:
        fallback_id: the id of a row whose source has no id column.
        matching: the rule that compares answers; the metadata keep it unless it is `squad`.

    Raises: RefusedError.
    """
    question, answer = values.get(columns.question), values.get(columns.golden_answers)
    said = messages_in(question)
    if said is not None:
        given = None if columns.golden_answers == columns.question else answer
        said, question, answer = _conversation(said, given)
    if not isinstance(question, str) or not text.comparable(question) or text.is_missing(question):
        raise RefusedError("no_question")
    options, labels = _options(values, columns)
    _require_clear(options, answer)
    if len(columns.options) == 1:
        answer = _letter(answer, options, labels)
    if options and isinstance(answer, bool):
        answer = _word_letter(answer, options)
    listed = _answers(answer, columns)
    golds = tuple(dict.fromkeys(gold for gold in listed if text.says_something(gold, matching)))
    if not golds:
        raise RefusedError("answers_say_nothing" if any(listed) else "no_answer")
    if options:
        question = with_options(question, options)
    cleaned = Cleaned(
        id=_id(values, columns, fallback_id),
        question=text.squeeze(question) if said is None else question,
        golden_answers=golds,
        hops=_hops(values.get(columns.hops) if columns.hops else None),
        metadata=_metadata(values.get(columns.metadata) if columns.metadata else None)
        | _task(columns, options)
        | _topic(values.get(columns.topic) if columns.topic else None)
        | ({} if matching == "squad" else {"matching": matching})
        | ({} if said is None else {"messages": [{"role": r, "content": t} for r, t in said]}),
        dropped_golds=len(listed) - len(golds),
    )
    _require_unicode(cleaned)
    known, golds = cleaned.metadata, cleaned.golden_answers
    if task_of(known) not in tasks():
        raise RefusedError("unknown_task")
    if known.get("task") in _CHECKED_TASKS and not any(
        verify(gold, golds, matching, known) for gold in golds
    ):
        raise RefusedError("answer_never_right")
    return cleaned


def _conversation(said: list[Said], answer: Any) -> tuple[list[Said], str, Any]:
    """The messages before the answer, all of them as one question, and the answer.

    Args:
        answer: of another column; None takes the assistant's last message.

    Raises: RefusedError if no question of a user comes last.
    """
    if answer is None:
        said, answer = asked_and_answered(said)
        if not answer:
            raise RefusedError("no_answer")
    said = [(role, each) for role, each in said if each]
    if not said or said[-1][0] != "user" or not text.comparable(said[-1][1]):
        raise RefusedError("no_question")
    return said, as_question(said), answer


def _answers(value: Any, columns: ColumnsParams) -> list[str]:
    if columns.task == "code":
        return _tests(value)
    if isinstance(value, str):
        if columns.marker is not None:
            value = value.rpartition(columns.marker)[2]
        value = _unpack(value, columns.separator)
    elif not isinstance(value, list | tuple):
        value = [] if value is None else [value]
    given = [gold for gold in _listed(value) if gold is not None]
    if not given and len(value):
        raise RefusedError("answer_is_missing")
    answers = [text.squeeze(_gold(gold)) for gold in given]
    # A single alias may look like a list: TriviaQA has the colour (0, 255, 0).
    if answers and all(text.looks_serialised(gold) for gold in answers):
        raise RefusedError("answers_as_text")
    if answers and all(map(text.is_missing, answers)):
        raise RefusedError("answer_is_missing")
    return ["" if text.is_missing(gold) else gold for gold in answers]


def _tests(value: Any) -> list[str]:
    """Tests of code as they are: one text, or a list of them, of which JSON may hold it in a cell.

    Raises: RefusedError if one is no text.
    """
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = [value]
        else:
            value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise RefusedError("answers_not_text")
    return list(value)


def _options(values: Mapping[str, Any], columns: ColumnsParams) -> tuple[list[str], list[str]]:
    """The options to choose from, and their labels where the source has its own.

    The options are a column each, or one column holds them all.

    Raises: RefusedError if the one column holds no list, or not a label for each option.
    """
    if len(columns.options) != 1:
        given = [_cell_text(values.get(name)) for name in columns.options]
        while given and not given[-1]:  # a question with fewer options than the others
            given.pop()
        if columns.options and (len(given) < _FEWEST_OPTIONS or not all(given)):
            raise RefusedError("options_unclear")
        return given, []
    held: Any = values.get(columns.options[0])
    if isinstance(held, str) and text.looks_serialised(held):
        try:
            held = json.loads(held)
        except (ValueError, RecursionError):
            raise RefusedError("options_unclear") from None
    labels = None
    if isinstance(held, Mapping):  # ARC: texts and their labels
        held, labels = held.get("text"), held.get("label")
    if not isinstance(held, list | tuple) or not _FEWEST_OPTIONS <= len(held) <= len(LETTERS):
        raise RefusedError("options_unclear")
    options = [text.squeeze(str(each)) for each in held]
    if labels is None:
        return options, []
    if not isinstance(labels, list | tuple) or len(labels) != len(options):
        raise RefusedError("options_unclear")
    return options, [str(label).strip() for label in labels]


def _require_clear(options: list[str], answer: Any) -> None:
    """Refuse options of which two are alike, and an answer that names two of them.

    It may be the letter of one and the text of another, or the text of two but for its case.

    Raises: RefusedError.
    """
    if len(set(options)) < len(options):
        raise RefusedError("options_unclear")
    given = text.squeeze(answer).casefold() if isinstance(answer, str) else ""
    named = {place for place, option in enumerate(options) if option.casefold() == given}
    if given.upper() in LETTERS[: len(options)] and len(given) == 1:
        named.add(LETTERS.index(given.upper()))
    if len(named) > 1:
        raise RefusedError("options_unclear")


def _cell_text(cell: Any) -> str:
    missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
    return "" if missing else text.squeeze(str(cell))


def _letter(answer: Any, options: list[str], labels: list[str]) -> Any:
    """The letter of an answer that is a label of its source (ARC), or a number from 0 (MMLU).

    Raises: RefusedError if the answer is the number of no option, or as text the number of one option
        and the text of another.
    """
    given = answer.strip() if isinstance(answer, str) else answer
    if isinstance(given, float) and given.is_integer():  # a column of numbers with a gap in it
        given = int(given)
    if str(given) in labels:
        return LETTERS[labels.index(str(given))]
    number = given
    if isinstance(given, str) and given.isdecimal() and len(given) <= _MOST_DIGITS:
        number = int(given)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return answer
    place = int(number) if number in range(len(options)) and not labels else None
    is_text = isinstance(given, str) and given in options
    if is_text and (place is None or options[place] == given):
        return answer
    if is_text or place is None:
        raise RefusedError("options_unclear")
    return LETTERS[place]


def _word_letter(answer: bool, options: list[str]) -> str:
    """The letter of the option that says true or false.

    Raises: RefusedError if there is not exactly one.
    """
    words = ("true", "yes") if answer else ("false", "no")
    found = [place for place, option in enumerate(options) if option.casefold() in words]
    if len(found) != 1:
        raise RefusedError("options_unclear")
    return LETTERS[found[0]]


def _unpack(cell: str, separator: str | None) -> list[Any]:
    """Answers of a cell: a JSON list or object, several answers with a separator, or one answer."""
    if text.looks_serialised(cell):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            raise RefusedError("answers_as_text") from None
        return list(value) if isinstance(value, list) else [value]
    return cell.split(separator) if separator else [cell]


def _listed(values: Iterable[Any]) -> Iterator[Any]:
    """The answers inside SQuAD's and TriviaQA's answer objects."""
    for value in values:
        if isinstance(value, Mapping):
            held = [value[key] for key in _ANSWER_KEYS if key in value]
            if not held:
                raise RefusedError("answers_not_text")
            for each in held:
                yield from each if isinstance(each, list | tuple) else [each]
        else:
            yield value


def _gold(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):  # BoolQ
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return _plain(value)
    if not isinstance(value, float):
        raise RefusedError("answers_not_text")
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        raise RefusedError("answers_not_text")
    return _plain(Decimal(repr(value)))


def _plain(number: Decimal) -> str:
    """Digits without an exponent and without zeros at the end of a fraction.

    >>> [_plain(Decimal(each)) for each in ("3.0", "3.50", "1E+3", "0.10")]
    ['3', '3.5', '1000', '0.1']
    """
    if not number.is_finite():
        raise RefusedError("answers_not_text")
    if abs(number.adjusted()) > _MOST_DIGITS:
        raise RefusedError("answers_not_text")
    digits = f"{number:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _id(values: Mapping[str, Any], columns: ColumnsParams, fallback: str) -> str:
    if columns.id is None or columns.id not in values:
        return fallback
    value = values[columns.id]
    if isinstance(value, float) and value.is_integer():  # a column of numbers with a gap in it
        value = int(value)
    if not isinstance(value, str | int) or not str(value).strip():
        raise RefusedError("no_id")
    return str(value).strip()


def _hops(value: Any) -> int | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        if not value.strip() or text.is_missing(value):
            return None
        value = value.strip().removesuffix(".0")
    try:
        hops = int(value)
    except (TypeError, ValueError, OverflowError):
        raise RefusedError("hops_not_a_number") from None
    if isinstance(value, bool) or not 1 <= hops <= _MOST_HOPS or float(value) != hops:
        raise RefusedError("hops_not_a_number")
    return hops


def _task(columns: ColumnsParams, options: list[str]) -> dict[str, Any]:
    """What the verifier of the task reads."""
    task = columns.task or ("choice" if options else None)
    known: dict[str, Any] = {"task": task, "options": options, "tolerance": columns.tolerance}
    return {name: value for name, value in known.items() if value not in (None, [])}


def _topic(value: Any) -> dict[str, Any]:
    named = text.squeeze(str(value)) if isinstance(value, str | int) else ""
    return {"topic": named} if named and not text.is_missing(named) else {}


def _metadata(value: Any) -> dict[str, Any]:
    """The plain values only, because benchmarks' metadata contain whole Wikipedia paragraphs."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {"note": value}
    if not isinstance(value, Mapping):
        return {}
    return {str(name): item for name, item in value.items() if _is_plain(item)}


def _is_plain(item: Any) -> bool:
    if isinstance(item, float):
        return math.isfinite(item)
    return isinstance(item, str | int | bool)


def _require_unicode(row: Cleaned) -> None:
    try:
        json.dumps(
            [row.id, row.question, row.golden_answers, row.metadata], ensure_ascii=False
        ).encode()
    except UnicodeEncodeError:
        raise RefusedError("not_unicode") from None
