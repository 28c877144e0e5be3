"""What a training run is given, and what stays fixed while it learns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from routerr1.config import RewardParams, RolloutParams, TrainParams
from routerr1.jobs.rejected import Rejected
from routerr1.policy.load import CPU_FLOAT32, LoadOptions
from routerr1.pool.base import Pool
from routerr1.pool.grading import Grade, compared
from routerr1.prompt import Renderer
from routerr1.reward import FrozenCostScale
from routerr1.train.rehearsal import Rehearsal
from routerr1.train.score import Score, score
from routerr1.types import Card, Question, Trajectory

Scorer = Callable[[Trajectory, Sequence[Card], FrozenCostScale, RewardParams], Score]


@dataclass(frozen=True, slots=True)
class Task:
    """A question and the pool that its calls go to."""

    question: Question
    pool: Pool


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """What stays fixed over a training run.

    Attributes:
        names: candidates whose share of calls is logged; empty if tasks have different candidates.
        lockstep: see `LocalGenerator`. A recorded run and its replay need it to sample the same tokens.
        load: where and how the policy computes.
        rehearsal: demonstrations that each step imitates beside its rollouts; None for none.
        grade: of answers to questions whose task takes one, before they are scored.
        scorer: what a rollout earns.
        rejected: where rollouts and questions are put that break a contract; by default the first one stops.
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
    load: LoadOptions = CPU_FLOAT32
    rehearsal: Rehearsal | None = None
    grade: Grade = compared
    scorer: Scorer = score
    rejected: Rejected = field(default_factory=partial(Rejected, "train"))
