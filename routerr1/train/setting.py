"""What a training run is given: questions with their pools, and all that stays fixed while it learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from routerr1.config import RewardParams, RolloutParams, TrainParams
from routerr1.pool.interface import Pool
from routerr1.prompt import Renderer
from routerr1.types import Question

if TYPE_CHECKING:
    from routerr1.policy.load import LoadOptions
    from routerr1.train.rehearsal import Rehearsal


@dataclass(frozen=True, slots=True)
class Task:
    """A question and the candidates it may be put to."""

    question: Question
    pool: Pool


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays fixed over a training run.

    Attributes:
        names: candidates whose share of calls is logged; empty if every task has others.
        lockstep: see `LocalGenerator`. For runs that are recorded or replayed: both then sample the same.
        rehearsal: what is imitated beside; None: nothing.
        how: where and in what the policy computes; None: float32 on the CPU.
    """

    tasks: Sequence[Task]
    validation: Sequence[Task]
    names: Sequence[str]
    render: Renderer
    rollout: RolloutParams
    reward: RewardParams
    train: TrainParams
    seed: int
    lockstep: bool = False
    how: "LoadOptions | None" = None
    rehearsal: "Rehearsal | None" = None

    def reward_at(self, step: int) -> RewardParams:
        """The reward of a step (0 is the first): the weight of cost goes in a line to its final value."""
        first, over = self.train.initial_cost_weight, self.train.cost_weight_steps
        if first is None or step >= over:
            return self.reward
        weight = first + (self.reward.cost_weight - first) * step / over
        return self.reward.replace(cost_weight=weight)
