"""The one multi-round loop. Training, evaluation, `ask` and serving all play questions here."""

import asyncio
import hashlib
import inspect
import math
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from routerr1 import protocol
from routerr1.config import RolloutParams
from routerr1.errors import ungrouped
from routerr1.matching import normalise
from routerr1.notation import Notation
from routerr1.pool.base import Call, Pool
from routerr1.pool.thoughts import without_thoughts
from routerr1.pool.usage import billed
from routerr1.prompt import Renderer
from routerr1.rollout.generate import Generator, Session
from routerr1.types import (
    Answer,
    Ask,
    Card,
    Kept,
    Ledger,
    LookUp,
    Malformed,
    Question,
    Reply,
    Stopped,
    Trajectory,
    Turn,
)

_TOKEN_CHARS = 32  # hardly any token is longer
Reroute = Callable[[Ask], str | Awaitable[str]]

FAILED = {
    "unknown_model": "There is no such model. Ask one of the models listed.",
    "malformed_call": "That is not a call. Write Name: question.",
    "unavailable": "The model did not answer.",
    "budget": "The budget is used up, no more models can be asked.",
    "not_recorded": "No recorded reply exists for this question.",
    "repeated": "This model was asked that already.",
}


async def rollout(
    question: Question,
    generator: Generator,
    pool: Pool,
    *,
    render: Renderer,
    params: RolloutParams,
    seed: int,
    temperature: float | None = None,
    reroute: Reroute | None = None,
    player: str = "",
) -> Trajectory:
    """Play one question until it is answered, or the calls are spent and one last generation is made.

    Args:
        player: see `call_scope`.
        temperature: instead of `params.temperature`; 0 is greedy.
        reroute: given a call, the name of the candidate that is asked instead; the policy's own text
            stays as it is. Controls use it to separate routing from writing and reading.
    """
    notation = render.notation(question, pool.cards, seed, pool.behind_name)
    session = generator.start(render(question, pool.cards), seed=seed)
    sampling_temperature = params.temperature if temperature is None else temperature
    turns: list[Turn] = []
    scope = call_scope(question, seed, player)
    try:
        caller = _Caller(pool, notation, reroute, scope)
        stopped: Stopped | None = None
        while not stopped:
            turn, stopped = await _turn(
                session,
                caller,
                params=params,
                temperature=sampling_temperature,
                form=render.reply,
                may_call=sum(turn.reply is not None for turn in turns) < params.max_rounds,
                # One look-up before each call is enough; a policy that does nothing else has to end.
                may_look=sum(isinstance(turn.action, LookUp) for turn in turns)
                < 2 * params.max_rounds,
            )
            turns.append(turn)
        return trajectory_of(question, session.prompt_ids, turns, stopped, notation.handles)
    finally:
        session.close()


async def _turn(
    session: Session,
    caller: "_Caller",
    *,
    params: RolloutParams,
    temperature: float,
    form: str,
    may_call: bool,
    may_look: bool,
) -> tuple[Turn, Stopped | None]:
    """One generation and, if it asks for one and may, one look-up or call."""
    began = time.perf_counter()
    said = await session.generate(max_new_tokens=params.max_new_tokens, temperature=temperature)
    action = caller.notation.parse(said.text)
    closed = said.text.rstrip().endswith(protocol.STOPS)
    may_go_on = may_call and (may_look or not isinstance(action, LookUp))
    if isinstance(action, Answer) or not closed or not may_go_on:
        stopped: Stopped = "answered" if isinstance(action, Answer) else "max_rounds"
        if not closed:
            stopped = "length" if said.finish == "length" else "no_action"
        return Turn(said, action, wall_s=time.perf_counter() - began), stopped
    if isinstance(action, LookUp):
        inserted = protocol.information(caller.notation.cards_on(action.topic), form)
        ids = session.insert(inserted)
        return Turn(said, action, None, inserted, ids, time.perf_counter() - began), None
    reply = await caller.reply(action)
    heard = replace(reply, text=without_thoughts(reply.text)) if reply.failure is None else reply
    label = caller.notation.heard(action if isinstance(action, Ask) else None, heard)
    kept = kept_of(caller.pool.cards, reply)
    inserted, ids = insert_reply(session, reply, form, params.max_reply_tokens, kept, label)
    wall_s = time.perf_counter() - began
    return Turn(said, action, reply, inserted, ids, wall_s), None


def call_scope(question: Question, seed: int, player: str = "") -> str:
    """The scope of the calls of one rollout, by which budgets and recordings tell rollouts apart.

    Args:
        player: the router that plays, where several play the same question with the same seed.

    >>> call_scope(Question("q1", "nq", "Why?", (), "test"), 7, "training/policy/1")
    'training/policy/1/nq/q1/7'
    """
    rollout_id = f"{question.dataset}/{question.id}/{seed}"
    return f"{player}/{rollout_id}" if player else rollout_id


def insert_reply(
    session: Session,
    reply: Reply,
    form: str,
    max_tokens: int,
    kept: Kept = "first",
    label: str = "",
) -> tuple[str, tuple[int, ...]]:
    """Put a reply, or why there is none, into the policy's context; gives the text and its token ids.

    Thoughts that the reply still holds are left out: calls recorded elsewhere may have them.

    Args:
        form: see `prompt.Renderer.reply`.
        max_tokens: that are kept of the reply; the text around it is not counted.
        kept: which tokens of a longer reply are kept.
        label: put before the reply.
    """
    shown = without_thoughts(reply.text) if reply.failure is None else FAILED[reply.failure]
    # By characters first: a server that ignores our limit may send a megabyte.
    most = max_tokens * _TOKEN_CHARS
    if kept == "last":
        shortened = _last_tokens(session, protocol.escape(shown.strip()[-most:]), max_tokens)
    else:
        shortened = session.truncate(protocol.escape(shown.strip()[:most]), max_tokens)
    inserted = protocol.information(f"{label}{shortened.strip()}", form)
    return inserted, session.insert(inserted)


def kept_of(cards: Sequence[Card], reply: Reply) -> Kept:
    """Which tokens of this reply are kept if it is too long, by the card of who answered."""
    return next((card.reply for card in cards if card.name == reply.model), "first")


def _last_tokens(session: Session, text: str, max_tokens: int) -> str:
    """The longest end of `text` of at most `max_tokens` tokens, by bisection."""
    starts = range(len(text) + 1)
    start = bisect_left(
        starts, True, key=lambda begin: session.truncate(text[begin:], max_tokens) == text[begin:]
    )
    return text[start:]


class _Caller:
    """Makes the calls of one rollout."""

    def __init__(self, pool: Pool, notation: Notation, reroute: Reroute | None, scope: str) -> None:
        self.pool = pool
        self.notation = notation
        self._reroute = reroute
        self._scope = scope
        self._asked: set[tuple[str, str]] = set()

    async def reply(self, action: Ask | Malformed) -> Reply:
        """The reply to a call, or why there is none."""
        if isinstance(action, Malformed):
            return Reply("", "", failure=action.failure, note=action.why)
        name: str | Awaitable[str] = action.name if self._reroute is None else self._reroute(action)
        if inspect.isawaitable(name):
            name = await name
        asked = (name, normalise(action.query, "text"))
        if self.notation.refuses_repeats and asked in self._asked:
            return Reply("", "", failure="repeated", note=f"{name} was asked this before")
        self._asked.add(asked)
        reply = await self.pool.ask(Call(name, action.query, self._scope))
        return billed(self.pool.cards, action.query, reply)


def trajectory_of(
    question: Question,
    prompt_ids: tuple[int, ...],
    turns: Sequence[Turn],
    stopped: Stopped,
    handles: Mapping[str, str] | None = None,
) -> Trajectory:
    """What these turns make up; the last one may hold the answer."""
    last = turns[-1].action
    return Trajectory(
        question=question,
        turns=tuple(turns),
        stopped=stopped,
        answer=last.text if isinstance(last, Answer) else None,
        text="".join(turn.generation.text + turn.inserted for turn in turns),
        ledger=ledger(turns),
        prompt_ids=prompt_ids,
        handles=dict(handles or {}),
    )


def rejected(trajectory: Trajectory) -> Trajectory:
    """What replaces a trajectory that breaks a contract: the question and, if it is a number, the cost."""
    spent = trajectory.ledger.cost_usd
    kept = Ledger(cost_usd=spent if math.isfinite(spent) and spent > 0 else 0.0)
    return Trajectory(trajectory.question, (), "rejected", None, "", kept, trajectory.prompt_ids)


def ledger(turns: Sequence[Turn]) -> Ledger:
    """Sums over the turns. A call is a reply a candidate was asked for; one to no known model is a failure only."""
    replies = [turn.reply for turn in turns if turn.reply is not None]
    calls = [reply for reply in replies if reply.model]
    return Ledger(
        prompt_tokens=sum(reply.prompt_tokens for reply in replies),
        completion_tokens=sum(reply.completion_tokens for reply in replies),
        calls=len(calls),
        retries=sum(reply.retries for reply in replies),
        failures=sum(reply.failure is not None for reply in replies),
        cache_hits=sum(reply.cached for reply in replies),
        cost_usd=sum(reply.cost_usd for reply in replies),
        breaker_states=tuple(reply.breaker_state for reply in calls),
        policy_tokens=sum(len(turn.generation.token_ids) for turn in turns),
        round_wall_s=tuple(turn.wall_s for turn in turns),
        cached_prompt_tokens=sum(reply.cached_prompt_tokens for reply in replies),
        reasoning_tokens=sum(reply.reasoning_tokens for reply in replies),
    )


async def play(
    questions: Sequence[Question],
    generator: Generator,
    pool: Pool | Sequence[Pool],
    *,
    render: Renderer,
    params: RolloutParams,
    seed: int,
    temperature: float | None = None,
    reroute: Reroute | None = None,
    concurrency: int = 256,
    progress: Callable[[], None] | None = None,
    first: int = 0,
) -> list[Trajectory]:
    """Play all questions, each on its own: calls of some overlap with the generation of others.

    Each trajectory samples from its own stream, fixed by `seed` and its place in `questions`, counted
    from `first`. `pool` is one for all, or one for each question.

    Returns: one trajectory per question, in their order. `progress` is called after each.
    Raises: the first RouterError that the generator or a pool raises; the other trajectories are cancelled.
    """
    slots = asyncio.Semaphore(concurrency)
    pools = pool if isinstance(pool, Sequence) else [pool] * len(questions)

    async def one(place: int, question: Question) -> Trajectory:
        async with slots:
            played = await rollout(
                question,
                generator,
                pools[place],
                render=render,
                params=params,
                seed=stream_seed(seed, first + place),
                temperature=temperature,
                reroute=reroute,
            )
        if progress is not None:
            progress()
        return played

    with ungrouped():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*item)) for item in enumerate(questions)]
    return [task.result() for task in tasks]


def stream_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, so that neighbouring seeds give unrelated streams."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
