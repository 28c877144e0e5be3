"""Scorers that make rewards of a test's own out of rollouts of any kind."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from random import Random

from routerr1.config import RewardParams
from routerr1.reward import FrozenCostScale
from routerr1.train.context import Scorer
from routerr1.train.score import Score, score
from routerr1.types import Card, Split, Trajectory

Parts = tuple[float, float, float]


def _scorer(split: Split, parts: Callable[[Score], Parts]) -> Scorer:
    """Rollouts of `split` have the rewards that `parts` makes of their scores; others keep theirs."""

    def scorer(
        trajectory: Trajectory, cards: Sequence[Card], scale: FrozenCostScale, params: RewardParams
    ) -> Score:
        found = score(trajectory, cards, scale, params)
        ours = trajectory.question.split == split
        return replace(found, parts=parts(found)) if ours else found

    return scorer


def by_place(parts: Callable[[int], Parts]) -> Scorer:
    """The n-th training rollout has the reward `parts(n)`."""
    places = count()
    return _scorer("train", lambda _: parts(next(places)))


def by_validation(rewards: Sequence[float], held: int) -> Scorer:
    """Every rollout of the n-th validation, of `held` questions, has the reward `rewards[n]`."""
    places = count()
    return _scorer("validation", lambda _: (0.0, rewards[next(places) // held], 0.0))


def shuffled(seed: int) -> Scorer:
    """Training rollouts get the reward of a random earlier one: rewards without information."""
    rng = Random(seed)
    earlier: list[Parts] = []

    def dealt(found: Score) -> Parts:
        given = rng.choice(earlier) if earlier else found.parts
        earlier.append(found.parts)  # only now: a rollout must not get its own reward
        return given

    return _scorer("train", dealt)
