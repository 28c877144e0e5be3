"""Imitating beside reinforcement learning: of what, and that nothing a reward should decide is imitated."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.prompt import renderer
from routerr1.rollout.local import LocalGenerator
from routerr1.simulation.demonstrations import ScriptedDemonstrations
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.train.packing import Example
from routerr1.train.rehearsal import Rehearsal, rehearsal
from routerr1.train.warmstart import packed_loss
from routerr1.types import Question
from tests.train.contexts import context_of


@pytest.fixture
def rehearsed(params: Params, world: World, rows: list[Question]) -> Rehearsal:
    source = ScriptedDemonstrations(
        rows, world, known_facts(world), renderer("compact", params.rollout.max_rounds),
        params.rollout, params.warmstart.stop_probability,
    )  # fmt: skip
    return rehearsal(source, 1, params.train.rehearsal_batch, chat=params.prompt.chat)


def runs(example: Example, tokenizer: Any, weight: int) -> list[str]:
    """Stretches of the text with this mask."""
    found: list[list[int]] = [[]]
    for token, own in zip(example.ids, example.mask, strict=True):
        if own == weight:
            found[-1].append(token)
        elif found[-1]:
            found.append([])
    return [tokenizer.decode(ids) for ids in found if ids]


def test_what_to_do_next_and_whom_to_call_are_left_to_the_rewards(
    rehearsed: Rehearsal, small_policy: Path, params: Params
) -> None:
    tokenizer = LocalGenerator.load(small_policy).tokenizer
    examples = [example for step in range(4) for example in rehearsed(step, tokenizer)]
    assert len(examples) == 4 * params.train.rehearsal_batch
    for example in examples:
        text = tokenizer.decode(example.ids)
        asked = text.count("</search>")
        left = runs(example, tokenizer, 0)
        inserted = [each for each in left if each.startswith("<information>")]
        assert len(inserted) == asked
        # Figures, that it is done, and the topic of a look-up after the first one of it; nothing else is left out.
        topics = [turn.partition("</search>")[0] for turn in text.lower().split("cards:")[1:]]
        again = len(topics) - len({*topics})
        assert len(left) == len(inserted) + asked // 2 + 1 + again
        assert sum(each.strip().endswith("%") for each in left) == asked // 2
        imitated = "".join(runs(example, tokenizer, 1))
        assert imitated.endswith("</answer>")
        assert imitated.count("<search>") == asked


def test_a_step_rehearses_the_same_every_time_and_another_step_other_examples(
    rehearsed: Rehearsal, small_policy: Path
) -> None:
    tokenizer = LocalGenerator.load(small_policy).tokenizer
    assert rehearsed(3, tokenizer) == rehearsed(3, tokenizer)
    assert rehearsed(3, tokenizer) != rehearsed(4, tokenizer)


@pytest.mark.slow
def test_a_step_of_several_passes_rehearses_once(
    rehearsed: Rehearsal, small_policy: Path, params: Params, pool: SimulatedPool,
    rows: list[Question], tmp_path: Path,
) -> None:  # fmt: skip
    asked: list[int] = []

    def noted(step: int, tokenizer: Any) -> Any:
        asked.append(step)
        return rehearsed(step, tokenizer)

    changed = {"steps": 2, "rollouts_per_pass": 4, "validate_every": 2, "rehearsal_weight": 0.5}
    train = params.train.model_copy(update=changed)
    context = context_of(params, pool, rows, held=2, train=train, rehearsal=noted)
    trained = grpo.train(small_policy, context, tmp_path, progress=lambda _: None)
    assert asked == [0, 1]
    assert all(row["rehearsal_loss"] > 0 for row in trained.rows)


@pytest.mark.slow
def test_rehearsing_keeps_what_the_warm_start_taught(
    rehearsed: Rehearsal, asking_policy: Path, params: Params, pool: SimulatedPool,
    rows: list[Question], tmp_path: Path,
) -> None:  # fmt: skip
    """A rate at which a policy forgets: with rehearsal it imitates unseen examples better than without."""
    changed = {"steps": 8, "learning_rate": 1e-2, "kl_weight": 0.0, "validate_every": 8}
    found = []
    for weight in (0.0, 1.0):
        train = params.train.model_copy(update={**changed, "rehearsal_weight": weight})
        context = context_of(params, pool, rows, train=train)
        context = replace(context, rehearsal=rehearsed if weight else None)
        folder = tmp_path / str(weight)
        grpo.train(asking_policy, context, folder, progress=lambda _: None)
        last = LocalGenerator.load(folder / "checkpoint-8")
        with torch.no_grad():
            found.append(packed_loss(last.model, rehearsed(99, last.tokenizer)).item())
    without, rehearsing = found
    assert rehearsing < 0.7 * without
