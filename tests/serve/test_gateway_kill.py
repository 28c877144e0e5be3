"""One gateway of two is killed while faulty candidates are asked: the other loses and mixes nothing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx2
import pytest

from routerr1.pool.budget import Budget, Limits
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.faults import Faults
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.types import Question
from tests.servers import write_pool_file

ROOT = Path(__file__).parents[2]
LIMIT_USD = 1.0
REQUESTS = 240
GATEWAY = """
import sys
from pathlib import Path
from routerr1.config import ServeParams, load_params
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.serve.build import policy_route
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.gateway import Gateway
from routerr1.serve.server import serve_forever
from routerr1.serve.store import Store
from tests.serve.conftest import calls_atlas

budget = Budget(Path("budget.sqlite"), Limits(run_usd=float(sys.argv[1])), run="both")
pool = HttpPool(read_pool_file(Path("pools/p.yaml")), {"here": ""}, max_concurrency=64, budget=budget)
params = load_params(Path(sys.argv[2]))
route = policy_route(ScriptedGenerator(calls_atlas), renderer("compact", 4), params)
engine = Engine(Identity("routerr1", "7", "policy", "http"), route, pool, budget)
gateway = Gateway(engine, ServeParams(keep="full"), Store("sqlite:///serve.sqlite"))
serve_forever(gateway, "127.0.0.1", 0, lambda address: print(address, flush=True))
"""


def begun(folder: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(LIMIT_USD), str(ROOT / "params.yaml")], cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


async def asked(url: str, question: str) -> tuple[int, str]:
    """Status and answer; status 0 if the connection broke."""
    body = {"model": "routerr1", "messages": [{"role": "user", "content": question}]}
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        try:
            found = await http.post(f"{url}/v1/chat/completions", json=body)
        except httpx2.TransportError:
            return 0, ""
        value = found.json()
        if found.status_code != 200:
            return found.status_code, value["error"]["code"]
        return 200, value["choices"][0]["message"]["content"]


@pytest.mark.slow
async def test_the_other_gateway_loses_and_mixes_nothing_and_the_budget_holds(
    pool: SimulatedPool, rows: list[Question], tmp_path: Path
) -> None:
    faults = Faults(server_error=0.06, cut=0.02, broken_json=0.02)
    questions = [row.question for row in rows if row.hops == 1]
    chosen = [questions[number % len(questions)] for number in range(REQUESTS)]
    with serving(build_app(pool, faults=faults, seed=3, time_scale=0.05)) as server:
        write_pool_file(tmp_path / "pools/p.yaml", server, default_candidates())
        one, two = begun(tmp_path), begun(tmp_path)
        try:
            slots = asyncio.Semaphore(24)

            async def ask(number: int) -> tuple[int, str]:
                async with slots:
                    if number == REQUESTS // 2:
                        os.kill(one[0].pid, signal.SIGKILL)
                    return await asked((one, two)[number % 2][1], chosen[number])

            found = await asyncio.gather(*map(ask, range(REQUESTS)))
        finally:
            for process, _ in (one, two):
                process.kill()
                process.communicate()
        with urllib.request.urlopen(f"{server}/stats") as reply:
            stats = json.load(reply)
    survivors = list(zip(chosen[1::2], found[1::2], strict=True))
    assert all(status in (200, 503) for _, (status, _) in survivors)
    assert sum(status == 200 for _, (status, _) in survivors) > 0.9 * len(survivors)
    for question, (status, answer) in zip(chosen, found, strict=True):
        assert status != 200 or answer == pool.say("Atlas", question).strip(), question
    assert [status for status, _ in found[::2]].count(0) > 0.3 * REQUESTS / 2  # the killed one
    budget = Budget(tmp_path / "budget.sqlite", Limits(), run="both")
    spent = budget.spent_usd()["run both"]
    atlas = next(each for each in default_candidates() if each.name == "Atlas")
    billed = (
        stats["total"]["prompt_tokens"] * atlas.prompt_usd_per_mtok
        + stats["total"]["completion_tokens"] * atlas.completion_usd_per_mtok
    ) / 1e6
    assert billed <= spent <= LIMIT_USD
