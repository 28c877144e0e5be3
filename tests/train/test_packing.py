"""What reaches the loss: whole trajectories as played, packed or not."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from routerr1.config import Params
from routerr1.prompt import renderer
from routerr1.rollout.local import LocalGenerator
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool, training_pool
from routerr1.train import grpo
from routerr1.train.context import Task, TrainingContext
from routerr1.train.rollouts import TrainedPolicy
from routerr1.types import Question, Trajectory
from tests.train.scorers import by_place
from tests.train.scripted import RecordedPolicy, ScriptedPolicy

ASK = "<think> t</think><search>Atlas: x?</search>"
ANSWER = "<think> t</think><answer> y</answer>"
SCRIPTS = [
    [ASK, ASK, ANSWER],
    [ASK, "<think> t</think><sear"],  # cut off in its second round
    ["t t"],  # cut off at once
    [ASK] * 9,  # calls on after its last round, and never answers
    [ANSWER],
]


@pytest.fixture
def context(
    params: Params, pool: SimulatedPool, rows: list[Question], world: Any
) -> TrainingContext:
    """Every other question has a pool of its own, so that prompts of a batch begin differently."""
    known = known_facts(world)
    train = [row for row in rows if row.split == "train"]
    return TrainingContext(
        tasks=[
            Task(row, training_pool(known, i) if i % 2 else pool) for i, row in enumerate(train)
        ],
        validation=[Task(row, pool) for row in rows if row.split == "validation"][:4],
        names=[],
        render=renderer("compact", params.rollout.max_rounds),
        rollout=params.rollout,
        reward=params.reward,
        train=params.train.model_copy(
            update={
                "steps": 2,
                "validate_every": 100,
                "learning_rate": 1e-2,
                "warmup_steps": 0,
                "kl_weight": 0.05,
            }
        ),
        seed=1,
    )


class Watched:
    """What every loss was computed from, and what the trainer made of it, with and without packing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from routerr1.train.trl_adapter import PackedTrainer

        self.inputs: list[dict[str, Any]] = []
        self.logps: list[torch.Tensor] = []
        self.losses: list[dict[bool, tuple[torch.Tensor, dict[str, torch.Tensor]]]] = []
        compute = PackedTrainer._compute_loss

        def both(trainer: Any, model: Any, inputs: dict[str, Any]) -> Any:
            self.inputs.append(inputs)
            assert trainer.packing
            found = {}
            for packed in (False, True):
                trainer.packing = packed
                with torch.no_grad():
                    given = dict(inputs)
                    if "ref_per_token_logps" in inputs:
                        given["ref_per_token_logps"] = self._score(
                            trainer, trainer.ref_model, inputs
                        )
                    logps = self._score(trainer, model, inputs)
                model.zero_grad()
                loss = compute(trainer, model, given)
                loss.backward()
                found[packed] = loss.detach(), {n: p.grad for n, p in model.named_parameters()}
                model.zero_grad(set_to_none=True)
            self.losses.append(found)
            self.logps.append(logps)
            return compute(trainer, model, inputs)

        monkeypatch.setattr(PackedTrainer, "_compute_loss", both)

    @staticmethod
    def _score(trainer: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        said = inputs["completion_ids"]
        logps: torch.Tensor = trainer._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], said], 1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            said.shape[1],
        )[0]
        return logps

    def trained_on(self, step: int) -> list[tuple[tuple[int, ...], ...]]:
        """(prompt ids, completion ids, weights) of the rollouts of one step, sorted."""
        given = self.inputs[step]
        found = []
        for i in range(len(given["prompt_ids"])):
            prompt = given["prompt_ids"][i][given["prompt_mask"][i].bool()]
            there = given["completion_mask"][i].bool()
            said, weights = given["completion_ids"][i][there], given["tool_mask"][i][there]
            found.append(tuple(tuple(each.tolist()) for each in (prompt, said, weights)))
        return sorted(found)


def train(
    policy: TrainedPolicy, context: TrainingContext, folder: Path
) -> tuple[list[dict[str, float]], list[Sequence[Trajectory]]]:
    played: list[Sequence[Trajectory]] = []
    trained = grpo.train(
        folder, context, folder, policy=policy, progress=lambda _: None,
        log_rollouts=lambda _step, trajectories: played.append(trajectories),
    )  # fmt: skip
    return trained.rows, played


def as_played(trajectory: Trajectory, eos: int) -> tuple[tuple[int, ...], ...]:
    """What should be trained on, put together from the turns."""
    ids: list[int] = []
    weights: list[int] = []
    for turn in trajectory.turns:
        ids += (*turn.generation.token_ids, *turn.inserted_ids)
        weights += [1] * len(turn.generation.token_ids) + [0] * len(turn.inserted_ids)
    if trajectory.stopped == "answered":
        ids, weights = [*ids, eos], [*weights, 0]
    return trajectory.prompt_ids, tuple(ids), tuple(weights)


@pytest.mark.slow
def test_packing_changes_neither_loss_nor_gradient_and_every_ending_is_trained_on(
    small_policy: Path, context: TrainingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    policy = ScriptedPolicy(LocalGenerator.load(small_policy), SCRIPTS)
    # Rewards differ within a group, or there would be no gradient to compare.
    context = replace(context, scorer=by_place(lambda n: (float(n % 3), 0.0, 0.0)))
    rows, played = train(policy, context, tmp_path)
    assert rows[1]["kl"] > 1e-4  # the policy has left its reference
    assert {each.stopped for each in played[0]} == {"answered", "length", "max_rounds"}
    assert max(len(each.turns) for each in played[0]) == context.rollout.max_rounds + 1
    assert len({each.prompt_ids[:50] for each in played[0]}) > 1
    eos = LocalGenerator.load(small_policy).tokenizer.eos_token_id
    for step, trajectories in enumerate(played):
        assert watched.trained_on(step) == sorted(as_played(each, eos) for each in trajectories)
        (plain, grads), (loss, packed) = (watched.losses[step][on] for on in (False, True))
        torch.testing.assert_close(loss, plain, atol=1e-6, rtol=1e-5)
        assert all(float(grad.abs().max()) > 1e-5 for grad in grads.values())
        for name, grad in grads.items():
            torch.testing.assert_close(packed[name], grad, atol=2e-6, rtol=1e-4)


@pytest.mark.slow
def test_groups_of_equal_rewards_are_not_read_and_change_no_gradient(
    small_policy: Path, context: TrainingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerr1.train.trl_adapter import PackedTrainer, without_equal_rewards

    compute = PackedTrainer.compute_loss
    read: list[int] = []
    gradients: list[list[torch.Tensor]] = []

    def watched(trainer: Any, model: Any, inputs: dict[str, Any], **rest: Any) -> Any:
        read.append(len(without_equal_rewards(trainer, inputs)["advantages"]))
        for given in (inputs, without_equal_rewards(trainer, inputs)):
            model.zero_grad()
            trainer._compute_loss(model, given).backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad(set_to_none=True)
        return compute(trainer, model, inputs, **rest)

    monkeypatch.setattr(PackedTrainer, "compute_loss", watched)
    group = context.train.rollouts_per_question

    def some(place: int) -> tuple[float, float, float]:
        return (float(place % 2) if place // group % 2 else 1.0, 0.0, 0.0)

    without_kl = replace(
        context, train=context.train.model_copy(update={"kl_weight": 0.0}), scorer=by_place(some)
    )
    policy = ScriptedPolicy(LocalGenerator.load(small_policy), SCRIPTS)
    train(policy, without_kl, tmp_path / "some")
    batch = group * context.train.questions_per_step
    assert set(read) == {batch // 2}
    assert any(float(each.abs().max()) > 1e-5 for each in gradients[0])
    for whole, part in zip(gradients[::2], gradients[1::2], strict=True):
        torch.testing.assert_close(part, whole, atol=2e-6, rtol=1e-4)
    read.clear()
    equal = replace(without_kl, scorer=by_place(lambda _: (1.0, 0.0, 0.0)))
    rows, _ = train(policy, equal, tmp_path / "none")
    assert set(read) == {1}
    assert [row["grad_norm"] for row in rows] == [0.0, 0.0]


@pytest.mark.slow
def test_ids_trained_on_are_those_sampled_token_by_token(
    asking_policy: Path, context: TrainingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded as the generator returns them, over the rounds of a byte-level BPE policy."""
    watched = Watched(monkeypatch)
    hot = context.rollout.model_copy(update={"temperature": 1.0})
    policy = RecordedPolicy(LocalGenerator.load(asking_policy))
    _, played = train(policy, replace(context, rollout=hot), tmp_path)
    held = len(context.validation)  # rolled out before the first step
    first = {
        (prompt_ids, tuple(token for each in generations for token in each.token_ids)): [
            logprob for each in generations for logprob in each.logprobs
        ]
        for prompt_ids, generations in policy.sessions[held : held + len(played[0])]
    }
    given = watched.inputs[0]
    weights = (given["completion_mask"] * given["tool_mask"]).bool()
    for i, written in enumerate(weights):
        prompt = given["prompt_ids"][i][given["prompt_mask"][i].bool()]
        tokens = given["completion_ids"][i][written]
        logprobs = first[tuple(prompt.tolist()), tuple(tokens.tolist())]
        # What was sampled and what is trained on stood at the same places, after the same tokens.
        torch.testing.assert_close(
            watched.logps[0][i][written], torch.tensor(logprobs), atol=1e-4, rtol=1e-4
        )
    assert max(len(each.turns) for each in played[0]) > 2
    encode = LocalGenerator.load(asking_policy).encode
    said = [turn.generation for each in played[0] for turn in each.turns]
    # Text made into tokens again gives others: keeping the ids is what the above rests on.
    assert any(tuple(encode(each.text)) != each.token_ids for each in said)


@pytest.mark.slow
def test_an_end_token_that_also_pads_changes_nothing(
    small_policy: Path, context: TrainingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerr1.train.trl_adapter import PackedTrainer

    rows = []
    for packs, name in product((True, False), ("own", "shared")):
        start = tmp_path / f"{name}-{packs}"
        policy = LocalGenerator.load(small_policy)
        if name == "shared":
            policy.tokenizer.pad_token = policy.tokenizer.eos_token
        policy.model.save_pretrained(start)
        policy.tokenizer.save_pretrained(start)
        with monkeypatch.context() as patch:
            if not packs:
                unpacked = property(lambda _: False, lambda _, __: None)
                patch.setattr(PackedTrainer, "packing", unpacked, raising=False)
            scripted = ScriptedPolicy(LocalGenerator.load(start), SCRIPTS)
            scored = replace(context, scorer=by_place(lambda n: (float(n % 3), 0.0, 0.0)))
            rows.append(train(scripted, scored, start / "run")[0])
    assert rows[0] == rows[1]
    assert rows[2] == rows[3]
    assert rows[2][1]["loss"] == pytest.approx(rows[0][1]["loss"], abs=1e-5)
