"""What happens between a prompt and a reward: a step's rollouts, their scores, and what TRL is handed.

A group's rollouts are told apart by position, never by text. The cost scale is frozen while a step is
scored and extended after it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from routerr1.config import RewardParams
from routerr1.data.contracts import require_tokens, require_trajectories
from routerr1.errors import BudgetExceeded
from routerr1.pool.budget import exhausted
from routerr1.reward import CostScale, FrozenCostScale
from routerr1.rollout.loop import play, stream_seed
from routerr1.rollout.record import to_row
from routerr1.train.score import (
    Score,
    batch_figures,
    best_model_share,
    micro_usd,
    score,
    zero_variance,
)
from routerr1.train.setting import Setting, Task
from routerr1.types import Trajectory


class Player:
    """Plays a step's prompts, scores them, and remembers the costs."""

    def __init__(
        self,
        setting: Setting,
        generator: Any,
        by_prompt: Mapping[str, Task],
        log_played: Callable[[int, Sequence[Trajectory]], None],
    ) -> None:
        self.setting = setting
        self.generator = generator
        self.by_prompt = by_prompt
        self.log_played = log_played
        self.scale = CostScale(setting.reward.cost_window)
        self.validation_scale: FrozenCostScale | None = None  # from the first validation on
        self.figures: dict[str, float] = {}
        self.generation_s = 0.0
        self.trainer: Any = None  # once there is one

    def rollouts(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """TRL's `rollout_func`: one row per prompt received, in order."""
        began = time.perf_counter()
        tasks = [self.by_prompt[prompt] for prompt in prompts]
        seed = stream_seed(self.setting.seed, trainer.state.global_step)
        first = trainer.accelerator.process_index * len(tasks)
        played = self.play(tasks, seed, temperature=None, first=first)
        reward = self.setting.reward_at(trainer.state.global_step)
        scores = _scored(tasks, played, self.scale.freeze(), reward)
        everyone = gathered(list(zip(prompts, played, scores, strict=True)))
        self.scale.extend(s.cost for _, _, s in everyone)
        self.figures = self.summarise(
            [self.by_prompt[prompt] for prompt, _, _ in everyone],
            [trajectory for _, trajectory, _ in everyone],
            [s for _, _, s in everyone],
        )
        group_size = self.setting.train.rollouts_per_question
        self.figures |= zero_variance([(t.question.dataset, s) for _, t, s in everyone], group_size)
        self.generation_s = time.perf_counter() - began
        columns = as_columns(played, scores, self.generator.tokenizer.eos_token_id)
        where = f"train, step {trainer.state.global_step}"
        # One group a step: enough to stop on a broken loop, too little to slow training down.
        group = played[: self.setting.train.rollouts_per_question]
        require_trajectories(map(to_row, group), tasks[0].pool.cards, where)
        require_tokens(columns["completion_ids"], columns["env_mask"], columns["logprobs"], where)
        self.log_played(trainer.state.global_step + 1, played)
        return columns

    def play(
        self, tasks: Sequence[Task], seed: int, temperature: float | None, first: int = 0
    ) -> list[Trajectory]:
        """Play with the weights as they are; `first` is the place of the first task among all processes'."""
        model, training = self.generator.model, self.generator.model.training

        async def playing() -> list[Trajectory]:
            async with self._generation() as generator:
                return await play(
                    [task.question for task in tasks],
                    generator,
                    [task.pool for task in tasks],
                    render=self.setting.render,
                    params=self.setting.rollout,
                    seed=seed,
                    temperature=temperature,
                    concurrency=max(1, len(tasks)),
                    first=first,
                )

        model.eval()
        try:
            played = asyncio.run(playing())
        finally:
            model.train(training)
        pools = {id(task.pool): task.pool for task in tasks}.values()
        # Whoever finds the money spent stops all processes: one alone would leave the others waiting.
        refused = [why for pool in pools if (why := exhausted(pool)) is not None]
        for why in gathered(refused):
            raise BudgetExceeded(why)
        return played

    def _generation(self) -> AbstractAsyncContextManager[Any]:
        """What plays: this process's own weights, or vLLM's copy of them."""
        vllm = self.setting.train.vllm
        if vllm is None or self.trainer is None:
            return nullcontext(self.generator)
        from routerr1.rollout.vllm import ColocatedGenerator, ServerGenerator

        ours = self.generator
        if vllm.mode == "server":
            return ServerGenerator(
                vllm.url, ours.tokenizer, max_length=ours.max_length, chat=ours.chat
            )
        from vllm import SamplingParams

        engine = self.trainer.vllm_generation.llm
        return nullcontext(
            ColocatedGenerator(
                engine, SamplingParams, ours.tokenizer, max_length=ours.max_length, chat=ours.chat
            )
        )

    def summarise(
        self, tasks: Sequence[Task], played: Sequence[Trajectory], scores: Sequence[Score]
    ) -> dict[str, float]:
        """The figures of a batch, by their names in log.csv."""
        figures = batch_figures(played, scores, self.setting.names)
        pools = [task.pool for task in tasks]
        best = best_model_share(list(zip(played, pools, strict=True)))
        return figures if best is None else {**figures, "best_model_share": best}

    def validate(self) -> dict[str, float]:
        """Greedy figures on the validation tasks, whose cost scale is that of the first validation.

        Training's own is neither read nor changed: it moves with the policy, and by a scale that moves along
        a cheaper policy would look like a dearer one.
        """
        everyone = self.setting.validation
        first, end = _share(len(everyone))
        if self.trainer is not None and self.trainer.use_vllm:
            # TRL brings vLLM the new weights when a step begins; validation comes at its end.
            self.trainer.vllm_generation.sync_weights()
            self.trainer._last_loaded_step = self.trainer.state.global_step
        own = self.play(everyone[first:end], self.setting.seed, temperature=0.0, first=first)
        tasks, played = everyone, gathered(own)
        reward = self.setting.reward
        if self.validation_scale is None:
            costs = [
                micro_usd(trajectory, task.pool.cards, reward.cost_basis)
                for task, trajectory in zip(tasks, played, strict=True)
            ]
            self.validation_scale = CostScale(max(1, len(costs)), costs).freeze()
        return self.summarise(tasks, played, _scored(tasks, played, self.validation_scale, reward))


def _scored(
    tasks: Sequence[Task],
    played: Sequence[Trajectory],
    scale: FrozenCostScale,
    reward: RewardParams,
) -> list[Score]:
    return [
        score(trajectory, task.pool.cards, scale, reward)
        for task, trajectory in zip(tasks, played, strict=True)
    ]


def gathered(values: list[Any]) -> list[Any]:
    """The values of all processes, in the processes' order."""
    from accelerate.utils import gather_object

    found: list[Any] = gather_object(values)
    return found


def _share(count: int) -> tuple[int, int]:
    """This process's part of so many things: first and end."""
    from accelerate import PartialState

    state = PartialState()
    mine, processes = state.process_index, state.num_processes
    return count * mine // processes, count * (mine + 1) // processes


def as_columns(
    played: Sequence[Trajectory], scores: Sequence[Score], eos: int
) -> dict[str, list[Any]]:
    """Token columns for TRL. `env_mask` is 1 where the policy wrote the token.

    An answered trajectory is closed with the end token, mask 0: TRL counts one without it as cut off.
    """
    columns: dict[str, list[Any]] = {
        key: []
        for key in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "reward", "parts")
    }
    for trajectory, scored in zip(played, scores, strict=True):
        ids: list[int] = []
        logprobs: list[float] = []
        mask: list[int] = []
        for turn in trajectory.turns:
            said = turn.generation
            ids += (*said.token_ids, *turn.inserted_ids)
            logprobs += (*said.logprobs, *(0.0 for _ in turn.inserted_ids))
            mask += [1] * len(said.token_ids) + [0] * len(turn.inserted_ids)
        if trajectory.stopped == "answered":
            ids, logprobs, mask = [*ids, eos], [*logprobs, 0.0], [*mask, 0]
        columns["prompt_ids"].append(list(trajectory.prompt_ids))
        columns["completion_ids"].append(ids)
        columns["logprobs"].append(logprobs)
        columns["env_mask"].append(mask)
        columns["reward"].append(scored.reward)
        columns["parts"].append(scored.parts)
    return columns
