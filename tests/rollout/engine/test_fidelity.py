"""A model from elsewhere plays as its authors made it, or is refused in one line when it is loaded."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from routerr1.errors import CheckpointError
from routerr1.policy.load import LoadOptions
from routerr1.rollout.local import LocalGenerator
from routerr1.types import Generation
from tests.published import make_tokenizer

_COMMON: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 8}
PLAYED: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": _HEADS,
    "mistral": {**_GROUPED, "sliding_window": None},
    "gemma": _HEADS,
    "olmo2": _GROUPED,
    "smollm3": _GROUPED,
    "phi": _COMMON,
    "phi3": _GROUPED,
    "gpt_neox": _COMMON,
    "stablelm": _GROUPED,
    "starcoder2": _GROUPED,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "opt": {**_COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
    "falcon": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "alibi": False,
    },
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "mistral": ({**_GROUPED, "sliding_window": 8}, "attends to the last 8 tokens"),
    "phi3": ({**_GROUPED, "sliding_window": 8}, "attends to the last 8 tokens"),
    "gemma2": (
        {**_HEADS, "sliding_window": 512, "final_logit_softcapping": 5.0},
        "log-probabilities that differ",
    ),
    "gemma3_text": ({**_HEADS, "sliding_window": 8}, "attends to the last 8 tokens"),
    "cohere": ({**_GROUPED, "logit_scale": 0.0625}, "log-probabilities that differ"),
    "granite": ({**_GROUPED, "logits_scaling": 8.0}, "log-probabilities that differ"),
    "gpt_oss": (
        {**_HEADS, "sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
        "attends to the last 8 tokens",
    ),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "cannot play bloom"),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, "cannot play mamba"),
}


def make(kind: str, settings: dict[str, Any], folder: Path) -> Path:
    """A tiny random model of `kind` with large weights, so that a wrong score shows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), bos_token_id=tokenizer.eos_token_id, **ends, **settings
    )
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(6)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def two_rounds(generator: LocalGenerator) -> list[tuple[list[int], Generation]]:
    session = generator.start("Question: Where was Gallium discovered?\n", seed=1)
    first = await session.generate(max_new_tokens=16, temperature=0)
    before = [*session.prompt_ids]
    inserted = session.insert("<information> In France. </information>")
    second = await session.generate(max_new_tokens=12, temperature=0)
    session.close()
    return [(before, first), ([*before, *first.token_ids, *inserted], second)]


@pytest.mark.parametrize("kind", PLAYED)
def test_a_model_plays_as_its_own_forward_pass_says(kind: str, tmp_path: Path) -> None:
    generator = LocalGenerator.load(make(kind, PLAYED[kind], tmp_path))
    for before, said in asyncio.run(two_rounds(generator)):
        ids = torch.tensor([[*before, *said.token_ids]])
        with torch.no_grad():
            own = torch.log_softmax(generator.model(input_ids=ids).logits[0].float(), -1)
        rows = own[len(before) - 1 : -1]
        assert rows.argmax(-1).tolist() == list(said.token_ids)
        assert rows.max(-1).values.tolist() == pytest.approx(list(said.logprobs), abs=1e-3)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_would_be_played_otherwise_is_refused(kind: str, tmp_path: Path) -> None:
    settings, reason = REFUSED[kind]
    folder = make(kind, settings, tmp_path)
    with pytest.raises(CheckpointError, match=reason) as refused:
        LocalGenerator.load(folder)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_window_that_no_session_outgrows_is_no_hindrance(tmp_path: Path) -> None:
    folder = make("mistral", {**_GROUPED, "sliding_window": 64}, tmp_path)
    assert LocalGenerator.load(folder, LoadOptions(max_length=64)).max_length == 64


async def test_every_end_token_of_the_generation_config_ends_a_turn(tmp_path: Path) -> None:
    generator = LocalGenerator.load(make("llama", _GROUPED, tmp_path))
    said = await generator.start("Where?", seed=1).generate(max_new_tokens=8, temperature=0)
    assert len(said.token_ids) > 1
    third = said.token_ids[2]
    from transformers import GenerationConfig

    GenerationConfig(eos_token_id=[generator.tokenizer.eos_token_id, third]).save_pretrained(
        tmp_path
    )
    again = LocalGenerator.load(tmp_path)
    ended = await again.start("Where?", seed=1).generate(max_new_tokens=8, temperature=0)
    first = said.token_ids.index(third)
    assert (ended.token_ids, ended.finish) == (said.token_ids[: first + 1], "eos")
    assert ended.text == again.tokenizer.decode(said.token_ids[:first])
