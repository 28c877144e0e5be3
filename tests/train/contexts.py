"""The context of a short training run on the embedded questions."""

from collections.abc import Sequence
from typing import Any

from routerr1.config import Params
from routerr1.pool.base import Pool
from routerr1.prompt import renderer
from routerr1.train.context import Task, TrainingContext
from routerr1.types import Question


def context_of(
    params: Params, pool: Pool, rows: Sequence[Question], *, held: int = 8, **changes: Any
) -> TrainingContext:
    """All training questions and `held` of validation on one pool, seed 1, short turns; `changes` to `TrainingContext`."""
    given: dict[str, Any] = {
        "tasks": [Task(row, pool) for row in rows if row.split == "train"],
        "validation": [Task(row, pool) for row in rows if row.split == "validation"][:held],
        "names": [card.name for card in pool.cards],
        "render": renderer("compact", params.rollout.max_rounds),
        "rollout": params.rollout.model_copy(update={"max_new_tokens": 24}),
        "reward": params.reward,
        "train": params.train,
        "seed": 1,
    }
    return TrainingContext(**given | changes)
