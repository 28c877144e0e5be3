"""Requests as traces of MLflow, with no more text than is kept."""

from pathlib import Path

import mlflow
import pytest

from routerr1.baselines.likeness import Likeness
from routerr1.config import RolloutParams
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.serve.feedback import FeedbackRequest
from routerr1.serve.tracing import REQUEST_TAG, TOPIC_TAG, UNLIKE_TAG, Tracer, open_tracer, sampled
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import experiment_id, open_client
from routerr1.types import Question, Trajectory
from tests.serve.conftest import FRANCE, calls_atlas


async def played(pool: SimulatedPool) -> Trajectory:
    return await rollout(
        Question("r1", "served", FRANCE, (), "test"), ScriptedGenerator(calls_atlas), pool,
        render=renderer("compact", 2), seed=0,
        params=RolloutParams(max_rounds=2, max_new_tokens=50, temperature=1.0),
    )  # fmt: skip


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.slow
async def test_a_trace_holds_figures_and_texts_only_if_they_are_kept(
    mlflow_store: Path, pool: SimulatedPool, *, texts: bool
) -> None:
    assert mlflow_store == Path.cwd()
    tracer = Tracer("served", share=1.0, texts=texts)
    placed = Likeness("places", share=0.9, similarity=0.2, usual=0.4)
    tracer.put(await played(pool), "chatcmpl-1", "routerr1@7", "ab" * 16, placed)
    tracer.assess("chatcmpl-1", FeedbackRequest(request_id="chatcmpl-1", score=0, answer="Lyon"))
    tracer.close()
    mlflow.flush_trace_async_logging()
    client = open_client()
    (trace,) = client.search_traces(locations=[experiment_id(client, "served")])
    tags = trace.info.tags
    assert tags[REQUEST_TAG] == "chatcmpl-1"
    assert (tags[TOPIC_TAG], tags[UNLIKE_TAG]) == ("places", "true")
    spans = {span.name: span for span in trace.data.spans}
    call = spans["call Atlas"].attributes
    assert call["gen_ai.request.model"] == "Atlas"
    assert call["gen_ai.usage.output_tokens"] > 0
    whole = str(trace.to_dict())
    assert ("capital" in whole) is texts
    assert ("Paris" in whole) is texts
    said = {each.name: each for each in trace.info.assessments}
    assert said["user"].feedback.value == 0
    assert ("right_answer" in said) is texts


def test_nothing_is_traced_without_a_store_or_if_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert open_tracer("served", share=1.0, keep="full") is None
    (tmp_path / "mlflow.db").touch()
    assert open_tracer("served", share=1.0, keep="none") is None
    assert open_tracer("served", share=0.0, keep="full") is None


def test_a_share_of_requests_is_sampled_always_the_same() -> None:
    ids = [f"chatcmpl-{number}" for number in range(2000)]
    chosen = [each for each in ids if sampled(each, 0.1)]
    assert 140 < len(chosen) < 260  # 200 expected, 13.4 its standard deviation
    assert all(sampled(each, 0.2) for each in chosen)
