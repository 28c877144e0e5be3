"""Another drawn pool for every question: does a policy read its cards, or know one pool by heart?

The pools are simulated, or drawn from recorded candidates. Names, strengths and prices are drawn for each
question, the names from those that no training uses, so nothing is known of a candidate but its card.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random

from routerr1.evaluate import controls
from routerr1.evaluate.controls import Policy, Router
from routerr1.evaluate.perturbations import Perturbation, Perturbations
from routerr1.matching import normalise
from routerr1.pool.base import Pool
from routerr1.simulation.facts import Fact
from routerr1.simulation.pool import SimulatedPool, drawn_pool
from routerr1.types import Ask, Question, Trajectory

REDRAWN, BEFORE, CARDS = "redrawn", "policy_before_rl", "best_on_cards"


def redrawn(
    pool: Pool,
    known: Mapping[str, Fact],
    before: Mapping[int, Policy],
    seed: int,
    draw: Callable[[int], Pool] | None = None,
) -> Perturbations:
    """The variant, with the policy before reinforcement learning among its controls.

    Args:
        pool: the training pool, which no question is put to.
        before: training seed -> what its policy was before.
        seed: draws the pools; a question gets the same one whatever others are asked.
        draw: makes the pool of a seed; simulated pools if None. Other pools have no oracle.
    """
    make: Callable[[int], Pool] = draw or partial(drawn_pool, known)

    def pool_of(question: Question) -> Pool:
        own = Random(f"redrawn/{seed}/{question.dataset}/{question.id}")
        return make(own.getrandbits(32))

    def fact_of(query: str) -> Fact | None:
        return known.get(normalise(query))

    def routers(policy: Policy, drawn: Pool, name: str, seed: int) -> list[Router]:
        own = controls.policy_router(before[policy.seed], drawn, name, seed)
        if isinstance(drawn, SimulatedPool):
            return [replace(own, name=BEFORE), *rerouted(policy, drawn, name, seed)]
        return [
            replace(own, name=BEFORE),
            controls.random_router(policy, drawn, name, seed),
            _by_the_cards(policy, drawn, fact_of, name, seed),
        ]

    return Perturbations((Perturbation(REDRAWN, pool, (), controls=routers, redraw=pool_of),), {})


def not_redrawn(why: str) -> Perturbations:
    """What is left of `redrawn` where pools cannot be drawn."""
    return Perturbations((), {REDRAWN: why})


def rerouted(policy: Policy, pool: Pool, pool_name: str, seed: int) -> list[Router]:
    """The policy's text with every call sent at random, by the cards, or to the cheapest that knows."""
    assert isinstance(pool, SimulatedPool)
    return [
        controls.random_router(policy, pool, pool_name, seed),
        _by_the_cards(policy, pool, pool.fact, pool_name, seed),
        controls.oracle_router(policy, pool, pool.ground_truth, pool_name, seed),
    ]


def _by_the_cards(
    policy: Policy,
    pool: Pool,
    fact_of: Callable[[str], Fact | None],
    pool_name: str,
    seed: int,
) -> Router:
    """Every call goes to whoever the cards call best on its topic, figures rounded as the prompt shows them."""

    async def play(question: Question, *, player: str) -> Trajectory:
        def choose(ask: Ask) -> str:
            fact = fact_of(ask.query)
            topic = fact.topic if fact else ""
            rng = Random(
                f"{question.id}/{ask.query}"
            )  # among equals, and where nothing known is asked
            return max(
                pool.cards,
                key=lambda card: (round(card.performance.get(topic, 0) * 20), rng.random()),
            ).name

        return await policy.play(question, pool, seed=seed, player=player, reroute=choose)

    return Router(CARDS, policy.seed, pool_name, pool, play)
