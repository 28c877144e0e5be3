"""What people say of answers on MLflow's pages: assessments of the gateway's traces, as feedback."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from routerr1.serve.store import FeedbackRow
from routerr1.tracking.store import open_client, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Assessment, TraceInfo

REQUEST_TAG = "routerr1.request"
GATEWAY = "routerr1 gateway"  # source of what users said at `/v1/feedback`
SCORE, ANSWER, CONSENT = "user", "right_answer", "consent"
_NAMED = {
    SCORE: "feedback",
    CONSENT: "feedback",
    ANSWER: "expectation",
    "expected_response": "expectation",  # MLflow's own name of an answer
}
_WORDS = {"yes": 1.0, "no": 0.0}  # as MLflow's judges and pages have them
_PAGE = 500
_log = logging.getLogger(__name__)


def assessed(experiment: str, feedback: Iterable[FeedbackRow]) -> list[FeedbackRow]:
    """The assessments of people, a row for each request, to be read after `feedback`.

    A score or an answer takes the place of the user's. What was said of consent, and the question, stay the
    user's, unless an assessment `consent` says otherwise.

    Args:
        experiment: name of the MLflow experiment.
        feedback: what users said of the same requests.

    Raises: RegistryError if the store does not answer.
    """
    if not has_store():
        return []
    client = open_client()
    with store_errors():
        found = client.get_experiment_by_name(experiment)
        traces = {} if found is None else _assessed_traces(client, found.experiment_id)
    latest = {row.request_id: row for row in sorted(feedback, key=lambda row: row.at_s)}
    rows = []
    for number, assessments in _by_request(traces.values()).items():
        known = latest.get(number, FeedbackRow(number, 0.0, None, None, None, None, False, None))
        if (row := _with(known, assessments)) is not None:
            rows.append(row)
    return rows


def has_store() -> bool:
    """Whether there is a tracking store, or the environment names one; opening one would make it."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or Path("mlflow.db").is_file()


def _assessed_traces(client: "MlflowClient", experiment: str) -> "dict[str, TraceInfo]":
    """The traces with an assessment of a name that counts, by id."""
    found: dict[str, TraceInfo] = {}
    for name, kind in _NAMED.items():
        token: str | None = None
        while True:
            page = client.search_traces(
                locations=[experiment], filter_string=f"{kind}.{name} IS NOT NULL",
                max_results=_PAGE, page_token=token, include_spans=False,
            )  # fmt: skip
            found |= {trace.info.trace_id: trace.info for trace in page}
            token = page.token
            if not token:
                break
    return found


def _by_request(traces: "Iterable[TraceInfo]") -> "Mapping[str, list[Assessment]]":
    """What people said since, in the order in which they said it."""
    found: dict[str, list[Assessment]] = defaultdict(list)
    for trace in traces:
        if (number := trace.tags.get(REQUEST_TAG)) is not None:
            found[number] += filter(_is_own_word, trace.assessments)
    return {
        number: sorted(said, key=lambda each: each.last_update_time_ms or 0)
        for number, said in found.items()
        if said
    }


def _is_own_word(said: "Assessment") -> bool:
    """Whether a person said it on MLflow's pages; what the gateway wrote counts once it was changed there."""
    changed = (said.last_update_time_ms or 0) > (said.create_time_ms or 0)
    ours = said.source.source_id == GATEWAY and not changed
    named = said.name in _NAMED and said.valid is not False
    return named and said.source.source_type == "HUMAN" and not ours


def _with(known: FeedbackRow, said: "Sequence[Assessment]") -> FeedbackRow | None:
    """A user's word after these; None if they say nothing that can be read."""
    scores = [value for each in said if (value := _share(each, SCORE)) is not None]
    consents = [value for each in said if (value := _share(each, CONSENT)) is not None]
    answers = [text for each in said if (text := _answer(each)) is not None]
    if not (scores or answers or consents):
        return None
    at_s = (said[-1].last_update_time_ms or 0) / 1000
    row = replace(known, at_s=at_s, key_id=None, comment=None)
    if scores or answers:
        row = replace(
            row, score=scores[-1] if scores else None, answer=answers[-1] if answers else None
        )
    return replace(row, consent=consents[-1] == 1) if consents else row


def _share(said: "Assessment", name: str) -> float | None:
    """The value of feedback of this name, from 0 (no, wrong) to 1 (yes, right)."""
    if said.name != name or said.feedback is None or said.feedback.value is None:
        return None
    value = said.feedback.value
    score = _WORDS.get(value.lower()) if isinstance(value, str) else value
    if isinstance(score, int | float) and 0 <= score <= 1:
        return float(score)
    _log.warning("trace %s: %s: %r is no score from 0 to 1", said.trace_id, name, value)
    return None


def _answer(said: "Assessment") -> str | None:
    if said.expectation is None or not isinstance(said.expectation.value, str | int | float):
        return None
    return str(said.expectation.value).strip() or None
