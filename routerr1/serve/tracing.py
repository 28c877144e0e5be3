"""Sampled requests as MLflow traces, which are OpenTelemetry spans, and users' words as their assessments.

MLflow also sends its spans to a collector if `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set; see `tracking.traces`.
"""

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from routerr1.baselines.likeness import Likeness
from routerr1.errors import RegistryError
from routerr1.rollout.loop import trajectory_of
from routerr1.serve.assessments import ANSWER, GATEWAY, REQUEST_TAG, SCORE, has_store
from routerr1.serve.feedback import FeedbackRequest
from routerr1.tracking.store import experiment_id, open_client, store_errors
from routerr1.tracking.traces import hand_over
from routerr1.types import (
    Action,
    Answer,
    Ask,
    Generation,
    Question,
    Reply,
    Trajectory,
    Turn,
)

VERSION_TAG = "routerr1.version"
TOPIC_TAG, UNLIKE_TAG = "routerr1.topic", "routerr1.unlike"
_MOST_WAITING = 1000  # traces that wait; further ones are left out
_CLOSE_S = 30.0
_HIDDEN = "[not kept]"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Traced:
    trajectory: Trajectory
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Said:
    request_id: str
    said: FeedbackRequest


class Tracer:
    """Hands traces and assessments to MLflow, in a thread of its own.

    Args:
        experiment: name of the MLflow experiment.
        share: of requests that are traced, chosen by their id.
        texts: whether traces hold what was asked, thought, replied and answered.

    Raises: RegistryError if the store does not answer.
    """

    def __init__(self, experiment: str, *, share: float, texts: bool) -> None:
        self._client = open_client()
        self._experiment = experiment_id(self._client, experiment)
        self._share = share
        self._texts = texts
        self._waiting: queue.Queue[_Traced | _Said | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="routerr1-tracer", daemon=True)
        self._thread.start()

    def put(
        self,
        trajectory: Trajectory,
        request_id: str,
        version: str,
        trace_id: str,
        placed: Likeness | None = None,
    ) -> None:
        """Trace a finished rollout soon, if its request is among the sample."""
        if not sampled(request_id, self._share):
            return
        kept = trajectory if self._texts else without_texts(trajectory)
        tags = {REQUEST_TAG: request_id, VERSION_TAG: version, "traceparent": trace_id}
        if placed is not None:
            tags |= {TOPIC_TAG: placed.topic, UNLIKE_TAG: str(placed.is_unlike).lower()}
        self._put(_Traced(kept, tags))

    def assess(self, request_id: str, said: FeedbackRequest) -> None:
        """Add what a user said to the trace of the request, if there is one."""
        if sampled(request_id, self._share):
            self._put(_Said(request_id, said))

    def close(self) -> None:
        """Store what waits, in a time that is bounded: a store may have stopped answering."""
        import mlflow

        until = time.monotonic() + _CLOSE_S
        with suppress(queue.Full):
            self._waiting.put(None, timeout=_CLOSE_S)
        self._thread.join(max(until - time.monotonic(), 0.0))
        if self._thread.is_alive():
            _log.warning("the last traces are left out: the store does not take them")
            return
        mlflow.flush_trace_async_logging()

    def _put(self, item: _Traced | _Said) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            _log.warning("a trace is left out: %d wait already", _MOST_WAITING)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                if isinstance(item, _Traced):
                    hand_over([item.trajectory], self._experiment, tags=item.tags)
                else:
                    self._assess(item)
            except RegistryError as error:  # an answer matters more than its trace
                _log.warning("not traced: %s", error)
            except Exception:  # whatever it is, the next trace may succeed
                _log.exception("not traced")

    def _assess(self, item: _Said) -> None:
        import mlflow
        from mlflow.entities import AssessmentSource

        mlflow.flush_trace_async_logging()
        source = AssessmentSource(source_type="HUMAN", source_id=GATEWAY)
        with store_errors():
            found = self._client.search_traces(
                locations=[self._experiment],
                filter_string=f"tags.`{REQUEST_TAG}` = '{item.request_id}'",
                max_results=1,
            )
            for trace in found:
                number, said = trace.info.trace_id, item.said
                texts = self._texts or said.consent
                if said.score is not None:
                    mlflow.log_feedback(
                        trace_id=number, name=SCORE, value=said.score, source=source,
                        rationale=said.comment if texts else None,
                    )  # fmt: skip
                if said.answer is not None and texts:
                    mlflow.log_expectation(
                        trace_id=number, name=ANSWER, value=said.answer, source=source
                    )


def open_tracer(experiment: str, *, share: float, keep: str) -> Tracer | None:
    """A tracer, or None if nothing is to be traced or there is no store yet; serving makes none.

    Raises: RegistryError if the store does not answer.
    """
    if not has_store() or not share or keep == "none":
        return None
    return Tracer(experiment, share=share, texts=keep == "full")


def sampled(key: str, share: float) -> bool:
    """Whether a key (of a request, or of a user) is among the sample; the same wherever it is asked."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def passed_on(question: Question, reply: Reply) -> Trajectory:
    """A request that was passed on to a candidate, as a rollout of one call and no thought."""
    asked = Ask(reply.model, question.question)
    call = Turn(Generation(""), asked, reply, wall_s=reply.latency_s)
    if reply.failure is not None:
        return trajectory_of(question, (), [call], "no_action")
    answer = Turn(Generation(""), Answer(reply.text))
    return trajectory_of(question, (), [call, answer], "answered")


def without_texts(trajectory: Trajectory) -> Trajectory:
    """The same figures without any text of users, policy or candidates."""
    question = replace(trajectory.question, question=_HIDDEN, metadata={})
    turns = tuple(map(_turn_without_texts, trajectory.turns))
    answer = None if trajectory.answer is None else _HIDDEN
    return replace(trajectory, question=question, turns=turns, answer=answer, text=_HIDDEN)


def _turn_without_texts(turn: Turn) -> Turn:
    match turn.action:
        case Ask(name, _):
            action: Action = Ask(name, _HIDDEN)
        case Answer():
            action = Answer(_HIDDEN)
        case other:
            action = other
    said = replace(turn.generation, text=_HIDDEN if turn.generation.text else "")
    reply = turn.reply
    if reply is not None:
        reply = replace(reply, text=_HIDDEN if reply.text else "", thoughts="", note=None)
    return replace(turn, generation=said, action=action, reply=reply, inserted=_HIDDEN)
