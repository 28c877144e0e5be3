"""A finished trajectory as an MLflow trace: one span for each thought and each call.

Spans carry tokens, price and latency, and the trace carries the verdict on the answer. Traces are made from
finished trajectories, so that a rollout needs no tracing; times are laid out from the trajectory's seconds.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from routerr1.matching import exact_match
from routerr1.rollout.record import from_row
from routerr1.tracking.store import open_client, store_errors
from routerr1.types import Ask, Generation, Question, Trajectory, Turn

if TYPE_CHECKING:
    from mlflow.entities import LiveSpan

    from routerr1.evaluate.controls import Router
    from routerr1.evaluate.rows import Row

Item = TypeVar("Item")
Key = tuple[str, str, int, str, str]

_NS = 1_000_000_000
BOTH = "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT"
"""Without it, MLflow sends spans to a collector of OpenTelemetry in place of its own store."""
CORRECT, REFERENCES = "correct", "reference_answers"
"""Names of the assessments: whether the answer is right, and what it is held against."""


def log_traces(
    trajectories: Sequence[Trajectory],
    experiment: str,
    *,
    run_id: str | None = None,
    sample: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> int:
    """Log one trace per trajectory, and wait until all are stored.

    Args:
        experiment: id of the MLflow experiment.
        run_id: the run they belong to.
        sample: how many to log, evenly spread; None logs all.
        tags: of each trace, e.g. the stage.

    Returns: the number of traces.
    Raises: RegistryError if the store refuses.
    """
    import mlflow

    open_client()
    chosen = trajectories if sample is None else spread(trajectories, sample)
    if not chosen:
        return 0
    with store_errors():
        waiting, most = 0, _max_waiting_spans()
        for trajectory in chosen:
            waiting += _trace(trajectory, experiment, run_id, dict(tags or {}))
            if waiting >= most:
                mlflow.flush_trace_async_logging()
                waiting = 0
        mlflow.flush_trace_async_logging()
    return len(chosen)


def _max_waiting_spans() -> int:
    """Spans that may wait to be stored; MLflow drops what its queues cannot hold.

    One queue holds 2048 spans, the other a configured number of writes, of which a span needs at most one.
    """
    from mlflow.environment_variables import MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE

    writes: Any = MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE  # untyped in MLflow
    return min(2000, int(writes.get()))


def hand_over(
    trajectories: Sequence[Trajectory],
    experiment: str,
    *,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log a few trajectories without waiting; call `open_client` once before.

    MLflow's threads store them within seconds, and at the latest when the process exits. Handing over
    takes a millisecond; waiting takes a second.

    Raises: RegistryError if MLflow refuses.
    """
    with store_errors():
        for trajectory in trajectories:
            _trace(trajectory, experiment, run_id, dict(tags or {}))


def spread(values: Sequence[Item], count: int) -> list[Item]:
    """`count` values, evenly spread and with the first among them; all values if there are fewer.

    >>> spread("abcdef", 4)
    ['a', 'b', 'd', 'e']
    """
    number = min(count, len(values))
    return [values[place * len(values) // number] for place in range(number)]


class TraceBuffer:
    """Trajectories with the tokens and seconds that evaluation rows leave out."""

    def __init__(self) -> None:
        self._kept: dict[Key, Trajectory] = {}

    def keep(self, router: "Router") -> "Router":
        """The same router, whose trajectories are kept here."""

        async def play(question: Question, *, player: str) -> Trajectory:
            played = await router.play(question, player=player)
            key = (router.pool_name, router.name, router.seed, question.dataset, question.id)
            self._kept[key] = played
            return played

        return replace(router, play=play)

    def of(self, row: "Row") -> Trajectory:
        """The trajectory of a row: the one kept here, or what the row itself holds of it."""
        return self._kept.get(row.key) or from_row(json.loads(row.trajectory))


def _trace(
    trajectory: Trajectory, experiment: str, run_id: str | None, tags: dict[str, str]
) -> int:
    """Make and end the spans of one trace; returns how many there are."""
    import mlflow
    from mlflow.tracing.constant import TraceMetadataKey

    os.environ.setdefault(BOTH, "true")
    started = now = time.time_ns() - int(sum(map(_seconds, trajectory.turns)) * _NS)
    question, ledger = trajectory.question, trajectory.ledger
    root = mlflow.start_span_no_context(
        "question",
        span_type="CHAIN",
        inputs={"question": question.question},
        attributes={"dataset": question.dataset, "question_id": question.id},
        metadata={TraceMetadataKey.SOURCE_RUN: run_id} if run_id else None,
        tags=tags,
        experiment_id=experiment,
        start_time_ns=now,
    )
    for number, turn in enumerate(trajectory.turns):
        now = _turn(root, number, turn, now)
    root.set_outputs({"answer": trajectory.answer, "stopped": trajectory.stopped})
    root.set_attributes(
        {
            "cost_usd": ledger.cost_usd,
            "calls": ledger.calls,
            "policy_tokens": ledger.policy_tokens,
            "latency_s": (now - started) / _NS,
        }
    )
    if question.golden_answers:  # a served question has none
        _assess(root, trajectory)
    root.end(end_time_ns=now)
    return 1 + sum(1 if turn.reply is None else 2 for turn in trajectory.turns)  # at most


def _assess(root: "LiveSpan", trajectory: Trajectory) -> None:
    """Attach whether the answer is right (exact match), and the reference answers."""
    import mlflow
    from mlflow.entities import AssessmentSource
    from mlflow.tracing.provider import safe_set_span_in_context

    source = AssessmentSource(source_type="CODE", source_id="routerr1.matching.exact_match")
    golden = trajectory.question.golden_answers
    right = trajectory.answer is not None and exact_match(trajectory.answer, golden) == 1.0
    # Assessments of the trace in context travel with it; any other one is a request of its own.
    with safe_set_span_in_context(root):
        mlflow.log_feedback(trace_id=root.trace_id, name=CORRECT, value=right, source=source)
        mlflow.log_expectation(
            trace_id=root.trace_id, name=REFERENCES, value=list(golden), source=source
        )


def _turn(root: "LiveSpan", number: int, turn: Turn, start_ns: int) -> int:
    """Make the spans of one turn; returns the time at which it ends. A turn without words has no thought."""
    import mlflow

    reply = turn.reply
    call_s = reply.latency_s if reply is not None else 0.0
    thought_end = start_ns + int(max(0.0, turn.wall_s - call_s) * _NS)
    if turn.generation.text or turn.generation.token_ids:
        _thought(root, number, turn.generation, start_ns, thought_end)
    if reply is None:
        return thought_end
    end = thought_end + int(call_s * _NS)
    call = mlflow.start_span_no_context(
        f"call {reply.model or 'unknown name'}",
        span_type="CHAT_MODEL",
        parent_span=root,
        inputs=turn.action.query if isinstance(turn.action, Ask) else turn.generation.text,
        attributes={"model": reply.model},
        start_time_ns=thought_end,
    )
    call.set_outputs(reply.text if reply.failure is None else f"no reply ({reply.failure})")
    call.set_attributes({"latency_s": reply.latency_s, "retries": reply.retries})
    if reply.breaker_state is not None:
        call.set_attribute("breaker_state", reply.breaker_state)
    call.set_attributes(_usage(reply.prompt_tokens, reply.completion_tokens, reply.cost_usd))
    call.set_attributes(_gen_ai(reply.model, reply.prompt_tokens, reply.completion_tokens))
    call.end(end_time_ns=end, status="OK" if reply.failure is None else "ERROR")
    return end


def _thought(root: "LiveSpan", number: int, said: Generation, start_ns: int, end_ns: int) -> None:
    import mlflow

    thought = mlflow.start_span_no_context(
        f"thought {number + 1}", span_type="LLM", parent_span=root, start_time_ns=start_ns
    )
    thought.set_outputs(said.text)
    thought.set_attribute("latency_s", (end_ns - start_ns) / _NS)
    if said.token_ids:  # unknown for a trajectory that was read from a row
        thought.set_attributes(_usage(0, len(said.token_ids), 0.0))
        thought.set_attributes(_gen_ai("policy", 0, len(said.token_ids)))
    thought.end(end_time_ns=end_ns)


def _seconds(turn: Turn) -> float:
    call_s = turn.reply.latency_s if turn.reply is not None else 0.0
    return max(turn.wall_s, call_s)


def _gen_ai(model: str, prompt: int, completion: int) -> dict[str, Any]:
    """A call in OpenTelemetry's semantic conventions for generative AI."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "routerr1",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
    }


def _usage(prompt: int, completion: int, cost_usd: float) -> dict[str, Any]:
    """Usage under MLflow's own names, which it sums over a trace."""
    from mlflow.tracing.constant import CostKey, SpanAttributeKey, TokenUsageKey

    return {
        SpanAttributeKey.CHAT_USAGE: {
            TokenUsageKey.INPUT_TOKENS: prompt,
            TokenUsageKey.OUTPUT_TOKENS: completion,
            TokenUsageKey.TOTAL_TOKENS: prompt + completion,
        },
        SpanAttributeKey.LLM_COST: {
            CostKey.INPUT_COST: 0.0,
            CostKey.OUTPUT_COST: cost_usd,
            CostKey.TOTAL_COST: cost_usd,
        },
    }
