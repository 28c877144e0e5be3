"""What users say of answers, on its way into a set of questions."""

import json
import logging
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from routerr1.config import ColumnsParams
from routerr1.data.imported import Imported, Shares, import_file, remember
from routerr1.data.splits import read_file
from routerr1.errors import DataError
from routerr1.serve.errors import ApiError
from routerr1.serve.store import FeedbackRow, Key, RequestRow, Store

RIGHT = 0.5  # a higher score confirms the answer
IMPORTED, SHARES = Path("data/imported"), Shares(test=0.2, validation=0.1)
_log = logging.getLogger(__name__)

PERSONAL: Mapping[str, str] = {
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]+",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "card": r"\b\d(?:[ -]?\d){12,18}\b",
    "phone": r"(?<!\w)(?:\+|00)\d[\d ()/.-]{6,}\d",
    "address": r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    "key": r"\b(?:sk|pk|rr1|ghp|xox[abp])-?[\w-]{16,}",
}
"""Patterns of personal data by name."""


class TooFew(DataError):
    """There is too little new feedback for another set of questions."""


class FeedbackRequest(BaseModel):
    """`POST /v1/feedback`.

    Attributes:
        request_id: the id of the answer.
        score: from 0 (wrong) to 1 (right).
        answer: the right answer.
        consent: whether question and answer may become data.
        question: what was asked, for gateways that keep no texts.
    """

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(min_length=1, max_length=64)
    score: float | None = Field(default=None, ge=0, le=1)
    answer: str | None = Field(default=None, min_length=1, max_length=2000)
    comment: str | None = Field(default=None, max_length=2000)
    consent: bool = False
    question: str | None = Field(default=None, min_length=1, max_length=16000)

    @model_validator(mode="after")
    def _says_something(self) -> "FeedbackRequest":
        if self.score is None and self.answer is None and self.comment is None:
            raise ValueError("say a score, an answer or a comment")
        return self


class FeedbackResponse(BaseModel):
    """The feedback is kept."""

    object: str = "feedback"
    request_id: str


def chat_id(request_id: str) -> str:
    """The id by which a request is kept, whichever endpoint answered it."""
    return request_id.replace("resp_", "chatcmpl-")


def take(store: Store, said: FeedbackRequest, key: Key | None, *, keep: str) -> RequestRow | None:
    """Keep feedback on a request of this key; gives the request, as far as it is kept.

    Raises: ApiError 404 if the key made no such request.
    """
    number = chat_id(said.request_id)
    request = store.request(number)
    own = request is not None and (key is None or request.key_id == key.id)
    if not own and keep != "none":
        raise ApiError(404, "there is no such request", "request_not_found", "request_id")
    texts = keep == "full" or said.consent  # consent is to the use of the texts
    store.write_feedback(
        FeedbackRow(
            request_id=number,
            at_s=time.time(),
            key_id=None if key is None else key.id,
            score=said.score,
            answer=said.answer if texts else None,
            comment=said.comment if texts else None,
            consent=said.consent,
            question=said.question if texts else None,
        )
    )
    return request if own else None


@dataclass(frozen=True, slots=True)
class Learned:
    """A question with the answer that users confirmed or gave."""

    id: str
    question: str
    answer: str
    version: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Feedback that becomes no data, by reason."""

    no_consent: int = 0
    no_answer: int = 0
    no_question: int = 0


def learned(
    feedback: Iterable[FeedbackRow], requests: Mapping[str, RequestRow]
) -> tuple[list[Learned], Skipped]:
    """The questions that can be learned from: with consent, and with an answer that is right.

    The latest word on a request counts. A given answer counts before a confirmed one.
    """
    latest = {row.request_id: row for row in sorted(feedback, key=lambda row: row.at_s)}
    found: list[Learned] = []
    skipped = Skipped()
    for row in latest.values():
        request = requests.get(row.request_id)
        kept = None if request is None or request.was_passed_on else request.question
        question = kept or row.question
        confirmed = row.score is not None and row.score > RIGHT
        answer = row.answer or (request.answer if request is not None and confirmed else None)
        if not row.consent:
            skipped = replace(skipped, no_consent=skipped.no_consent + 1)
        elif answer is None:
            skipped = replace(skipped, no_answer=skipped.no_answer + 1)
        elif question is None:
            skipped = replace(skipped, no_question=skipped.no_question + 1)
        else:
            version = request.version if request is not None else "unknown"
            found.append(Learned(row.request_id, question, answer, version))
    return found, skipped


def without_personal(text: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """`text` with every match as `[removed]`.

    >>> without_personal("Who is ann@example.org?", patterns(["email"]))
    'Who is [removed]?'
    """
    for pattern in patterns:
        text = pattern.sub("[removed]", text)
    return text


def patterns(names: Iterable[str]) -> list[re.Pattern[str]]:
    """Compiled patterns: names of `PERSONAL`, or regular expressions of one's own.

    Raises: DataError for an expression that is none, and for a list of names, which matches nothing.
    """
    found = []
    for name in names:
        parts = name.split(",")
        if len(parts) > 1 and not PERSONAL.keys().isdisjoint(parts):
            raise DataError(f"--remove {name!r}: holds several; write --remove before each of them")
        try:
            found.append(re.compile(PERSONAL.get(name, name)))
        except re.error as error:
            raise DataError(f"--remove {name!r}: is no regular expression ({error})") from None
    return found


def import_feedback(
    store: Store,
    name: str,
    removed: Sequence[str],
    *,
    out: Path = IMPORTED,
    shares: Shares = SHARES,
    seed: int = 42,
    at_least: int = 1,
    assessed: Iterable[FeedbackRow] = (),
    task: str | None = None,
) -> tuple[Imported, Skipped]:
    """Make out/NAME.parquet of all feedback, as `routerr1 data import` makes it of a file.

    Questions that mean the same are one row, and DVC versions the file like any other import.

    Args:
        at_least: number of requests beyond those of the file that is there.
        assessed: what was said elsewhere; see `assessments.assessed`.
        task: how their answers are verified; None: short.

    Raises: DataError if there is nothing to learn from; TooFew if fewer than `at_least`, or none at all where more
        than one is asked for.
    """
    requests = {row.id: row for row in store.requests()}
    found, skipped = learned([*store.feedback(), *assessed], requests)
    if not found:
        raise (DataError if at_least == 1 else TooFew)(
            f"feedback: nothing to learn from ({skipped.no_consent} without consent, "
            f"{skipped.no_answer} without a right answer, {skipped.no_question} without a question)"
        )
    before = out / f"{name}.parquet"
    known = {row.id for row in read_file(before)} if before.is_file() else set()
    new = sum(row.id not in known for row in found)
    if new < at_least:
        raise TooFew(f"{before}: {new} new answers, {at_least} are asked for")
    compiled = patterns(removed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.jsonl"
        file.write_text("".join(_lines(found, compiled)), encoding="utf-8")
        columns = ColumnsParams(task=task)
        made = import_file(file, name, columns, out=out, shares=shares, seed=seed)
    remember(made.path)
    return made, skipped


def _lines(found: Iterable[Learned], removed: Sequence[re.Pattern[str]]) -> Iterator[str]:
    for row in found:
        values = {
            "id": row.id,
            "question": without_personal(row.question, removed),
            "golden_answers": [without_personal(row.answer, removed)],
            "metadata": {"source": "feedback", "version": row.version},
        }
        yield json.dumps(values, ensure_ascii=False) + "\n"
