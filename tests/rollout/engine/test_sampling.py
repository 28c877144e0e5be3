"""Sampling inverts the cumulative distribution, and stop rules end a generation."""

import math

import pytest
import torch

from routerr1.policy.scratch import EOS, train_tokenizer
from routerr1.rollout.engine.sampling import sample
from routerr1.rollout.engine.stops import StopRules

LOGITS = torch.tensor([math.log(0.2), math.log(0.5), math.log(0.3)])


@pytest.mark.parametrize(
    ("temperature", "draw", "token", "probability"),
    [
        (1.0, 0.0, 0, 0.2),
        (1.0, 0.19, 0, 0.2),
        (1.0, 0.21, 1, 0.5),  # cumulative: 0.2, 0.7, 1.0
        (1.0, 0.69, 1, 0.5),
        (1.0, 0.71, 2, 0.3),
        (1.0, 1.0, 2, 0.3),  # past the end: the last token
        (
            0.0,
            0.99,
            1,
            0.5,
        ),  # greedy ignores the draw; the log-probability is that at temperature 1
        (0.5, 0.12, 1, 25 / 38),  # squares over their sum: 4/38, 25/38, 9/38
    ],
)
def test_a_draw_selects_the_token_at_its_place_in_the_distribution(
    temperature: float, draw: float, token: int, probability: float
) -> None:
    ids, logprobs = sample(LOGITS[None], torch.tensor([temperature]), torch.tensor([draw]))
    assert ids.tolist() == [token]
    assert logprobs.exp().tolist() == pytest.approx([probability], abs=1e-6)


def test_each_session_has_its_own_temperature_and_draw() -> None:
    ids, _ = sample(
        LOGITS.repeat(3, 1), torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.9])
    )
    assert ids.tolist() == [1, 0, 2]


TOKENIZER = train_tokenizer(["<think> so </think> a > b, x </ search >"], 300)


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("<think> so", None),
        ("<search> a: b</search>", "stop"),  # a token of its own
        ("x</answer>", "stop"),
        ("a >", None),
        (EOS, "eos"),
    ],
)
def test_a_generation_ends_at_its_stop(text: str, finish: str | None) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    rules = StopRules(TOKENIZER, frozenset({TOKENIZER.eos_token_id}))
    assert rules.finish(ids, len(ids) + 1) == finish
    assert rules.finish(ids, len(ids)) == (finish or "length")


def test_a_stop_string_of_several_tokens_is_found() -> None:
    ids = [i for part in ("</", "search", ">") for i in TOKENIZER(part)["input_ids"]]
    assert TOKENIZER.convert_tokens_to_ids("</search>") not in ids
    rules = StopRules(TOKENIZER, frozenset({TOKENIZER.eos_token_id}))
    assert [rules.finish(ids[:n], 99) for n in range(1, len(ids) + 1)] == [
        *[None] * (len(ids) - 1), "stop",
    ]  # fmt: skip
