"""Requests as traces of MLflow, with no more text than is kept."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import openai
import pytest
from mlflow.environment_variables import MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT

from routerr1.baselines.likeness import Likeness
from routerr1.config import RolloutParams
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.serve.assessments import REQUEST_TAG
from routerr1.serve.feedback import FeedbackRequest
from routerr1.serve.tracing import (
    TOPIC_TAG,
    UNLIKE_TAG,
    VERSION_TAG,
    Tracer,
    open_tracer,
    sampled,
)
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import experiment_id, open_client
from routerr1.tracking.traces import BOTH
from routerr1.types import Question, Trajectory
from tests.serve.conftest import FRANCE, Start, calls_atlas
from tests.serve.stub import USAGE, build_stub
from tests.serve.test_openai_client import client
from tests.serve.test_passing_through import ASK, TEXT, price, through


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
    said = FeedbackRequest(request_id="chatcmpl-1", score=0, answer="Lyon", comment="No: Lyon.")
    tracer.assess("chatcmpl-1", said)
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
    words = {each.name: each for each in trace.info.assessments}
    assert words["user"].feedback.value == 0
    assert words["user"].rationale == ("No: Lyon." if texts else None)
    assert ("right_answer" in words) is texts


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.slow
def test_a_request_that_is_passed_on_is_traced_too(
    mlflow_store: Path, start: Start, tmp_path: Path, *, texts: bool
) -> None:
    assert mlflow_store == Path.cwd()
    tracer = Tracer("served", share=1.0, texts=texts)
    asked = {**ASK, "extra_headers": {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}}
    with through(start, tmp_path, build_stub()) as running, client(running) as openai_client:
        running.gateway.tracer = tracer
        whole = openai_client.chat.completions.create(**asked)
        (number, *_) = {
            chunk.id for chunk in openai_client.chat.completions.create(**ASK, stream=True)
        }
        with pytest.raises(openai.BadRequestError) as refused:
            openai_client.chat.completions.create(
                model="Atlas", messages=[{"role": "user", "content": "refuse"}]
            )
        tracer.close()
        running.gateway.tracer = None
    mlflow_client = open_client()
    traces = mlflow_client.search_traces(locations=[experiment_id(mlflow_client, "served")])
    by_request = {trace.info.tags[REQUEST_TAG]: trace for trace in traces}
    assert {whole.id, number} < by_request.keys()
    assert len(by_request) == 3
    assert refused.value.status_code == 400
    first = by_request[whole.id]
    assert first.info.tags["traceparent"] == "ab" * 16
    assert first.info.tags[VERSION_TAG] == "routerr1@7"
    for trace in by_request.values():
        failed = trace.info.tags[REQUEST_TAG] not in {whole.id, number}
        question, call = sorted(trace.data.spans, key=lambda span: span.name, reverse=True)
        assert (question.name, call.name) == ("question", "call Atlas")
        assert call.status.status_code == ("ERROR" if failed else "OK")
        if not failed:
            assert call.attributes["gen_ai.usage.output_tokens"] == USAGE["completion_tokens"]
            assert question.attributes["cost_usd"] == pytest.approx(price())
            assert (TEXT in str(trace.to_dict())) is texts
            assert (FRANCE in str(trace.to_dict())) is texts


@pytest.mark.slow
async def test_a_trace_that_cannot_be_made_ends_neither_the_next_one_nor_the_gateway(
    mlflow_store: Path, pool: SimulatedPool
) -> None:
    assert mlflow_store == Path.cwd()
    tracer = Tracer("served", share=1.0, texts=True)
    trajectory = await played(pool)
    broken: Any = None
    tracer.put(replace(trajectory, turns=broken), "chatcmpl-1", "routerr1@7", "ab" * 16)
    tracer.put(trajectory, "chatcmpl-2", "routerr1@7", "cd" * 16)
    tracer.close()
    client = open_client()
    (trace,) = client.search_traces(locations=[experiment_id(client, "served")])
    assert trace.info.tags[REQUEST_TAG] == "chatcmpl-2"


class Collector(BaseHTTPRequestHandler):
    """Takes spans by OTLP over HTTP."""

    taken: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.taken.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


# In a process of its own, because MLflow reads the address once.
TRACED = """
import asyncio, mlflow
from routerr1.serve.tracing import Tracer
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import experiment_id, open_client
from tests.serve.test_tracing import played

tracer = Tracer("served", share=1.0, texts=True)
tracer.put(asyncio.run(played(SimulatedPool(default_candidates(), {}, seed=1))), "r", "v", "ab" * 16)
tracer.close()
mlflow.flush_trace_async_logging(terminate=True)
client = open_client()
print(len(client.search_traces(locations=[experiment_id(client, "served")])))
"""


@pytest.mark.slow
def test_a_collector_gets_spans_beside_the_store(mlflow_store: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/v1/traces"
    environment = {
        **os.environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": address,
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "MLFLOW_TRACKING_URI": f"sqlite:///{mlflow_store / 'mlflow.db'}",
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRACED],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.stdout.split()[-1] == "1"
    assert any(b"call Atlas" in each for each in Collector.taken)


@pytest.mark.slow
async def test_a_collector_does_not_take_the_place_of_the_store(
    mlflow_store: Path, pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mlflow_store == Path.cwd()
    monkeypatch.setenv(BOTH, "")
    monkeypatch.delenv(BOTH)
    tracer = Tracer("served", share=1.0, texts=True)
    tracer.put(await played(pool), "chatcmpl-1", "routerr1@7", "ab" * 16)
    tracer.close()
    assert MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT.get() is True


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
