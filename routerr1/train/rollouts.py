"""From prompts to scored rollouts, as TRL takes them.

The rollouts of a group are identified by position, never by text. The cost scale is frozen while a
step is scored, and extended after it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Protocol

from routerr1.data.contracts import token_breaches, trajectory_breaches
from routerr1.errors import BudgetExceeded
from routerr1.jobs.rejected import Fault
from routerr1.pool.grading import graded_all
from routerr1.reward import FrozenCostScale
from routerr1.rollout.generate import Generator, Session
from routerr1.rollout.loop import play, stream_seed
from routerr1.rollout.loop import rejected as placeholder
from routerr1.rollout.record import to_row, without_tokens
from routerr1.train.checkpoint import TrainingState
from routerr1.train.context import Task, TrainingContext
from routerr1.train.processes import gathered
from routerr1.train.score import Score, batch_figures, best_model_share, zero_variance
from routerr1.types import Trajectory

Generation = AbstractAsyncContextManager[Generator]
"""What generates during some rollouts: the trained weights, or vLLM's copy of them."""


class TrainedPolicy(Protocol):
    """The policy under training; `LocalGenerator` in a real run."""

    model: Any
    tokenizer: Any
    max_length: int
    chat: bool

    def start(self, prompt: str, *, seed: int) -> Session:
        """See `Generator.start`."""
        ...


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """Rollouts and their scores, task by task."""

    tasks: Sequence[Task]
    trajectories: Sequence[Trajectory]
    scores: Sequence[Score]

    def figures(self, names: Sequence[str]) -> dict[str, float]:
        """Figures of the batch, by their names in log.csv; what was put aside is only counted.

        Args:
            names: candidates whose share of calls is listed.
        """
        every = list(zip(self.tasks, self.trajectories, self.scores, strict=True))
        kept = [entry for entry in every if entry[1].stopped != "rejected"] or every
        found = batch_figures([played for _, played, _ in kept], [each for *_, each in kept], names)
        if len(kept) < len(every):
            found["rejected"] = len(every) - len(kept)
        best = best_model_share([(played, task.pool) for task, played, _ in kept])
        return found if best is None else {**found, "best_model_share": best}

    def columns(self, eos: int) -> dict[str, list[Any]]:
        """The columns that TRL reads; `env_mask` is 1 where the policy wrote the token.

        An answered trajectory is closed with the end token, mask 0: TRL counts one without it as cut
        off. One that was put aside becomes the end token alone.

        Args:
            eos: id of the end token.
        """
        columns: dict[str, list[Any]] = {
            key: []
            for key in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "reward", "parts")
        }
        for trajectory, scored in zip(self.trajectories, self.scores, strict=True):
            ids, mask, logprobs = _tokens(trajectory)
            if trajectory.stopped in ("answered", "rejected"):
                ids, logprobs, mask = [*ids, eos], [*logprobs, 0.0], [*mask, 0]
            columns["prompt_ids"].append(list(trajectory.prompt_ids))
            columns["completion_ids"].append(ids)
            columns["logprobs"].append(logprobs)
            columns["env_mask"].append(mask)
            columns["reward"].append(scored.reward)
            columns["parts"].append(scored.parts)
        return columns


def _tokens(trajectory: Trajectory) -> tuple[list[int], list[int], list[float]]:
    """Ids, mask and log-probabilities, turn after turn."""
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for turn in trajectory.turns:
        written = turn.generation
        ids += (*written.token_ids, *turn.inserted_ids)
        mask += [1] * len(written.token_ids) + [0] * len(turn.inserted_ids)
        logprobs += (*written.logprobs, *(0.0 for _ in turn.inserted_ids))
    return ids, mask, logprobs


class RolloutWorker:
    """Rolls out tasks on their pools with the policy's present weights."""

    def __init__(self, context: TrainingContext, policy: TrainedPolicy) -> None:
        self._context = context
        self._policy = policy

    def run(
        self,
        tasks: Sequence[Task],
        generation: Generation,
        *,
        seed: int,
        temperature: float | None = None,
        first: int = 0,
    ) -> list[Trajectory]:
        """One trajectory for each task, in order; a placeholder for one that breaks a contract.

        Args:
            temperature: instead of that of the context; 0 is greedy.
            first: place of the first task among those of all processes.

        Raises: BudgetExceeded in every process if the pool of one refuses a call; DataError if too many
            trajectories break a contract.
        """
        context, model = self._context, self._policy.model

        async def rolling() -> list[Trajectory]:
            async with generation as generator:
                played = await play(
                    [task.question for task in tasks],
                    generator,
                    [task.pool for task in tasks],
                    render=context.render,
                    params=context.rollout,
                    seed=seed,
                    temperature=temperature,
                    concurrency=max(1, len(tasks)),
                    first=first,
                )
            return await graded_all(played, context.grade)

        trajectories: list[Trajectory] = []
        spent: list[str] = []
        training = model.training
        model.eval()
        try:
            trajectories = asyncio.run(rolling())
        except BudgetExceeded as error:
            spent = [str(error)]
        finally:
            model.train(training)
        # A process that stops alone would leave the others waiting, so all of them stop.
        for why in gathered(spent):
            raise BudgetExceeded(why)
        return [
            self._checked(task, played, whole=not place)
            for place, (task, played) in enumerate(zip(tasks, trajectories, strict=True))
        ]

    def _checked(self, task: Task, played: Trajectory, *, whole: bool) -> Trajectory:
        # With tokens a row takes 2 ms; one a step is enough to stop a loop that loses some.
        row = to_row(played if whole else without_tokens(played))
        breaches = [*trajectory_breaches(row, task.pool.cards), *token_breaches(*_tokens(played))]
        if not breaches:
            return played
        where = f"train: trajectory {task.question.id}"
        self._context.rejected.add(Fault(where, str(breaches[0]), row))
        return placeholder(played)


def score_batch(
    context: TrainingContext,
    tasks: Sequence[Task],
    trajectories: Sequence[Trajectory],
    scale: FrozenCostScale,
) -> RolloutBatch:
    """The trajectories with what each earns on `scale`."""
    scores = [
        context.scorer(trajectory, task.pool.cards, scale, context.reward)
        for task, trajectory in zip(tasks, trajectories, strict=True)
    ]
    return RolloutBatch(tasks, trajectories, scores)


def _without_advantage(batch: RolloutBatch, group_size: int) -> RolloutBatch:
    """The batch, in which what was put aside earns the mean of the rest of its group."""
    scores = list(batch.scores)
    for place, trajectory in enumerate(batch.trajectories):
        if trajectory.stopped == "rejected":
            first = place - place % group_size
            group = range(first, first + group_size)
            rest = [
                batch.scores[i].parts for i in group if batch.trajectories[i].stopped != "rejected"
            ]
            mean = [fmean(part) for part in zip(*rest, strict=True)] or [0.0, 0.0, 0.0]
            scores[place] = replace(scores[place], parts=(mean[0], mean[1], mean[2]))
    return replace(batch, scores=scores)


@dataclass(slots=True)
class StepReport:
    """What the rollouts of the last step came to."""

    figures: dict[str, float] = field(default_factory=dict)
    generation_s: float = 0.0


class StepRollouts:
    """TRL's `rollout_func`: one row for each prompt of a step, in order.

    Args:
        by_prompt: task by what TRL holds as its prompt.
        state: its cost scale scores each step and grows by it.
        open_generation: what generates, given TRL's trainer.
        log_rollouts: called with the step and this process's trajectories.
    """

    def __init__(
        self,
        context: TrainingContext,
        worker: RolloutWorker,
        by_prompt: Mapping[str, Task],
        state: TrainingState,
        *,
        eos: int,
        open_generation: Callable[[Any], Generation],
        log_rollouts: Callable[[int, Sequence[Trajectory]], None],
    ) -> None:
        self.report = StepReport()
        self._context = context
        self._worker = worker
        self._by_prompt = by_prompt
        self._state = state
        self._eos = eos
        self._open_generation = open_generation
        self._log_rollouts = log_rollouts

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Roll out, score, report."""
        began = time.perf_counter()
        context, step = self._context, int(trainer.state.global_step)
        tasks = [self._by_prompt[prompt] for prompt in prompts]
        trajectories = self._worker.run(
            tasks,
            self._open_generation(trainer),
            seed=stream_seed(context.seed, step),
            first=trainer.accelerator.process_index * len(tasks),
        )
        scale = self._state.cost_scale.freeze()
        group_size = context.train.rollouts_per_question
        batch = _without_advantage(score_batch(context, tasks, trajectories, scale), group_size)
        # Prompts travel between processes; the tasks behind them hold pools, which cannot.
        rows = gathered(list(zip(prompts, trajectories, batch.scores, strict=True)))
        self._state.cost_scale.extend(
            scored.cost for _, played, scored in rows if played.stopped != "rejected"
        )
        every = RolloutBatch(
            [self._by_prompt[prompt] for prompt, _, _ in rows],
            [trajectory for _, trajectory, _ in rows],
            [scored for _, _, scored in rows],
        )
        datasets = [trajectory.question.dataset for trajectory in every.trajectories]
        figures = every.figures(context.names) | zero_variance(
            list(zip(datasets, every.scores, strict=True)), group_size
        )
        self.report = StepReport(figures, time.perf_counter() - began)
        self._log_rollouts(step + 1, trajectories)
        return batch.columns(self._eos)
