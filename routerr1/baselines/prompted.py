"""Baselines without training: direct, chain of thought, a prompted choice, and the largest model."""

from collections.abc import Sequence
from dataclasses import replace

from routerr1 import protocol
from routerr1.baselines.script import final_answer, finished, opened_answer
from routerr1.evaluate.controls import Policy
from routerr1.notation import Notation
from routerr1.pool.base import Call, Pool
from routerr1.pool.usage import billed
from routerr1.rollout.generate import Session
from routerr1.rollout.loop import call_scope
from routerr1.types import Ask, Card, LookUp, Question, Trajectory, Turn

DIRECT = "Answer the question in as few words as possible, between <answer> and </answer>.\nQuestion: {}\n"
COT = (
    "Think step by step between <think> and </think>, then answer the question in as few words as "
    "possible, between <answer> and </answer>.\nQuestion: {}\n"
)


async def direct(
    question: Question,
    base: Policy,
    pool: Pool,
    *,
    seed: int,
    player: str,  # noqa: ARG001 - as its siblings
) -> Trajectory:
    """The base policy answers at once, without a call."""
    notation = base.render.notation(question, pool.cards, seed)
    session = base.generator.start(DIRECT.format(question.question), seed=seed)
    try:
        turns = [await opened_answer(session, base, notation)]
        return finished(question, session, turns, notation)
    finally:
        session.close()


async def chain_of_thought(
    question: Question,
    base: Policy,
    pool: Pool,
    *,
    seed: int,
    player: str,  # noqa: ARG001 - as its siblings
) -> Trajectory:
    """The base policy thinks, then answers, without a call (two stages, as in arXiv 2205.11916)."""
    notation = base.render.notation(question, pool.cards, seed)
    session = base.generator.start(COT.format(question.question), seed=seed)
    try:
        turns = await final_answer(session, base, notation, opening="<think>")
        return finished(question, session, turns, notation)
    finally:
        session.close()


async def prompted_choice(
    question: Question, base: Policy, pool: Pool, *, seed: int, player: str
) -> Trajectory:
    """The base policy reads the cards and names a candidate; that one gets the whole question.

    Without a name that is on a card there is no call.
    """
    notation = base.render.notation(question, pool.cards, seed)
    session = base.generator.start(base.render(question, pool.cards), seed=seed)
    try:
        turns = [await _generated(session, base, notation)]
        if isinstance(turns[0].action, LookUp):
            shown = protocol.information(
                notation.cards_on(turns[0].action.topic), base.render.reply
            )
            turns[0] = replace(turns[0], inserted=shown, inserted_ids=session.insert(shown))
            turns.append(await _generated(session, base, notation))
        if isinstance(turns[-1].action, Ask):
            asked = Ask(turns[-1].action.name, question.question)
            scope = call_scope(question, seed, player)
            reply = await pool.ask(Call(asked.name, asked.query, scope))
            reply = billed(pool.cards, asked.query, reply)
            inserted = base.insert(session, reply, pool, notation.heard(asked, reply))
            turns[-1] = Turn(turns[-1].generation, asked, reply, *inserted)
            turns += await final_answer(session, base, notation)
        return finished(question, session, turns, notation)
    finally:
        session.close()


async def _generated(session: Session, base: Policy, notation: Notation) -> Turn:
    said = await session.generate(
        max_new_tokens=base.rollout.max_new_tokens, temperature=base.temperature
    )
    return Turn(said, notation.parse(said.text))


def largest(cards: Sequence[Card]) -> str:
    """The candidate with the most parameters; the most expensive, if some card does not tell its size."""
    if all(card.size_b is not None for card in cards):
        return max(cards, key=lambda card: (card.size_b, card.name)).name
    return max(cards, key=lambda card: (card.completion_usd_per_mtok, card.name)).name
