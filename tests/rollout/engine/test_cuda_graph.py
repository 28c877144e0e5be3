"""Replayed decoding steps give what launched kernels give."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from routerr1.policy.load import LoadOptions
from routerr1.rollout.engine.cuda_graph import NotCapturable
from routerr1.rollout.local import LocalGenerator


async def sampled_in_two_turns(generator: LocalGenerator, count: int) -> list[tuple[int, ...]]:
    """Token ids of sessions of several lengths, in two turns of about `count` tokens each."""

    async def one(number: int) -> tuple[int, ...]:
        session = generator.start("<think> b" * (9 + number), seed=number)
        first = await session.generate(max_new_tokens=count + number, temperature=1.5)
        session.insert(" a b c" * number)
        second = await session.generate(max_new_tokens=count, temperature=1.5)
        session.close()
        return first.token_ids + second.token_ids

    return await asyncio.gather(*(one(number) for number in range(11)))


@pytest.mark.slow
async def test_what_is_captured_is_dropped_once_the_cache_lies_elsewhere(
    small_policy: Path,
) -> None:
    captures = 0

    def capture(run: Callable[[], torch.Tensor], _: object) -> Callable[[], torch.Tensor]:
        nonlocal captures
        captures += 1
        bound = [layer.keys for layer in replayed.runner.cache.layers]

        def replay() -> torch.Tensor:
            assert all(
                layer.keys is keys
                for layer, keys in zip(replayed.runner.cache.layers, bound, strict=True)
            )
            return run()

        return replay

    launched = LocalGenerator.load(small_policy)
    replayed = LocalGenerator(launched.model, launched.tokenizer, capture=capture)
    assert await sampled_in_two_turns(replayed, 70) == await sampled_in_two_turns(launched, 70)
    made = captures
    assert made > 2  # for other numbers of rows, and for longer ones
    await sampled_in_two_turns(replayed, 70)
    again = captures
    await sampled_in_two_turns(replayed, 70)
    assert captures == again  # nothing is captured again once it stops growing


@pytest.mark.slow
async def test_a_model_that_cannot_be_captured_decodes_without(
    small_policy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def capture(*_: object) -> Callable[[], torch.Tensor]:
        raise NotCapturable("operation not permitted when stream is capturing")

    launched = LocalGenerator.load(small_policy)
    refused = LocalGenerator(launched.model, launched.tokenizer, capture=capture)
    assert await sampled_in_two_turns(refused, 8) == await sampled_in_two_turns(launched, 8)
    assert caplog.text.count("cannot be captured as a CUDA graph (operation not permitted") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
async def test_a_graph_says_what_launched_kernels_say(small_policy: Path) -> None:
    on_gpu = LoadOptions(device="cuda")
    replayed = LocalGenerator.load(small_policy, on_gpu)
    launched = LocalGenerator(LocalGenerator.load(small_policy, on_gpu).model, replayed.tokenizer)
    assert await sampled_in_two_turns(replayed, 70) == await sampled_in_two_turns(launched, 70)
