"""Rollouts over vLLM's completions API, and over its engine, against the same weights played here."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from routerr1.config import Params
from routerr1.errors import CheckpointError
from routerr1.prompt import renderer
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.loop import play
from routerr1.rollout.vllm import ColocatedGenerator, ServerGenerator
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import serving
from routerr1.types import Question, Trajectory
from tests.vllm_server import Request, Served, TinyEngine, build_server

HOLDS = 700


@pytest.fixture
def server(calling_policy: Path) -> Iterator[tuple[str, Served]]:
    app, served = build_server(calling_policy, HOLDS)
    with serving(app) as url:
        yield url, served


async def played(
    generator: Any, pool: SimulatedPool, rows: list[Question], params: Params, temperature: float
) -> list[Trajectory]:
    return await play(
        rows, generator, pool, render=renderer("compact", 4), params=params.rollout, seed=3,
        temperature=temperature,
    )  # fmt: skip


def ids_of(trajectory: Trajectory) -> list[int]:
    ids = list(trajectory.prompt_ids)
    for turn in trajectory.turns:
        ids += [*turn.generation.token_ids, *turn.inserted_ids]
    return ids


@pytest.mark.slow
async def test_a_server_plays_as_the_weights_do(
    server: tuple[str, Served], calling_policy: Path, pool: SimulatedPool, rows: list[Question],
    params: Params,
) -> None:  # fmt: skip
    url, served = server
    local = LocalGenerator.load(calling_policy)
    here = await played(local, pool, rows[4:8], params, 0.0)
    async with ServerGenerator(url, local.tokenizer) as remote:
        there = await played(remote, pool, rows[4:8], params, 0.0)
    assert [ids_of(t) for t in there] == [ids_of(t) for t in here]
    assert [(t.text, t.answer, t.stopped) for t in there] == [
        (t.text, t.answer, t.stopped) for t in here
    ]
    assert sum(t.ledger.calls for t in there) > 0
    for ours, theirs in zip(here, there, strict=True):
        for one, other in zip(ours.turns, theirs.turns, strict=True):
            assert other.generation.logprobs == pytest.approx(one.generation.logprobs, abs=1e-3)
            assert other.generation.finish == one.generation.finish
    # Each trajectory asks for itself, with the ids that were sampled and inserted before, as they were.
    assert len(served.requests) == sum(len(t.turns) for t in there)
    whole = [ids_of(t) for t in there]
    assert all(any(ids[: len(r.prompt)] == r.prompt for ids in whole) for r in served.requests)


@pytest.mark.slow
async def test_sampling_is_left_to_our_temperature_and_seed_alone(
    server: tuple[str, Served], calling_policy: Path, pool: SimulatedPool, rows: list[Question],
    params: Params,
) -> None:  # fmt: skip
    url, served = server
    tokenizer = LocalGenerator.load(calling_policy).tokenizer
    found = []
    for _ in range(2):
        async with ServerGenerator(url, tokenizer) as remote:
            found.append(
                [ids_of(t) for t in await played(remote, pool, [rows[0]] * 2, params, 1.0)]
            )
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
    for request in served.requests:
        assert (request.top_p, request.top_k, request.min_p) == (1.0, 0, 0.0)
        assert (request.repetition_penalty, request.temperature) == (1.0, 1.0)


@pytest.mark.slow
async def test_a_session_never_passes_the_length_limit(
    server: tuple[str, Served], calling_policy: Path, pool: SimulatedPool, rows: list[Question],
    params: Params,
) -> None:  # fmt: skip
    tokenizer = LocalGenerator.load(calling_policy).tokenizer
    url, served = server
    prompt = len(tokenizer(renderer("compact", 4)(rows[0], pool.cards))["input_ids"])
    # In the first generation, and by the text that is inserted after it.
    for room in (2, 9):
        async with ServerGenerator(url, tokenizer, max_length=prompt + room) as remote:
            (cut,) = await played(remote, pool, rows[:1], params, 0.0)
        assert cut.stopped == "length"
        assert sum(len(turn.generation.token_ids) for turn in cut.turns) <= room
        asked = served.requests.pop()
        assert len(asked.prompt) + asked.max_tokens <= prompt + room
        assert not served.requests


async def test_no_server_is_said_at_once() -> None:
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9: no vLLM server answers"):
        async with ServerGenerator("http://127.0.0.1:9", None):
            pass


def test_an_engine_in_this_process_plays_a_round_as_one_batch(
    small_policy: Path, pool: SimulatedPool, rows: list[Question], params: Params
) -> None:
    """The engine here has the interface of `vllm.LLM.generate` and generates for real."""
    engine, sizes = TinyEngine(small_policy), []

    def generate(prompts: list[Any], *, sampling_params: list[Any], use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        sizes.append(len(prompts))
        outputs = []
        for prompt, wanted in zip(prompts, sampling_params, strict=True):
            said = engine.run(Request(model="", prompt=prompt["prompt_token_ids"], **wanted))
            logprobs = [
                {token: SimpleNamespace(logprob=value)}
                for token, value in zip(said["ids"], said["logprobs"], strict=True)
            ]
            only = SimpleNamespace(
                text=said["text"], token_ids=said["ids"], logprobs=logprobs,
                finish_reason=said["finish"], stop_reason=said["reason"],
            )  # fmt: skip
            outputs.append(SimpleNamespace(outputs=[only]))
        return outputs

    local = LocalGenerator.load(small_policy)
    colocated = ColocatedGenerator(
        SimpleNamespace(generate=generate), dict, local.tokenizer, max_length=HOLDS
    )
    there = asyncio.run(played(colocated, pool, rows[:3], params, 0.0))
    here = asyncio.run(played(local, pool, rows[:3], params, 0.0))
    assert [ids_of(t) for t in there] == [ids_of(t) for t in here]
    turns = [len(t.turns) for t in here]
    assert sizes == [sum(n > place for n in turns) for place in range(max(turns))]
