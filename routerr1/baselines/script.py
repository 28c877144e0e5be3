"""Routers that are programs: they decide the calls, and the base policy writes the final answer.

As in the paper, what a single-round router chose replies to the whole question, and the base policy reads
the reply and answers. The calls are put into the policy's context as if it had made them, so that the
trajectory reads, scores and costs like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from routerr1.evaluate.controls import Policy
from routerr1.notation import Notation
from routerr1.pool.base import Call, Pool
from routerr1.pool.usage import billed
from routerr1.protocol import extract_answer
from routerr1.rollout.generate import Session
from routerr1.rollout.loop import call_scope, trajectory_of
from routerr1.types import (
    Answer,
    Ask,
    Generation,
    Malformed,
    Question,
    Reply,
    Stopped,
    Trajectory,
    Turn,
)

NextCall = Callable[[Sequence[Reply]], Ask | None]
"""From the replies so far to the next call; None once it is time to answer."""

_CUE = "<think> done</think><answer>"  # makes a policy answer that would rather go on asking


async def play_calls(
    question: Question,
    next_call: NextCall,
    writer: Policy,
    pool: Pool,
    *,
    seed: int,
    player: str,
    read_all: bool = True,
) -> Trajectory:
    """Make the calls `next_call` decides, then let `writer` answer.

    Args:
        player: see `rollout.loop.call_scope`.
        read_all: the writer reads every reply; otherwise the last alone, as the ones before were rejected.
            The trajectory holds them all the same: they were paid.
    """
    prompt = writer.render(question, pool.cards)
    notation = writer.render.notation(question, pool.cards, seed)
    scope = call_scope(question, seed, player)
    session = writer.generator.start(prompt, seed=seed)
    try:
        turns: list[Turn] = []
        replies: list[Reply] = []
        while (ask := next_call(replies)) is not None:
            if replies and not read_all:
                session.close()
                session = writer.generator.start(prompt, seed=seed)
            turns.append(await _call(session, ask, writer, pool, scope, notation))
            reply = turns[-1].reply
            assert reply is not None  # `_call` always sets it
            replies.append(reply)
        turns += await final_answer(session, writer, notation)
        return finished(question, session, turns, notation)
    finally:
        session.close()


async def play_once(
    question: Question, name: str, writer: Policy, pool: Pool, *, seed: int, player: str
) -> Trajectory:
    """One call: the whole question to `name`."""

    def next_call(replies: Sequence[Reply]) -> Ask | None:
        return None if replies else Ask(name, question.question)

    return await play_calls(question, next_call, writer, pool, seed=seed, player=player)


async def _call(
    session: Session, ask: Ask, writer: Policy, pool: Pool, scope: str, notation: Notation
) -> Turn:
    text = f"<think> {ask.name}</think><search> {notation.written(ask)}</search>"
    session.insert(text)
    reply = await pool.ask(Call(ask.name, ask.query, scope))
    reply = billed(pool.cards, ask.query, reply)
    inserted = writer.insert(session, reply, pool, notation.heard(ask, reply))
    return Turn(Generation(text), ask, reply, *inserted)


async def final_answer(
    session: Session, writer: Policy, notation: Notation, opening: str = ""
) -> list[Turn]:
    """Let the policy go on from `opening`; if it does not answer by itself, open the answer for it."""
    said = await _continue(session, writer, opening)
    action = notation.parse(said.text)
    if isinstance(action, Answer):
        return [Turn(said, action)]
    turn = Turn(said, Malformed("no call is left"))
    return [turn, await opened_answer(session, writer, notation, _CUE)]


async def opened_answer(
    session: Session, writer: Policy, notation: Notation, opening: str = "<answer>"
) -> Turn:
    """The turn that `opening`, which ends in `<answer>`, begins."""
    said = await _continue(session, writer, opening)
    answer = extract_answer(said.text)
    if answer is None:
        return Turn(said, Malformed("no answer"))
    return Turn(said, notation.parse(f"<answer>{answer}</answer>"))


async def _continue(session: Session, writer: Policy, opening: str) -> Generation:
    """What the policy writes after `opening`; the text holds both, the tokens are its own alone."""
    if opening:
        session.insert(opening)
    said = await session.generate(
        max_new_tokens=writer.rollout.max_new_tokens, temperature=writer.temperature
    )
    return replace(said, text=opening + said.text)


def finished(
    question: Question, session: Session, turns: Sequence[Turn], notation: Notation
) -> Trajectory:
    """The trajectory of these turns."""
    stopped: Stopped = "answered" if isinstance(turns[-1].action, Answer) else "no_action"
    return trajectory_of(question, session.prompt_ids, turns, stopped, notation.handles)
