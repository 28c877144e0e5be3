"""Profiles for real models: what they ask of TRL, adapters, and passes smaller than a step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from routerr1.baselines.tuned import fine_tune
from routerr1.config import LoraParams, Params, VllmParams, load_params
from routerr1.errors import CheckpointError, ConfigError
from routerr1.policy.load import LoadOptions, load_options
from routerr1.prompt import renderer
from routerr1.rollout.local import LocalGenerator
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.types import Question
from tests.train.contexts import context_of

ROOT = Path(__file__).parents[2]


def load_preset(name: str, folder: Path) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump({**values, "preset": name}))
    (folder / "presets").symlink_to(ROOT / "presets")
    return load_params(folder / "params.yaml")


@pytest.mark.parametrize("name", ["paper-qwen", "paper-llama"])
def test_the_papers_setting_reaches_trl(
    name: str, tmp_path: Path, pool: SimulatedPool, rows: list[Question]
) -> None:
    params = load_preset(name, tmp_path)
    context = context_of(params, pool, rows, held=4, load=load_options(params))
    config = grpo.grpo_config(context, tmp_path)
    assert (config.max_steps, config.learning_rate, config.beta) == (225, 1e-6, 0.001)
    assert config.generation_batch_size == 64 * 4
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 64 * 4
    assert (config.use_vllm, config.vllm_mode, config.vllm_max_model_length) == (
        True, "colocate", 4096
    )  # fmt: skip
    assert (config.activation_checkpointing, config.temperature) == (True, 1.0)
    assert (params.rollout.max_rounds, params.pool.max_reply_tokens) == (4, 600)
    assert (params.prompt.template, params.prompt.chat) == ("full", True)
    server = VllmParams(mode="server", url="http://10.0.0.7:8001", group_port=5555)
    train = params.train.model_copy(update={"vllm": server})
    config = grpo.grpo_config(replace(context, train=train), tmp_path)
    assert (config.vllm_mode, config.vllm_server_base_url, config.vllm_group_port) == (
        "server", "http://10.0.0.7:8001", 5555
    )  # fmt: skip


def test_auto_is_float32_on_a_cpu_and_a_gpu_that_is_not_there_is_refused(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    auto = params.model.model_copy(update={"device": "auto", "dtype": "auto"})
    assert load_options(params.model_copy(update={"model": auto})) == LoadOptions("cpu", "float32")
    cuda = params.model.model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"model\.device: cuda: no GPU"):
        load_options(params.model_copy(update={"model": cuda}))


def test_a_step_that_does_not_part_evenly_is_refused(
    params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path
) -> None:
    train = params.train.model_copy(update={"rollouts_per_pass": 5})
    context = context_of(params, pool, rows, held=4, load=load_options(params), train=train)
    with pytest.raises(ConfigError, match="passes of 5"):
        grpo.grpo_config(context, tmp_path)


@pytest.mark.slow
def test_adapters_train_in_small_passes_and_are_merged_into_what_is_saved(
    asking_policy: Path, params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path
) -> None:
    train = params.train.model_copy(
        update={
            "steps": 2, "validate_every": 2, "learning_rate": 1e-2, "rollouts_per_pass": 8,
            "gradient_checkpointing": True, "lora": LoraParams(rank=4, alpha=8),
        }
    )  # fmt: skip
    context = context_of(params, pool, rows, held=4, load=load_options(params), train=train)
    trained = grpo.train(asking_policy, context, tmp_path / "run", progress=lambda _: None)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (asking_policy, trained.folder)
    )
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("q_proj" in key for key in changed)
    assert not any("embed" in key or "norm" in key for key in changed)
    assert trained.rows[0]["grad_norm"] > 0
    LocalGenerator.load(trained.folder)
    # The first step's rollouts precede any update, so full fine-tuning in one pass plays the same.
    whole = train.model_copy(
        update={
            "steps": 1,
            "lora": None,
            "rollouts_per_pass": None,
            "gradient_checkpointing": False,
        }
    )
    one = grpo.train(
        asking_policy, replace(context, train=whole), tmp_path / "whole", progress=lambda _: None
    )
    for key in ("reward", "em", "calls", "policy_tokens"):
        assert one.rows[0][key] == pytest.approx(trained.rows[0][key]), key


@pytest.mark.slow
async def test_bfloat16_plays_from_float32_weights(
    small_policy: Path, params: Params, pool: SimulatedPool, rows: list[Question]
) -> None:
    from routerr1.rollout.loop import play

    policy = LocalGenerator.load(small_policy, LoadOptions(dtype="bfloat16"), trained=True)
    assert policy.model.dtype == torch.float32
    found = await play(
        rows[:4], policy, pool, render=renderer("compact", 4), params=params.rollout, seed=1
    )
    plain = LocalGenerator.load(small_policy)
    for trajectory in found:
        said = trajectory.turns[0].generation
        ids = torch.tensor([[*trajectory.prompt_ids, *said.token_ids]])
        with torch.no_grad():
            logits = plain.model(ids).logits[0, len(trajectory.prompt_ids) - 1 : -1]
        scored = torch.log_softmax(logits / params.rollout.temperature, -1)
        expected = scored.gather(1, torch.tensor(said.token_ids)[:, None])[:, 0]
        assert said.logprobs == pytest.approx(expected.tolist(), abs=0.3)
        assert said.logprobs != pytest.approx(
            expected.tolist(), abs=1e-6
        )  # it did compute in bfloat16


def test_a_prompt_without_a_chat_template_is_not_made_up(small_policy: Path) -> None:
    policy = LocalGenerator.load(small_policy, LoadOptions(chat=True))
    with pytest.raises(CheckpointError, match=r"no chat template; set prompt\.chat to false"):
        policy.start("Who?", seed=0)


@pytest.mark.slow
async def test_a_base_in_bfloat16_is_tuned_in_float32(small_policy: Path) -> None:
    """Steps so small that bfloat16, with its eight bits, would keep nearly none of them."""
    base = LocalGenerator.load(small_policy, LoadOptions(dtype="bfloat16"))
    before = {name: value.clone() for name, value in base.model.named_parameters()}
    asked = [
        Question(name, "embedded", f"What is the capital of {name}?", (capital,), "train")
        for name, capital in (("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"))
    ]
    tuned = fine_tune(base, asked, steps=3, batch_size=4, learning_rate=1e-6, seed=1)

    assert tuned.model.dtype == torch.float32
    assert all(torch.equal(value, before[name]) for name, value in base.model.named_parameters())
    matrices = {name: value for name, value in tuned.model.named_parameters() if value.ndim == 2}
    moved = [(value != before[name]).float().mean() for name, value in matrices.items()]
    assert sum(moved) / len(moved) > 0.5

    session = tuned.start("Question: who?", seed=1)  # it computes in bfloat16 all the same
    said = await session.generate(max_new_tokens=4, temperature=0)
    assert said.token_ids
    assert tuned.runner.cache.layers[0].keys.dtype == torch.bfloat16
