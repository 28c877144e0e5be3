"""Scorers that make rewards of a test's own out of rollouts of any kind."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from random import Random

from routerr1.config import RewardParams
from routerr1.reward import FrozenCostScale
from routerr1.train.context import Scorer
from routerr1.train.score import Score, score
from routerr1.types import Card, Trajectory


def by_place(parts: Callable[[int], tuple[float, float, float]]) -> Scorer:
    """The n-th training rollout has the reward `parts(n)`; validation is scored as ever."""
    places = count()

    def scorer(
        trajectory: Trajectory, cards: Sequence[Card], scale: FrozenCostScale, params: RewardParams
    ) -> Score:
        found = score(trajectory, cards, scale, params)
        if trajectory.question.split != "train":
            return found
        return replace(found, parts=parts(next(places)))

    return scorer


def by_validation(rewards: Sequence[float], held: int) -> Scorer:
    """Every rollout of the n-th validation, of `held` questions, has the reward `rewards[n]`."""
    places = count()

    def scorer(
        trajectory: Trajectory, cards: Sequence[Card], scale: FrozenCostScale, params: RewardParams
    ) -> Score:
        found = score(trajectory, cards, scale, params)
        if trajectory.question.split != "validation":
            return found
        return replace(found, parts=(0.0, rewards[next(places) // held], 0.0))

    return scorer


def shuffled(seed: int) -> Scorer:
    """Training rollouts get the reward of a random earlier one: rewards without information."""
    rng = Random(seed)
    earlier: list[tuple[float, float, float]] = []

    def scorer(
        trajectory: Trajectory, cards: Sequence[Card], scale: FrozenCostScale, params: RewardParams
    ) -> Score:
        found = score(trajectory, cards, scale, params)
        if trajectory.question.split != "train":
            return found
        dealt = replace(found, parts=rng.choice(earlier)) if earlier else found
        earlier.append(found.parts)  # only now: a rollout must not get its own reward
        return dealt

    return scorer
