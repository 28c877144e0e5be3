"""Another pool for every question: a policy that reads its cards does well, one that knows a pool does not.

Names, strengths and prices are drawn for each question. No training shows the names, so a card is all
that is known of a candidate.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from routerr1.evaluate import controls
from routerr1.evaluate.controls import Policy, Router
from routerr1.evaluate.perturbations import Perturbation, Perturbations
from routerr1.notation import SPEND_LEVELS, percent, price_at, usual_usd
from routerr1.pool.base import Pool
from routerr1.pool.perturbed import PerturbedPool
from routerr1.types import Ask, Card, Question, Trajectory

REDRAWN, BEFORE, CARDS = "redrawn", "policy_before_rl", "best_on_cards"

TopicOf = Callable[[str], str | None]
"""The topic of a query; None if it is unknown."""


def redrawn(
    pool: Pool,
    draw: Callable[[int], Pool],
    topic_of: TopicOf,
    before: Mapping[int, Policy],
    seed: int,
) -> Perturbations:
    """The variant, with the policy before reinforcement learning among its controls.

    Args:
        pool: the training pool, which answers no question here.
        draw: makes the pool of a seed. Pools without ground truth have no oracle.
        before: training seed -> its policy before reinforcement learning.
        seed: draws the pools; the pool of a question does not depend on other questions.
    """

    def pool_of(question: Question) -> Pool:
        own = Random(f"redrawn/{seed}/{question.dataset}/{question.id}")
        return draw(own.getrandbits(32))

    def routers(policy: Policy, drawn: Pool, name: str, seed: int) -> list[Router]:
        own = controls.policy_router(before[policy.seed], drawn, name, seed)
        return [replace(own, name=BEFORE), *rerouted(policy, drawn, topic_of, name, seed)]

    return Perturbations((Perturbation(REDRAWN, pool, (), controls=routers, redraw=pool_of),), {})


def not_redrawn(why: str) -> Perturbations:
    """The result of `redrawn` if pools cannot be drawn."""
    return Perturbations((), {REDRAWN: why})


def rerouted(
    policy: Policy, pool: Pool, topic_of: TopicOf, pool_name: str, seed: int
) -> list[Router]:
    """The policy's text with calls sent at random, by the cards, or to the cheapest that knows.

    The last needs ground truth.
    """
    found = [
        controls.random_router(policy, pool, pool_name, seed),
        by_the_cards(policy, pool, topic_of, pool_name, seed),
    ]
    truth = pool.ground_truth
    if truth is not None:
        found.append(controls.oracle_router(policy, pool, truth, pool_name, seed))
    return found


def by_the_cards(
    policy: Policy,
    pool: Pool,
    topic_of: TopicOf,
    pool_name: str,
    seed: int,
    *,
    level: int = SPEND_LEVELS,
) -> Router:
    """Every call goes to the candidate that is best by card on its topic, among those that answer.

    Args:
        level: of spend; below 10 the usual cost of a call counts too, at `price_at(level)`.
    """
    down = pool.down if isinstance(pool, PerturbedPool) else frozenset()
    up = [card for card in pool.cards if card.name not in down]
    dearest = max(map(usual_usd, up), default=0.0) or 1.0

    def value(card: Card, topic: str) -> float:
        points = percent(card.performance.get(topic, 0.0))
        return points - 100 * price_at(level) * usual_usd(card) / dearest

    async def play(question: Question, *, player: str) -> Trajectory:
        def choose(ask: Ask) -> str:
            topic = topic_of(ask.query) or ""
            rng = Random(f"{question.id}/{ask.query}")  # among equals, and without a topic
            return max(up, key=lambda card: (value(card, topic), rng.random())).name

        return await policy.play(question, pool, seed=seed, player=player, reroute=choose)

    return Router(CARDS, policy.seed, pool_name, pool, play)
