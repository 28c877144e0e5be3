"""What the gateway does with a request, whatever protocol it came by: admit, answer, bill, keep."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import JsonValue

from routerr1.baselines.likeness import Likeness
from routerr1.config import ServeParams
from routerr1.pool.base import Call
from routerr1.pool.budget import Grant, Payer
from routerr1.pool.client import HttpPool
from routerr1.pool.forward import Forwarded
from routerr1.pool.wire import clean
from routerr1.serve.answers import (
    Answer,
    about_of,
    first_tokens,
    require_answer,
    stopped_at,
    usage_of,
)
from routerr1.serve.asked import Asked, Outcome
from routerr1.serve.build import SERVED
from routerr1.serve.engine import Engine
from routerr1.serve.errors import ApiError, invalid, over_budget
from routerr1.serve.hearing import NOT_ALLOWED, Event, Heard
from routerr1.serve.kept import Kept
from routerr1.serve.keys import Keyring, is_loopback
from routerr1.serve.metrics import Metrics, best_single, single_usd
from routerr1.serve.requests import ChatRequest, metadata_of, question_of, refuse_unsupported
from routerr1.serve.store import Key, RequestRow, Store, TrialRow, Writer
from routerr1.serve.tracing import Tracer, passed_on
from routerr1.types import Question, Reply, Trajectory

_log = logging.getLogger(__name__)
_OURS = ("spend", "include_reasoning")  # fields that candidates do not know
_REPORT_S = 30.0  # to write and publish the report of a shadow
_ADMITTED_S = 1.0  # by then a request that was admitted is under way


class Gateway:
    """The engine that takes new requests, and what all requests share.

    Args:
        tracer: traces a sample; None traces nothing.

    Attributes:
        observers: are handed every outcome of the router.
        choose: from what a user is known by to an engine that takes the request in place of the champion.
        on_score: is called with the request and the score of feedback.
        beside: other engines, closed with the gateway.
        at_end: is called before engines and store are closed, and has `drain_s` and half a minute.
        loop: of the server, once it runs.
    """

    def __init__(
        self,
        engine: Engine,
        params: ServeParams,
        store: Store,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self.engine = engine
        self.params = params
        self.store = store
        self.keyring = Keyring(store, required=not is_loopback(params.host))
        self.metrics = Metrics()
        self.draining = False
        self.tracer = tracer
        self._writer = Writer(store)
        self._ending: set[asyncio.Task[None]] = set()
        self._finishing: set[asyncio.Future[None]] = set()
        self.observers: list[Callable[[Outcome], None]] = []
        self.choose: Callable[[str], Engine | None] | None = None
        self.on_score: Callable[[RequestRow, float], None] | None = None
        self.beside: list[Engine] = []
        self.at_end: list[Callable[[], Awaitable[None]]] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.metrics.serving.labels(engine.identity.label).set(1)

    def models(self, key: Key | None) -> list[str]:
        """The router, other versions of it, and every candidate that this key may ask by name."""
        others = dict.fromkeys(engine.identity.label for engine in self.beside)
        return [self.engine.identity.name, *others, *self._candidates(key)]

    def _candidates(self, key: Key | None) -> list[str]:
        allowed = self.params.candidates
        return [
            card.name
            for card in self.engine.cards
            if (allowed == "all" or card.name in allowed)
            and (key is None or key.candidates is None or card.name in key.candidates)
        ]

    def _absence(self, model: str) -> str:
        """Why `models` does not list a model."""
        allowed = self.params.candidates
        if not any(card.name == model for card in self.engine.cards):
            return "does not exist"
        if allowed == "all" or model in allowed:
            return "is not one that this key may ask"
        return "is not in serve.candidates"

    def asked(
        self, request: ChatRequest, key: Key | None, budget_usd: float | None, trace: str | None
    ) -> Asked:
        """A request that was admitted.

        Raises: ApiError 404 for a model that there is not; 403 for a spend level above the key's.
        """
        if self.draining:
            raise ApiError(503, "the gateway is ending; ask again", "draining", retry=True)
        if request.model not in self.models(key):
            raise ApiError(
                404,
                f"the model {request.model[:100]!r} {self._absence(request.model)}; GET /v1/models lists "
                "the models",
                "model_not_found",
                "model",
            )
        spend = self.params.spend if request.spend is None else request.spend
        if key is not None and key.max_spend is not None:
            if request.spend is not None and spend > key.max_spend:
                raise ApiError(
                    403,
                    f"spend: this key may ask for {key.max_spend:g} at most",
                    "spend_too_high",
                    "spend",
                )
            spend = min(spend, key.max_spend)
        number = f"chatcmpl-{secrets.token_hex(16)}"
        others = {engine.identity.label: engine for engine in self.beside}
        engine = others.get(request.model, self.engine)
        if self.choose is not None and request.model == engine.identity.name:
            sticky = f"{key.id if key is not None else ''}/{request.user or number}"
            engine = self.choose(sticky) or engine
        made = Asked(number, request.model_copy(update={"spend": spend}), engine, key, budget_usd)
        if trace is not None:
            made.trace_id = trace
        return made

    def is_router(self, asked: Asked) -> bool:
        """Whether a version of the router is asked, and not a candidate by its name."""
        identity = asked.engine.identity
        return asked.request.model in (identity.name, identity.label)

    def _grant(self, asked: Asked) -> Grant:
        limits = [asked.budget_usd, self.params.max_question_usd]
        stated = [limit for limit in limits if limit is not None]
        key = asked.key
        payers: tuple[Payer, ...] = ()
        if key is not None:
            payers = (Payer(f"key {key.id} month {datetime.now(UTC):%Y-%m}", key.month_usd),)
        return Grant(min(stated) if stated else None, payers)

    async def answer(
        self,
        asked: Asked,
        tell: Callable[[Event], None] | None = None,
        *,
        live: bool = False,
    ) -> Answer:
        """The router's answer.

        Args:
            tell: called with what happens, from whatever thread.
            live: tell the words of an answer while a candidate writes them.

        Raises: ApiError.
        """
        engine = asked.engine
        request = asked.request
        refuse_unsupported(request)
        text = question_of(request.messages)
        if len(text) > self.params.max_question_chars:
            raise ApiError(
                400,
                f"messages: {len(text)} characters, of which {self.params.max_question_chars} are taken",
                "context_length_exceeded",
                "messages",
            )
        question = Question(asked.id, SERVED, text, (), "test", metadata=metadata_of(request))
        allowed = asked.key.candidates if asked.key is not None else None
        heard = Heard(f"{SERVED}/{asked.id}", allowed, tell, live)
        grant = self._grant(asked)
        placing = engine.topics.place(text) if engine.topics is not None else None
        with Kept(self, asked, heard.replies, grant, text) as kept:
            try:
                async with asyncio.timeout(self.params.timeout_s):
                    trajectory = await engine.play(question, heard, grant)
            except TimeoutError:
                raise ApiError(
                    504, f"no answer within {self.params.timeout_s:g} s", "timeout"
                ) from None
            kept.trajectory = trajectory
            heard.flush()
            label = engine.identity.label
            placed: Likeness | None = None
            if placing is not None:
                placed = await asyncio.wrap_future(placing)
                self.metrics.placed(label, placed)
            if self.tracer is not None:
                self.tracer.put(trajectory, asked.id, label, asked.trace_id, placed)
            _refuse_too_long(trajectory)
            _refuse_not_allowed(heard.replies)
            said = require_answer(trajectory)
            said, finish = _shortened(said, request, heard)
            asked.answered()
            kept.answer = said
            seconds = time.perf_counter() - asked.began
            own_s = max(seconds - heard.generation_s - heard.call_s, 0.0)
            self.metrics.overhead_s.labels(label).observe(own_s)
            self._count_savings(engine, text, said, trajectory.ledger.cost_usd)
            about = about_of(
                heard.replies,
                engine.identity,
                spend=asked.spend,
                policy_tokens=trajectory.ledger.policy_tokens,
                seconds=seconds,
                trace_id=asked.trace_id,
                placed=placed,
            )
            return Answer(said, finish, usage_of(trajectory), about)

    async def forward(
        self,
        asked: Asked,
        body: dict[str, JsonValue],
        emit: Callable[[bytes], None] | None = None,
    ) -> Forwarded:
        """Pass a request on to a candidate.

        Args:
            emit: called with each event of a stream, on another thread.

        Raises: ApiError.
        """
        engine = asked.engine
        name = asked.request.model
        if (asked.request.n or 1) != 1:
            raise invalid("n: one answer is given", "n", "unsupported_parameter")
        if not isinstance(engine.pool, HttpPool):
            refuse_unsupported(asked.request)
        body = {field: value for field, value in body.items() if field not in _OURS}
        text = clean(json.dumps(body, ensure_ascii=False))
        body = json.loads(text)
        call = Call(name, text, f"{SERVED}/{asked.id}")
        grant = self._grant(asked)
        replies: list[Reply] = []
        with Kept(self, asked, replies, grant, call.query) as kept, engine.holding():
            with engine.granted(call.scope or "", grant):
                if isinstance(engine.pool, HttpPool):
                    found = await engine.pool.forward(call, body, emit)
                else:
                    query = question_of(asked.request.messages)
                    found = Forwarded(await engine.pool.ask(replace(call, query=query)))
            replies.append(found.reply)
            asked.answered()
            reply = found.reply
            if self.tracer is not None:
                question = Question(asked.id, SERVED, call.query, (), "test")
                played = passed_on(question, reply)
                self.tracer.put(played, asked.id, engine.identity.label, asked.trace_id)
            if reply.failure == "budget":
                raise over_budget(reply.note or "the budget of this request is spent")
            if reply.failure is not None:
                raise ApiError(
                    503 if found.status != 400 else 400,
                    f"{name}: {reply.note or reply.failure}",
                    "candidate_failed",
                )
            kept.answer = reply.text
            return found

    def keep(self, row: RequestRow | TrialRow) -> None:
        """Write a row, as far as the parameters say."""
        if self.params.keep == "none":
            return
        if self.params.keep == "metadata" and isinstance(row, RequestRow):
            row = replace(row, question=None, answer=None)
        self._writer.put(row)

    def flush(self) -> None:
        """Wait until finished requests can be looked up."""
        self._writer.flush()

    def _count_savings(self, engine: Engine, text: str, said: str, cost_usd: float) -> None:
        best = best_single(engine.cards)
        if best is not None:
            self.metrics.saved(engine.identity.label, single_usd(best, text, said) - cost_usd)

    def take_over(self, engine: Engine) -> None:
        """Let `engine` answer new requests; the present one ends when its last request does."""
        engine.run_calls_on(asyncio.get_running_loop())
        before, self.engine = self.engine, engine
        self.metrics.serving.labels(before.identity.label).set(0)
        self.metrics.serving.labels(engine.identity.label).set(1)
        _log.info("%s takes over from %s", engine.identity.label, before.identity.label)
        ending = asyncio.ensure_future(_ended(before))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def add_beside(self, engine: Engine) -> None:
        """Let an engine serve beside the champion."""
        if self.loop is not None:
            engine.run_calls_on(self.loop)
        self.beside.append(engine)

    def retire(self, engine: Engine, first: Callable[[], Awaitable[None]] | None = None) -> None:
        """Close an engine that serves beside the champion, after its last request and after `first`."""
        self.beside.remove(engine)
        finishing = None if first is None else asyncio.ensure_future(first())
        if finishing is not None:
            self._finishing.add(finishing)
            finishing.add_done_callback(self._finishing.discard)
        ending = asyncio.ensure_future(_ended(engine, finishing))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """Close engines, writer and store."""
        await self._finish()
        for ending in self._ending:
            ending.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        for engine in (self.engine, *self.beside):
            await engine.aclose()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)
        await asyncio.to_thread(self._writer.close)
        self.store.close()

    async def _finish(self) -> None:
        """Let what is to be done at the end be done, in a time that is bounded; a failure is logged."""
        finishing = {*self._finishing, *(asyncio.ensure_future(last()) for last in self.at_end)}
        if not finishing:
            return
        _, late = await asyncio.wait(finishing, timeout=self.params.drain_s + _REPORT_S)
        for task in late:
            task.cancel()
        for result in await asyncio.gather(*finishing, return_exceptions=True):
            if isinstance(result, BaseException):
                _log.error("the end of a version beside the champion failed", exc_info=result)


async def _ended(engine: Engine, first: asyncio.Future[None] | None = None) -> None:
    """Close an engine after its last request and after `first`."""
    try:
        if first is not None:
            await asyncio.wait({first})
        await asyncio.sleep(_ADMITTED_S)
        await engine.drained()
    finally:
        await engine.aclose()


def _refuse_too_long(trajectory: Trajectory) -> None:
    first = trajectory.turns[0].generation
    if first.finish == "length" and not first.token_ids:
        raise ApiError(
            400, "messages: longer than the policy's context", "context_length_exceeded", "messages"
        )


def _refuse_not_allowed(replies: Sequence[Reply]) -> None:
    """Refuse a request whose router asked forbidden candidates alone; it would ask them again."""
    if replies and all(reply.note == NOT_ALLOWED for reply in replies):
        names = ", ".join(dict.fromkeys(reply.model for reply in replies))
        raise ApiError(
            403, f"the router chose {names}, which this key may not ask", "candidate_not_allowed",
            retry=False,
        )  # fmt: skip


def _shortened(said: str, request: ChatRequest, heard: Heard) -> tuple[str, str]:
    said = stopped_at(said, request.stops)
    if request.limit is None:
        return said, "stop"
    if heard.session is not None:
        cut = heard.session.truncate(said, request.limit)
    else:  # without a policy there is no tokenizer
        cut = first_tokens(said, request.limit)
    return cut, "stop" if cut == said else "length"
