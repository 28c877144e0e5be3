"""What people say on MLflow's pages, in a real store, on its way into questions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Feedback

from routerr1.data.imported import Shares
from routerr1.data.splits import read_file
from routerr1.serve.assessments import GATEWAY, REQUEST_TAG, assessed
from routerr1.serve.feedback import FeedbackRequest, import_feedback, learned
from routerr1.serve.store import FeedbackRow, RequestRow, Store
from routerr1.serve.tracing import Tracer
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import experiment_id, open_client
from routerr1.types import Trajectory
from tests.serve.test_tracing import played

pytestmark = pytest.mark.slow
PERSON = AssessmentSource(source_type="HUMAN", source_id="ann")
ASKED = {
    number: RequestRow(
        number, 1.0, None, None, "routerr1@7", "routerr1", 5.0, 200, None, 0.0, 0.1, [],
        f"Which city is on page {number} of the atlas?", "Paris",
    )
    for number in ("r1", "r2", "r3", "r4")
}  # fmt: skip
Traced = Callable[..., dict[str, str]]


@pytest.fixture
async def trajectory(mlflow_store: Path, pool: SimulatedPool) -> Trajectory:
    assert mlflow_store == Path.cwd()
    return await played(pool)


def traced(trajectory: Trajectory, **said: FeedbackRequest) -> dict[str, str]:
    """Trace the requests as a gateway does that keeps texts; ids of the traces by request."""
    tracer = Tracer("served", share=1.0, texts=True)
    for number in ASKED:
        tracer.put(trajectory, number, "routerr1@7", "ab" * 16)
    for number, each in said.items():
        tracer.assess(number, each)
    tracer.close()
    client = open_client()
    found = client.search_traces(locations=[experiment_id(client, "served")])
    return {trace.info.tags[REQUEST_TAG]: trace.info.trace_id for trace in found}


def feedback(trace: str, name: str, value: Any, source: AssessmentSource = PERSON) -> None:
    mlflow.log_feedback(trace_id=trace, name=name, value=value, source=source)


def said_by_user(number: str, **other: object) -> FeedbackRow:
    row = FeedbackRow(number, 2.0, None, 0.0, None, None, True, None)
    return replace(row, **other)  # type: ignore[arg-type]


async def test_what_people_say_there_becomes_questions(
    trajectory: Trajectory, tmp_path: Path
) -> None:
    ids = traced(trajectory)
    feedback(ids["r1"], "user", True)
    mlflow.log_expectation(trace_id=ids["r2"], name="right_answer", value="Lyon", source=PERSON)
    mlflow.log_expectation(
        trace_id=ids["r3"], name="expected_response", value="Nice", source=PERSON
    )
    for number in ("r1", "r2"):
        feedback(ids[number], "consent", "yes")
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.write_requests(ASKED.values())
    made, skipped = import_feedback(
        store, "feedback", [], shares=Shares(0.0, 0.0), assessed=assessed("served", [])
    )
    rows = {row.id: row for row in read_file(made.path)}
    assert {number: row.golden_answers for number, row in rows.items()} == {
        "r1": ("Paris",), "r2": ("Lyon",),
    }  # fmt: skip
    assert skipped.no_consent == 1  # r3: nobody agreed


async def test_they_take_the_place_of_the_users_word_but_not_of_the_users_consent(
    trajectory: Trajectory,
) -> None:
    ids = traced(trajectory)
    users = [
        said_by_user("r1", answer="Rome"),
        said_by_user("r2", answer="Rome", consent=False),
        said_by_user("r3", answer="Rome"),
        said_by_user("r4", answer="Rome", at_s=9e9),  # later than what is said there
    ]
    for number in ("r1", "r2", "r4"):
        feedback(ids[number], "user", 1)
    feedback(ids["r3"], "consent", False)
    found, skipped = learned([*users, *assessed("served", users)], ASKED)
    assert {row.id: row.answer for row in found} == {"r1": "Paris", "r4": "Rome"}
    assert skipped.no_consent == 2


async def test_only_people_count_and_what_the_gateway_wrote_once_it_was_changed(
    trajectory: Trajectory,
) -> None:
    wrong = FeedbackRequest(request_id="r1", score=0, consent=True)
    ids = traced(trajectory, r1=wrong)
    judge = AssessmentSource(source_type="LLM_JUDGE", source_id="judge")
    feedback(ids["r2"], "user", True, judge)
    feedback(ids["r3"], "tone", True)
    feedback(ids["r4"], "user", "splendid")
    assert assessed("served", [said_by_user("r1")]) == []
    (own,) = [
        each
        for each in mlflow.get_trace(ids["r1"]).info.assessments
        if each.source.source_id == GATEWAY
    ]
    mlflow.update_assessment(ids["r1"], own.assessment_id, Feedback(name="user", value=True))
    (row,) = assessed("served", [said_by_user("r1")])
    assert (row.request_id, row.score, row.consent) == ("r1", 1.0, True)


def test_without_a_store_or_an_experiment_nothing_was_said(
    mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mlflow_store == Path.cwd()
    assert assessed("of another name", []) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow has set it
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert assessed("served", []) == []
    assert not list(Path().iterdir())
