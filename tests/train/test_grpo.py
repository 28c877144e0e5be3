"""Training on the real trainer: masks, seeds, resume, and that training follows the rewards."""

import csv
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.jobs.rejected import Rejected
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.reward import CostScale, FrozenCostScale
from routerr1.rollout.local import LocalGenerator
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.train.checkpoint import TrainingState
from routerr1.train.context import TrainingContext
from routerr1.train.grpo import Trained
from routerr1.train.log import train_cost_usd, write_log
from routerr1.train.rollouts import RolloutBatch, RolloutWorker, StepRollouts
from routerr1.train.score import batch_figures, score, zero_variance
from routerr1.types import Answer, Ask, Card, Generation, Ledger, Question, Reply, Trajectory, Turn
from tests.train.contexts import context_of
from tests.train.scorers import by_place, by_validation
from tests.train.scripted import ScriptedPolicy


@pytest.fixture
def context(params: Params, pool: SimulatedPool, rows: list[Question]) -> TrainingContext:
    return context_of(params, pool, rows)


def pool_cards(context: TrainingContext) -> Sequence[Card]:
    return context.tasks[0].pool.cards


def run(
    start: Path, context: TrainingContext, folder: Path, stop_after: int | None = None
) -> Trained:
    class Stop(Exception):
        pass

    def progress(row: dict[str, float]) -> None:
        if row["step"] == stop_after:
            raise Stop

    try:
        return grpo.train(start, context, folder, progress=progress)
    except Stop:
        return Trained(folder, [], [], {}, 0, 0.0, None)  # type: ignore[arg-type]


ASK = "<search>Atlas: x?</search>"
TURN = Turn(
    Generation(f"<think>t</think>{ASK}", (5, 6), (-0.1, -0.2)),
    Ask("Atlas", "x?"),
    Reply("Atlas", "y", 3, 4, 0.0, 0.1),
    "<information> y</information>",
    (7, 8, 9),
)
LAST = Turn(Generation("<think>t</think><answer>y</answer>", (10,), (-0.3,)), Answer("y"))


def trajectory(*turns: Turn, stopped: Any = "answered") -> Trajectory:
    text = "".join(turn.generation.text + turn.inserted for turn in turns)
    return Trajectory(
        Question("q", "d", "x?", ("y",), "train", 1), turns, stopped, "y", text, Ledger(calls=1), (1, 2)
    )  # fmt: skip


def test_ids_are_trained_on_as_sampled_and_replies_are_masked(
    context: TrainingContext, params: Params
) -> None:
    whole, cut = trajectory(TURN, LAST), trajectory(TURN, stopped="length")
    scored = score(whole, pool_cards(context), CostScale().freeze(), params.reward)
    columns = RolloutBatch([], [whole, cut], [scored, scored]).columns(eos=99)
    assert columns["completion_ids"] == [[5, 6, 7, 8, 9, 10, 99], [5, 6, 7, 8, 9]]
    assert columns["env_mask"] == [[1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0]]
    assert columns["logprobs"][0] == [-0.1, -0.2, 0, 0, 0, -0.3, 0]


def test_a_failed_call_is_never_cheap(context: TrainingContext, params: Params) -> None:
    scale = FrozenCostScale(0.0, 10.0)
    good = trajectory(TURN, LAST)
    failed = replace(good, ledger=Ledger(calls=1, failures=1))
    reward = params.reward.model_copy(update={"cost_weight": 0.5})
    assert score(failed, pool_cards(context), scale, reward).cost_score == 0.0
    assert score(good, pool_cards(context), scale, reward).cost_score > 0.0


def test_each_data_set_of_a_batch_has_its_own_figures(
    context: TrainingContext, params: Params
) -> None:
    one = trajectory(TURN, LAST)
    other = replace(one, question=replace(one.question, dataset="e"), answer="z")
    flat = FrozenCostScale(0.0, 0.0)
    scores = [score(each, pool_cards(context), flat, params.reward) for each in (one, other)]
    figures = batch_figures([one, other], scores, ["Atlas"])
    assert (figures["em"], figures["d/em"], figures["e/em"]) == (0.5, 1.0, 0.0)
    assert figures["e/share/Atlas"] == 1.0
    assert "d/em" not in batch_figures([one], scores[:1], ["Atlas"])


def test_entropy_of_calls_is_logged_in_bits_as_evaluation_reports_it(
    context: TrainingContext, params: Params
) -> None:
    assert TURN.reply is not None
    elsewhere = replace(TURN, reply=replace(TURN.reply, model="Penny"))
    both = [trajectory(TURN, LAST), trajectory(elsewhere, LAST)]
    scored = score(both[0], pool_cards(context), FrozenCostScale(0.0, 0.0), params.reward)
    # Half of the calls to each of two models: one bit.
    assert batch_figures(both, [scored, scored], [])["call_entropy"] == 1.0


@pytest.mark.slow
def test_training_stops_once_validation_has_not_improved_for_long_enough(
    small_policy: Path, context: TrainingContext, tmp_path: Path
) -> None:
    # The first is that of the start.
    scorer = by_validation([0.0, 0.1, 0.3, 0.2, 0.25, 0.9], held=len(context.validation))
    train = context.train.model_copy(update={"steps": 6, "validate_every": 1, "patience": 2})
    trained = run(small_policy, replace(context, train=train, scorer=scorer), tmp_path)
    assert (len(trained.rows), trained.best_step) == (4, 2)
    assert trained.best_reward == pytest.approx(0.3)
    assert trained.start["validation/reward"] == 0.0


def test_a_start_that_is_taken_as_it_is_was_validated_and_paid_for_once(
    small_policy: Path, context: TrainingContext, tmp_path: Path
) -> None:
    train = context.train.model_copy(update={"steps": 0})
    trained = run(small_policy, replace(context, train=train), tmp_path)
    assert (trained.folder, trained.best_step, len(trained.rows)) == (small_policy, 0, 1)
    priced = [{**row, "validation/cost_usd": 0.5} for row in trained.by_step.values()]
    assert train_cost_usd(priced, 16, len(context.validation)) == 0.5 * len(context.validation)


@pytest.mark.slow
def test_a_start_that_nothing_surpasses_is_what_is_kept(
    small_policy: Path, context: TrainingContext, tmp_path: Path
) -> None:
    # The first is that of the start.
    scorer = by_validation([0.5, 0.1, 0.4], held=len(context.validation))
    # Every third step is validated, and the last.
    train = context.train.model_copy(update={"steps": 4, "validate_every": 3})
    trained = run(small_policy, replace(context, train=train, scorer=scorer), tmp_path)
    assert [row["step"] for row in trained.rows if "validation/em" in row] == [3, 4]
    assert (trained.best_step, trained.best_reward) == (0, 0.5)
    kept, start = (load_file(each / "model.safetensors") for each in (trained.folder, small_policy))
    assert all(torch.equal(kept[name], start[name]) for name in start)


def test_groups_without_variance_are_counted_for_each_data_set(
    context: TrainingContext, params: Params
) -> None:
    flat = FrozenCostScale(0.0, 0.0)
    right, wrong = (
        score(each, pool_cards(context), flat, params.reward)
        for each in (trajectory(TURN, LAST), replace(trajectory(TURN, LAST), answer="z"))
    )
    groups = [("d", right), ("d", right), ("d", right), ("d", wrong), ("e", wrong), ("e", wrong)]
    found = zero_variance(groups, 2)
    assert found["zero_variance_groups"] == pytest.approx(2 / 3)
    assert (found["d/zero_variance_groups"], found["e/zero_variance_groups"]) == (0.5, 1.0)
    assert zero_variance(groups[:2], 2) == {"zero_variance_groups": 1.0}


@pytest.mark.slow
def test_reply_tokens_get_no_gradient(
    small_policy: Path, context: TrainingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of inserted tokens are changed in the loss alone: loss and gradient stay as they are."""
    from trl import GRPOTrainer

    found: list[tuple[float, dict[str, torch.Tensor]]] = []
    compute = GRPOTrainer._compute_loss

    def compute_twice(trainer: Any, model: Any, inputs: dict[str, Any]) -> Any:
        real = type(trainer)._get_per_token_logps_and_entropies

        def with_other_labels(self: Any, *args: Any, **kwargs: Any) -> Any:
            logps, entropies, extra = real(self, *args, **kwargs)
            inserted = inputs["tool_mask"] == 0
            assert inserted.any()
            return torch.where(inserted, logps * 3.0 - 1.0, logps), entropies, extra

        for patched in (None, with_other_labels):
            with monkeypatch.context() as patch:
                if patched is not None:
                    patch.setattr(type(trainer), "_get_per_token_logps_and_entropies", patched)
                loss = compute(trainer, model, inputs)
            model.zero_grad()
            loss.backward(retain_graph=True)
            grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            found.append((loss.item(), grads))
        model.zero_grad()
        return loss

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", compute_twice)
    scripts = [[f"<think> t</think>{ASK}", "<think> t</think><answer> y</answer>"]]
    policy = ScriptedPolicy(LocalGenerator.load(small_policy), scripts)
    # Rewards differ within a group, or there would be no gradient to compare.
    context = replace(context, scorer=by_place(lambda n: (float(n % 3), 0.0, 0.0)))
    grpo.train(small_policy, context, tmp_path / "run", policy=policy, progress=lambda _: None)
    (loss, grads), (other_loss, other_grads) = found[:2]
    assert other_loss == pytest.approx(loss, abs=1e-6)
    assert any(float(grad.abs().max()) > 0 for grad in grads.values())
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_each_part_of_the_reward_is_normalised_by_itself_where_asked_for(
    small_policy: Path, context: TrainingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    compute, seen = GRPOTrainer._compute_loss, []

    def compute_and_look(trainer: Any, model: Any, inputs: Any) -> Any:
        seen.append(inputs["advantages"])
        return compute(trainer, model, inputs)

    # Cost is a tenth of the answer's size, and counts as much once each is normalised.
    scorer = by_place(lambda n: (0.0, float(n % 2), 0.1 * (n % 4 > 1)))
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", compute_and_look)
    changed = {"steps": 1, "multi_objective_aggregation": "normalize_then_sum"}
    train = context.train.model_copy(update=changed)
    for alpha in (0.5, 0.25):
        reward = context.reward.model_copy(update={"cost_weight": alpha})
        folder = tmp_path / f"run-{alpha}"
        run(small_policy, replace(context, train=train, reward=reward, scorer=scorer), folder)
    even = sorted({round(float(value), 2) for value in seen[0]})
    assert len(even) == 3  # both, one of them, neither: which one makes no difference
    assert even[1] == pytest.approx(0.0, abs=0.01)
    neither, cheap, right, both = sorted({round(float(value), 2) for value in seen[-1]})
    # At a quarter the answer weighs three times as much as the cost.
    assert (right - neither) / (cheap - neither) == pytest.approx(3, abs=0.1)
    assert both - right == pytest.approx(cheap - neither, abs=0.02)


def test_the_parts_of_a_reward_sum_to_it(context: TrainingContext, params: Params) -> None:
    scale = FrozenCostScale(0.0, 10.0)
    reward = params.reward.model_copy(update={"cost_weight": 0.5})
    good = score(trajectory(TURN, LAST), pool_cards(context), scale, reward)
    assert good.parts[0] == 0.0
    assert good.parts[1] == 0.5
    assert good.reward == pytest.approx(0.5 + 0.5 * good.cost_score)
    broken = score(trajectory(TURN, stopped="length"), pool_cards(context), scale, reward)
    assert (broken.reward, broken.parts) == (-1.0, (-1.0, 0.0, 0.0))


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_unbroken_one(
    small_policy: Path, context: TrainingContext, tmp_path: Path
) -> None:
    whole = run(small_policy, context, tmp_path / "whole")
    run(small_policy, context, tmp_path / "broken", stop_after=3)
    assert (tmp_path / "broken/checkpoint-2/router_state.json").is_file()
    resumed = run(small_policy, context, tmp_path / "broken")
    assert resumed.rows == whole.rows
    for name, trained in (("whole.csv", whole), ("resumed.csv", resumed)):
        write_log(tmp_path / name, trained.rows)
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "resumed.csv").read_bytes()
    assert (resumed.best_step, resumed.best_reward) == (whole.best_step, whole.best_reward)
    weights = [path / "model.safetensors" for path in (whole.folder, resumed.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert resumed.cost_scale.state() == whole.cost_scale.state()
    # Killed after its last checkpoint, before anybody took what it had made.
    again = run(small_policy, context, tmp_path / "broken")
    assert again.rows == whole.rows
    assert weights[0].read_bytes() == (again.folder / "model.safetensors").read_bytes()
    assert again.cost_scale.state() == whole.cost_scale.state()


class _Glitch(PoolWrapper):
    """Bills every eighth call with a number that is none."""

    def __init__(self, inner: Pool) -> None:
        super().__init__(inner)
        self._asked = count(1)

    async def ask(self, call: Call) -> Reply:
        reply = await super().ask(call)
        return reply if next(self._asked) % 8 else replace(reply, cost_usd=math.nan)


def test_a_rollout_that_breaks_a_contract_costs_itself_alone(
    small_policy: Path, context: TrainingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = LocalGenerator.load(small_policy, trained=True)
    asks = "<think>t</think><search>Atlas: x?</search>", "<think>u</think><answer>y</answer>"
    worker = RolloutWorker(context, ScriptedPolicy(policy, [asks]))
    tasks = [replace(task, pool=_Glitch(task.pool)) for task in context.tasks[:1]] * 8
    with pytest.raises(DataError, match=r"train: trajectory .*: numbers_finite: "):
        worker.run(tasks, nullcontext(ScriptedPolicy(policy, [asks])), seed=1)
    context = replace(context, rejected=Rejected("train", 0.01, total=100))
    state = TrainingState(CostScale())
    prompt = context.render(tasks[0].question, tasks[0].pool.cards)
    rollouts = StepRollouts(
        context, RolloutWorker(context, ScriptedPolicy(policy, [asks])), {prompt: tasks[0]}, state,
        eos=99, open_generation=lambda _: nullcontext(ScriptedPolicy(policy, [asks])),
        log_rollouts=lambda _step, _played: None,
    )  # fmt: skip
    trainer = SimpleNamespace(
        state=SimpleNamespace(global_step=0), accelerator=SimpleNamespace(process_index=0)
    )
    columns = rollouts([prompt] * 8, trainer)
    (bad,) = [place for place, ids in enumerate(columns["completion_ids"]) if ids == [99]]
    group = context.train.rollouts_per_question
    mates = [i for i in range(8) if i // group == bad // group and i != bad]
    assert columns["env_mask"][bad] == [0]
    assert columns["reward"][bad] == pytest.approx(fmean(columns["reward"][i] for i in mates))
    assert rollouts.report.figures["rejected"] == 1
    assert all(math.isfinite(value) for value in rollouts.report.figures.values())
    assert len(context.rejected.path.read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_checkpoint_without_our_state_is_not_resumed_from(
    small_policy: Path, context: TrainingContext, tmp_path: Path
) -> None:
    whole = run(small_policy, context, tmp_path / "run")
    for state in (tmp_path / "run").glob("checkpoint-*/router_state.json"):
        state.unlink()
    assert run(small_policy, context, tmp_path / "run").rows == whole.rows


def test_the_log_has_a_row_for_every_step(
    small_policy: Path, context: TrainingContext, tmp_path: Path
) -> None:
    trained = run(small_policy, context, tmp_path / "run")
    write_log(tmp_path / "log.csv", trained.rows)
    with (tmp_path / "log.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [int(float(row["step"])) for row in table] == [1, 2, 3, 4]
    names = {card.name for card in pool_cards(context)}
    assert {f"share/{name}" for name in names} <= table[0].keys()
    figures = {"reward", "reward_format", "reward_answer", "reward_cost", "em", "entropy"}
    assert figures | {"grad_norm", "top_model_share", "zero_variance_groups"} <= table[0].keys()
    parts = [float(table[0][f"reward_{part}"]) for part in ("format", "answer", "cost")]
    assert sum(parts) == pytest.approx(float(table[0]["reward"]), abs=1e-4)
    assert table[1]["validation/em"] != ""
    assert table[0]["validation/em"] == ""
