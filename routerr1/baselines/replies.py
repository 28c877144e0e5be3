"""Routers without a policy: the chosen candidate gets the whole question, and its reply is the answer.

A reply is a sentence, so it is right if it contains a reference answer by the question's rule, as in
profiling. `Row.em` holds that verdict for these routers.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from routerr1.baselines.build import PER_PART, SINGLE
from routerr1.baselines.cascade import Cascade
from routerr1.baselines.learned import Chooser
from routerr1.baselines.prompted import largest
from routerr1.config import BaselineParams
from routerr1.errors import ungrouped
from routerr1.evaluate.controls import RANDOM, Play, Router, fixed
from routerr1.evaluate.routers import RouterId
from routerr1.pool.base import Call, Pool
from routerr1.pool.thoughts import without_thoughts
from routerr1.pool.usage import billed
from routerr1.protocol import escape, information
from routerr1.rollout.lazy import Lazy
from routerr1.rollout.loop import call_scope, trajectory_of
from routerr1.types import Answer, Ask, Generation, Malformed, Question, Reply, Trajectory, Turn

NO_REPLY = "no reply to take as the answer"
NextCall = Callable[[str, Sequence[Reply]], Ask | None]
"""From the question and the replies so far to the next call; None: the last reply is the answer."""


@dataclass(frozen=True, slots=True)
class Always:
    """One candidate for every question."""

    name: str

    def choose(self, query: str) -> str:  # noqa: ARG002 - of the interface
        """See `Chooser.choose`."""
        return self.name


def next_call_of(router: Chooser | Cascade) -> NextCall:
    """How a fitted router asks: a chooser once, a cascade until it believes a reply."""
    if isinstance(router, Cascade):
        return router.next_call
    return partial(_choose_once, router)


def _choose_once(router: Chooser, query: str, replies: Sequence[Reply]) -> Ask | None:
    return None if replies else Ask(router.choose(query), query)


async def answer_with_reply(
    question: Question, next_call: NextCall, pool: Pool, *, seed: int, player: str = ""
) -> Trajectory:
    """Make the calls, and take the last reply as the answer; there is none if that call failed.

    The trajectory reads like a policy's: each choice is a thought and a call.

    Args:
        seed: separates the calls of several evaluations of one question.
        player: see `rollout.loop.call_scope`.
    """
    scope = call_scope(question, seed, player)
    turns: list[Turn] = []
    replies: list[Reply] = []
    while (ask := next_call(question.question, replies)) is not None:
        reply = billed(pool.cards, ask.query, await pool.ask(Call(ask.name, ask.query, scope)))
        replies.append(reply)
        said = f"<think> {ask.name}</think><search> {ask.name}: {ask.query}</search>"
        read = information("" if reply.failure else without_thoughts(reply.text))
        turns.append(Turn(Generation(said), ask, reply, read))
    last = replies[-1]
    if last.failure is not None:
        turns.append(Turn(Generation(""), Malformed(NO_REPLY)))
        return trajectory_of(question, (), turns, "no_action")
    answer = escape(without_thoughts(last.text)).strip()
    said = f"<think> the reply of {last.model}</think><answer> {answer}</answer>"
    turns.append(Turn(Generation(said), Answer(answer)))
    return trajectory_of(question, (), turns, "answered")


async def answer_all(
    questions: Sequence[Question],
    router: Chooser | Cascade,
    pool: Pool,
    *,
    seed: int,
    concurrency: int,
) -> list[Trajectory]:
    """`answer_with_reply` for all questions, side by side; in their order."""
    next_call = next_call_of(router)
    slots = asyncio.Semaphore(concurrency)

    async def one(question: Question) -> Trajectory:
        async with slots:
            return await answer_with_reply(question, next_call, pool, seed=seed)

    with ungrouped():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(question)) for question in questions]
    return [task.result() for task in tasks]


def reply_routers(
    fitted: Mapping[str, Lazy[Any]],
    params: BaselineParams,
    pool: Pool,
    *,
    pool_name: str,
    seed: int,
    call_seed: int,
) -> list[Router]:
    """The routers of `params.include` that need no policy, each candidate for every question, and random.

    Args:
        fitted: learned routers by name; see `build.fitted_models`.
        seed: training seed of the routers.
        call_seed: see `answer_with_reply`.
    """

    def router(name: str, play: Play, needs: tuple[str, Lazy[Any]] | None = None) -> Router:
        return Router(name, seed, pool_name, pool, play, needs, whole_reply=True)

    def asking(chooser: Callable[[], Chooser | Cascade]) -> Play:
        async def play(question: Question, *, player: str) -> Trajectory:
            next_call = next_call_of(chooser())
            return await answer_with_reply(question, next_call, pool, seed=call_seed, player=player)

        return play

    async def play_random(question: Question, *, player: str) -> Trajectory:
        rng = random.Random(f"{call_seed}/{seed}/{question.dataset}/{question.id}")
        chooser = Always(rng.choice([card.name for card in pool.cards]))
        return await answer_with_reply(
            question, next_call_of(chooser), pool, seed=call_seed, player=player
        )

    found = [router(RANDOM, play_random)]
    found += [router(fixed(card.name), asking(partial(Always, card.name))) for card in pool.cards]
    for name in without_policy(params.include):
        if name == "largest":
            found.append(router(_id(name), asking(partial(Always, largest(pool.cards)))))
        else:
            found.append(router(_id(name), asking(fitted[name]), (name, fitted[name])))
    return found


def without_policy(include: Iterable[str]) -> list[str]:
    """The baselines that work without a policy, in their order."""
    return [name for name in include if name in (*SINGLE, *PER_PART)]


def _id(name: str) -> str:
    return str(RouterId("baseline", name))
