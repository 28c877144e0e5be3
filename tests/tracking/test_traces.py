"""Played questions as traces, read back from a real store."""

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from routerr1.evaluate.controls import Router
from routerr1.evaluate.rows import row_of
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import experiment_id, open_client
from routerr1.tracking.traces import TraceBuffer, log_traces
from routerr1.types import (
    Answer,
    Ask,
    Card,
    Generation,
    Ledger,
    Question,
    Reply,
    Trajectory,
    Turn,
)


@pytest.fixture
def played() -> Trajectory:
    """A thought and a call of 1.5 s, then an answer."""
    reply = Reply(
        "Atlas", "Paris.", prompt_tokens=7, completion_tokens=2, cost_usd=0.25, latency_s=1.5
    )
    turns = (
        Turn(Generation("t", (1, 2, 3)), Ask("Atlas", "capital?"), reply, "i", wall_s=2.0),
        Turn(Generation("a", (4,)), Answer("Paris"), wall_s=0.5),
    )
    question = Question("q", "d", "What?", ("Paris",), "test")
    ledger = Ledger(calls=1, cost_usd=0.25, policy_tokens=4)
    return Trajectory(question, turns, "answered", "Paris", "", ledger)


def test_spans_carry_tokens_price_and_latency(mlflow_store: Path, played: Trajectory) -> None:
    assert mlflow_store.is_dir()
    client = open_client()
    experiment = experiment_id(client, "traces")
    run = client.create_run(experiment).info.run_id
    assert log_traces([played] * 9, experiment, run_id=run, sample=3, tags={"stage": "s"}) == 3
    traces = client.search_traces(locations=[experiment], run_id=run)
    assert [trace.info.tags["stage"] for trace in traces] == ["s"] * 3
    spans = {span.name: span for span in traces[0].data.spans}
    assert set(spans) == {"question", "thought 1", "call Atlas", "thought 2"}
    call = spans["call Atlas"]
    assert call.attributes["mlflow.chat.tokenUsage"]["total_tokens"] == 9
    assert call.attributes["mlflow.llm.cost"]["total_cost"] == 0.25
    assert call.attributes["latency_s"] == 1.5
    assert call.end_time_ns - call.start_time_ns == 1_500_000_000
    assert spans["thought 1"].attributes["latency_s"] == 0.5  # of two seconds, without the call's
    whole = spans["question"]
    assert whole.end_time_ns - whole.start_time_ns == 2_500_000_000
    assert (whole.attributes["latency_s"], whole.attributes["policy_tokens"]) == (2.5, 4)
    assert traces[0].info.token_usage["total_tokens"] == 13  # 3 thought, 9 call, 1 thought


MANY = """
import pickle, sys
from routerr1.tracking.store import experiment_id, open_client
from routerr1.tracking.traces import log_traces
played = pickle.loads(bytes.fromhex(sys.argv[1]))
experiment = experiment_id(open_client(), "traces")
assert log_traces([played] * 40, experiment) == 40
"""


@pytest.mark.slow
def test_of_more_than_mlflow_has_room_for_none_is_dropped(
    mlflow_store: Path,  # noqa: ARG001
    played: Trajectory,
) -> None:
    """In a process of its own, for MLflow reads the size of its queue but once."""
    subprocess.run(
        [sys.executable, "-c", MANY, pickle.dumps(played).hex()],
        env={**os.environ, "MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE": "20"},
        check=True,
    )
    client = open_client()
    experiment = experiment_id(client, "traces")
    traces = client.search_traces(locations=[experiment], max_results=100)
    assert len(traces) == 40
    assert {len(trace.data.spans) for trace in traces} == {4}


def test_a_row_stands_for_a_trajectory_that_was_played_elsewhere(
    pool: SimulatedPool, played: Trajectory
) -> None:
    async def play(question: Question, *, player: str) -> Trajectory:  # noqa: ARG001 - as `Play`
        assert question == played.question
        return played

    kept = TraceBuffer()
    router = kept.keep(Router("policy", 1, "training", pool, play))
    again = asyncio.run(router.play(played.question, player="p"))
    row = row_of(again, pool="training", router="policy", seed=1, cards=[Card("Atlas")])
    assert kept.of(row) is played
    from_row = TraceBuffer().of(row)
    assert from_row.turns[0].reply == played.turns[0].reply
    assert from_row.turns[0].generation.token_ids == ()  # rows leave them out
    assert from_row.answer == "Paris"


def test_one_worker_writes_traces_to_sqlite_unless_the_environment_says_more(
    mlflow_store: Path,  # noqa: ARG001
    played: Trajectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = "MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS"
    monkeypatch.setenv(workers, "3")
    open_client()
    assert os.environ[workers] == "3"
    monkeypatch.delenv(workers)
    client = open_client()
    assert os.environ[workers] == "1"
    experiment = experiment_id(client, "traces")
    assert log_traces([played] * 5, experiment) == 5
    assert len(client.search_traces(locations=[experiment])) == 5
