"""Controls: the trained policy's own text with another choice of the called candidate.

In each the policy writes the sub-questions and the answer, and only the called candidate is replaced.
So a gain over the controls is a gain by routing, and not by extracting answers.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from routerr1.config import RolloutParams
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.rows import JudgeCall
from routerr1.pool.base import Call, GroundTruth, Pool, PoolWrapper, is_best
from routerr1.prompt import Renderer
from routerr1.rollout.generate import Generator, Session
from routerr1.rollout.lazy import Lazy
from routerr1.rollout.loop import insert_reply, kept_of, rollout
from routerr1.types import Ask, Card, Question, Reply, Trajectory

POLICY, RANDOM, ORACLE, CLOSED_BOOK, BEST_SINGLE, BEST_OF_SINGLES = (
    "policy", "random", "oracle", "closed_book", "best_single", "best_of_singles",
)  # fmt: skip
BOUNDS = (ORACLE, BEST_OF_SINGLES)  # they know the answers, so they bound what a router can reach


def fixed(candidate: str) -> str:
    """The name of the router that sends every call to one candidate."""
    return str(RouterId("fixed", candidate))


class Play(Protocol):
    """Turns a question into a trajectory."""

    def __call__(self, question: Question, *, player: str) -> Awaitable[Trajectory]:
        """Play `question`; the calls belong to `rollout.loop.call_scope` of `player`."""
        ...


@dataclass(frozen=True, slots=True)
class Router:
    """Anything that turns a question into a trajectory, on one pool.

    Attributes:
        name: `str` of a `RouterId`; the column `router` of the rows.
        seed: training seed of the policy behind it.
        pool_name: the column `pool` of the rows.
        pool: gives the names for the format check; a router need not call it.
        needs: name and value of the model that is fitted before the router runs; None without one.
        whole_reply: a candidate's whole reply is the answer; it is right if it contains a reference answer.
    """

    name: str
    seed: int
    pool_name: str
    pool: Pool
    play: Play
    needs: tuple[str, Lazy[Any]] | None = None
    whole_reply: bool = False


Job = tuple[Router, Question]


@dataclass(frozen=True, slots=True)
class Policy:
    """A trained policy with its settings for rollouts."""

    seed: int
    generator: Generator
    render: Renderer
    rollout: RolloutParams
    temperature: float

    async def play(
        self,
        question: Question,
        pool: Pool,
        *,
        seed: int,
        player: str,
        reroute: Callable[[Ask], str] | None = None,
    ) -> Trajectory:
        """Roll out one question; `seed` is the seed of sampling, not of training."""
        return await rollout(
            question,
            self.generator,
            pool,
            render=self.render,
            params=self.rollout,
            seed=seed,
            temperature=self.temperature,
            reroute=reroute,
            player=player,
        )

    def showing(self, cards: Sequence[Card]) -> "Policy":
        """The same policy with `cards` in its prompt, on any pool."""
        shown = replace(
            self.render, prompt=lambda question, _: self.render(question, cards), shown=cards
        )
        return replace(self, render=shown)

    def insert(
        self, session: Session, reply: Reply, pool: Pool, label: str
    ) -> tuple[str, tuple[int, ...]]:
        """Put a reply into the policy's context, as `rollout` does; `label` is that of `Notation.heard`."""
        kept, limit = kept_of(pool.cards, reply), self.rollout.max_reply_tokens
        return insert_reply(session, reply, self.render.reply, limit, kept, label)


def policy_router(policy: Policy, pool: Pool, pool_name: str, seed: int) -> Router:
    """The trained policy as it is."""

    async def play(question: Question, *, player: str) -> Trajectory:
        return await policy.play(question, pool, seed=seed, player=player)

    return Router(POLICY, policy.seed, pool_name, pool, play)


def control_routers(policy: Policy, pool: Pool, pool_name: str, seed: int) -> list[Router]:
    """Closed book, random, oracle (on a pool with ground truth), and each candidate for every call."""
    built = [
        closed_book_router(policy, pool, pool_name, seed),
        random_router(policy, pool, pool_name, seed),
    ]
    truth = pool.ground_truth
    if truth is not None:
        built.append(oracle_router(policy, pool, truth, pool_name, seed))
    built += [fixed_router(policy, pool, card.name, pool_name, seed) for card in pool.cards]
    return built


def fixed_router(policy: Policy, pool: Pool, name: str, pool_name: str, seed: int) -> Router:
    """Every call goes to `name`."""

    async def play(question: Question, *, player: str) -> Trajectory:
        return await policy.play(question, pool, seed=seed, player=player, reroute=lambda _: name)

    return Router(fixed(name), policy.seed, pool_name, pool, play)


def random_router(policy: Policy, pool: Pool, pool_name: str, seed: int) -> Router:
    """Every call goes to a candidate drawn uniformly, by seed and question."""
    names = [card.name for card in pool.cards]

    async def play(question: Question, *, player: str) -> Trajectory:
        rng = random.Random(f"{seed}/{policy.seed}/{question.dataset}/{question.id}")
        return await policy.play(
            question, pool, seed=seed, player=player, reroute=lambda _: rng.choice(names)
        )

    return Router(RANDOM, policy.seed, pool_name, pool, play)


def oracle_router(
    policy: Policy, pool: Pool, truth: GroundTruth, pool_name: str, seed: int
) -> Router:
    """Every call goes to the cheapest candidate that knows the answer; the cheapest if none does."""
    cheapest_first = sorted(pool.cards, key=_price)

    def choose(ask: Ask) -> str:
        knowing = (card.name for card in cheapest_first if truth.knows(card.name, ask.query))
        return next(knowing, cheapest_first[0].name)

    async def play(question: Question, *, player: str) -> Trajectory:
        return await policy.play(question, pool, seed=seed, player=player, reroute=choose)

    return Router(ORACLE, policy.seed, pool_name, pool, play)


def closed_book_router(policy: Policy, pool: Pool, pool_name: str, seed: int) -> Router:
    """The policy without the pool: every call is refused and costs nothing."""
    closed = _ClosedPool(pool)

    async def play(question: Question, *, player: str) -> Trajectory:
        return await policy.play(question, closed, seed=seed, player=player)

    return Router(CLOSED_BOOK, policy.seed, pool_name, pool, play)


def judge_of(pool: Pool) -> JudgeCall | None:
    """Whether a call goes to the most accurate candidate on its topic; None for a pool without ground truth."""
    return partial(is_best, pool) if pool.ground_truth is not None else None


def _price(card: Card) -> tuple[float, float, str]:
    return (card.completion_usd_per_mtok, card.prompt_usd_per_mtok, card.name)


class _ClosedPool(PoolWrapper):
    """A pool that refuses every call."""

    async def ask(self, call: Call) -> Reply:
        note = f"no call is allowed here: {call.query}"
        return Reply(call.candidate, "", failure="budget", note=note)

    async def aclose(self) -> None:
        """Do nothing: the inner pool belongs to its opener."""
