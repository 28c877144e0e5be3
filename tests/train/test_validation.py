"""Validation compares every step on the cost scale of the first one."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from routerr1.config import Params
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.simulation.pool import SimulatedPool
from routerr1.train.context import Task
from routerr1.train.rollouts import RolloutWorker
from routerr1.train.validation import validate
from routerr1.types import Answer, Ask, Generation, Ledger, Question, Reply, Trajectory, Turn
from tests.train.contexts import context_of


class Bills(RolloutWorker):
    """A worker whose n-th run calls Atlas once for each task, with these completion tokens."""

    def __init__(self, *tokens: Sequence[int]) -> None:
        self._tokens = iter(tokens)

    def run(self, tasks: Sequence[Task], *_: Any, **__: Any) -> list[Trajectory]:
        return [
            answered(task.question, tokens)
            for task, tokens in zip(tasks, next(self._tokens), strict=True)
        ]


def answered(question: Question, tokens: int) -> Trajectory:
    """One call with this many tokens, then the right answer."""
    ask = Turn(
        Generation("<think>t</think><search>Atlas: x?</search>", (5,), (-0.1,)),
        Ask("Atlas", "x?"),
        Reply("Atlas", "y", 1, tokens, 0.0, 0.1),
        "<information> y</information>",
        (7,),
    )
    answer = question.golden_answers[0]
    last = Turn(
        Generation(f"<think>t</think><answer>{answer}</answer>", (10,), (-0.3,)), Answer(answer)
    )
    text = "".join(turn.generation.text + turn.inserted for turn in (ask, last))
    return Trajectory(question, (ask, last), "answered", answer, text, Ledger(calls=1), (1, 2))


def test_validation_sees_that_a_policy_became_more_expensive(
    params: Params, pool: SimulatedPool, rows: list[Question]
) -> None:
    """All calls cost twice as much in the third run: on a scale of its own it would look the same."""
    context = context_of(params, pool, rows, held=4)
    context = replace(context, reward=context.reward.model_copy(update={"cost_weight": 0.5}))
    bills = Bills([100, 400, 900, 1600], [50, 200, 450, 800], [200, 800, 1800, 3200])
    generation = nullcontext(ScriptedGenerator([]))
    first, scale = validate(context, bills, generation, None)
    cheaper, same = validate(context, bills, generation, scale)
    costlier, _ = validate(context, bills, generation, scale)
    assert same == scale
    assert cheaper["cost_score"] > first["cost_score"] > costlier["cost_score"]
    assert cheaper["reward"] > first["reward"] > costlier["reward"]
    assert first["em"] == cheaper["em"] == costlier["em"] == 1.0
