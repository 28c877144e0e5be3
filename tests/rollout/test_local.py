"""The batched generator gives the model's tokens, whatever else is in the batch."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from routerr1.config import Params
from routerr1.errors import CheckpointError
from routerr1.pool.base import Call, Pool
from routerr1.prompt import renderer
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.loop import play
from routerr1.simulation.pool import SimulatedPool
from routerr1.train.checkpoint import read_manifest, save_policy
from routerr1.types import Generation, Question, Reply


@pytest.fixture(params=["launched", "replayed"])
def generator(small_policy: Path, request: pytest.FixtureRequest) -> LocalGenerator:
    """Without graphs, and with the captured function run again on the tensors of its capture."""
    loaded = LocalGenerator.load(small_policy)
    if request.param == "launched":
        return loaded
    return LocalGenerator(loaded.model, loaded.tokenizer, capture=lambda run, _: run)


def likeliest(generator: LocalGenerator, ids: list[int], count: int) -> list[int]:
    """Greedy continuation by whole forward passes, with no cache at all."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            logits = generator.model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
    return ids[-count:]


async def test_sessions_of_any_length_decode_as_if_alone(generator: LocalGenerator) -> None:
    prompts = ["a", "Question: What is the capital of France?\n", "<think> b" * 9, "a"]
    sessions = [generator.start(prompt, seed=1) for prompt in prompts]
    said = await asyncio.gather(
        *(session.generate(max_new_tokens=6, temperature=0) for session in sessions)
    )
    for session, generation in zip(sessions, said, strict=True):
        count = len(generation.token_ids)
        assert count
        assert list(generation.token_ids) == likeliest(generator, list(session.prompt_ids), count)


async def test_a_cancelled_generation_leaves_the_others_alone(generator: LocalGenerator) -> None:
    sessions = [generator.start(prompt, seed=1) for prompt in ("a", "b c", "d")]
    tasks = [
        asyncio.create_task(session.generate(max_new_tokens=6, temperature=0))
        for session in sessions
    ]
    await asyncio.sleep(0)
    tasks[0].cancel()
    gone, *said = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(gone, asyncio.CancelledError)
    for session, generation in zip(sessions[1:], said, strict=True):
        assert isinstance(generation, Generation)
        count = len(generation.token_ids)
        assert list(generation.token_ids) == likeliest(generator, list(session.prompt_ids), count)


async def test_sessions_of_a_model_that_failed_before_it_read_anything_close(
    generator: LocalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("out of memory")

    sessions = [generator.start(prompt, seed=1) for prompt in ("a", "b c")]
    with monkeypatch.context() as patch:
        patch.setattr(generator.model.get_decoder(), "forward", fail)
        failed = await asyncio.gather(
            *(session.generate(max_new_tokens=6, temperature=0) for session in sessions),
            return_exceptions=True,
        )
    assert [str(error) for error in failed] == ["out of memory"] * 2
    for session in sessions:
        session.close()
    again = generator.start("a", seed=1)
    said = await again.generate(max_new_tokens=2, temperature=0)
    assert list(said.token_ids) == likeliest(generator, list(again.prompt_ids), len(said.token_ids))


async def test_an_inserted_reply_is_read_and_the_cache_carries_over(
    generator: LocalGenerator,
) -> None:
    session, other = generator.start("Question: x\n", seed=1), generator.start("y", seed=2)
    first, _ = await asyncio.gather(
        session.generate(max_new_tokens=5, temperature=0),
        other.generate(max_new_tokens=3, temperature=0),
    )
    other.close()
    inserted = session.insert("<information> It is Paris.</information>")
    second = await session.generate(max_new_tokens=5, temperature=0)
    read = [*session.prompt_ids, *first.token_ids, *inserted]
    assert list(second.token_ids) == likeliest(generator, read, len(second.token_ids))


async def test_logprobs_are_those_of_the_tokens_sampled(generator: LocalGenerator) -> None:
    session = generator.start("Question: x\n", seed=3)
    said = await session.generate(max_new_tokens=8, temperature=0.7)
    ids = [*session.prompt_ids, *said.token_ids]
    with torch.no_grad():
        logits = generator.model(input_ids=torch.tensor([ids])).logits[0]
    places = range(len(session.prompt_ids) - 1, len(ids) - 1)
    wanted = [float(torch.log_softmax(logits[p] / 0.7, -1)[ids[p + 1]]) for p in places]
    assert said.logprobs == pytest.approx(wanted, abs=1e-4)


async def test_samples_follow_the_distribution(generator: LocalGenerator) -> None:
    sessions = [generator.start("Question: x\n", seed=seed) for seed in range(2000)]
    said = await asyncio.gather(*(s.generate(max_new_tokens=1, temperature=1) for s in sessions))
    with torch.no_grad():
        logits = generator.model(input_ids=torch.tensor([list(sessions[0].prompt_ids)])).logits
    probability, token = torch.softmax(logits[0, -1], -1).max(-1)
    share = sum(s.token_ids[0] == int(token) for s in said) / len(said)
    p = float(probability)
    assert abs(share - p) < 4 * (p * (1 - p) / 2000) ** 0.5  # four standard errors


class Tardy(Pool):
    """The simulated pool, with replies that come after pauses of their own."""

    def __init__(self, pool: SimulatedPool, seed: int) -> None:
        self.pool, self.cards, self.random = pool, pool.cards, Random(seed)

    async def ask(self, call: Call) -> Reply:
        await asyncio.sleep(self.random.random() * 0.05)
        return await self.pool.ask(call)


@pytest.mark.slow
async def test_in_lockstep_reply_times_do_not_matter(
    asking_policy: Path, pool: SimulatedPool, rows: list[Question], params: Params
) -> None:
    """Equal to the last bit of every logprob; without lockstep, other neighbours in the batch change those."""
    found = []
    for seed in (1, 2):
        played = await play(
            rows[:20], LocalGenerator.load(asking_policy, lockstep=True), Tardy(pool, seed),
            render=renderer("compact", 4), params=params.rollout, seed=3,
        )  # fmt: skip
        found.append([[turn.generation for turn in each.turns] for each in played])
    assert found[0] == found[1]
    assert sum(len(turns) > 1 for turns in found[0]) > 8


async def test_a_full_context_ends_the_generation(small_policy: Path) -> None:
    found = LocalGenerator.load(small_policy)
    found.scheduler.max_length = 12
    session = found.start("a" * 5, seed=1)
    said = await session.generate(max_new_tokens=50, temperature=0)
    assert len(session.prompt_ids) + len(said.token_ids) <= 12
    session.insert("more text than there is room for, and then some")
    assert (await session.generate(max_new_tokens=5, temperature=0)).finish == "length"


def played(
    generator: LocalGenerator, pool: SimulatedPool, rows: list[Question], params: Params
) -> Any:
    found = asyncio.run(
        play(
            rows[:20], generator, pool, render=renderer("compact", 4), params=params.rollout, seed=5
        )
    )
    return [(t.text, t.turns[-1].generation.token_ids) for t in found]


def test_the_same_seed_plays_the_same_and_another_does_not(
    generator: LocalGenerator, pool: SimulatedPool, rows: list[Question], params: Params
) -> None:
    first = played(generator, pool, rows, params)
    assert played(generator, pool, rows, params) == first
    assert len({text for text, _ in first}) > 10
    assert not generator.scheduler.rows


def test_a_corrupt_checkpoint_is_named(small_policy: Path, tmp_path: Path) -> None:
    saved = tmp_path / "policy"
    save_policy(small_policy, saved, {"seed": 1})
    assert read_manifest(saved)["seed"] == 1
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"model.safetensors: is corrupt"):
        read_manifest(saved)
    with pytest.raises(CheckpointError, match=r"policy: is not a loadable checkpoint"):
        LocalGenerator.load(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors: is missing"):
        read_manifest(saved)
