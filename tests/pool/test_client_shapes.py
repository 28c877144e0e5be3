"""Two thousand calls to every kind of server at once: no text is lost, and the ledger is the servers' bill."""

import asyncio
import hashlib
import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import Response

from routerr1.pool.base import Call
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.rollout.loop import ledger
from routerr1.simulation.server import serving
from routerr1.types import Ask, Generation, Reply, Turn
from tests.pool.shapes import (
    CACHED_PRICE,
    COMPLETION_PRICE,
    PROMPT_PRICE,
    REASONING_PRICE,
    REQUEST_USD,
    SHAPES,
    Said,
)

CALLS, AT_ONCE = 2000, 64
BY_NAME = {shape.name: shape for shape in SHAPES}


class Servers:
    """One server of every shape, which keeps its own bill; every twentieth reply first fails."""

    def __init__(self) -> None:
        self.bill_usd: Counter[str] = Counter()
        self.said: dict[tuple[str, str], str] = {}
        self.failed: Counter[str] = Counter()
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.answer)

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        shape, query = BY_NAME[body["model"]], body["messages"][-1]["content"]
        rng = Random(hashlib.sha256(f"{shape.name}/{query}".encode()).digest())
        if rng.random() < 0.05 and not self.failed[shape.name, query]:
            return self._failure((shape.name, query), rng)
        reasoning, cached = rng.randrange(5, 400), rng.randrange(1, 30)
        said = Said(
            text=f"{query} – réponse 😀 {rng.randrange(10**9)}.",
            thought="Hm. " * rng.randrange(1, 20) + "So it is.",
            prompt=cached + rng.randrange(10, 60),
            cached=cached,
            completion=reasoning + rng.randrange(1, 90),
            reasoning=reasoning,
        )
        self.said[shape.name, query] = said.text
        self.bill_usd[shape.name] += shape.bill_usd(said)
        content = json.dumps(shape.body(said), ensure_ascii=rng.random() < 0.5).encode()
        await asyncio.sleep(rng.random() * 0.02)
        return Response(content, headers=shape.headers(said), media_type="application/json")

    def _failure(self, call: tuple[str, str], rng: Random) -> Response:
        """A failure that is not billed and succeeds on the next try."""
        self.failed[call] += 1
        status, error = rng.choice(
            [
                (200, {"error": {"message": "Provider returned error", "code": 429}}),
                (200, {"error": {"message": "busy", "type": "overloaded_error"}}),
                (200, {"choices": [{"message": {"content": None}, "finish_reason": "error"}],
                       "error": {"code": 502}}),
                (429, {"error": {"message": "slow down"}}),
                (503, {"detail": "loading"}),
            ]
        )  # fmt: skip
        return Response(json.dumps(error), status, media_type="application/json")


def pool_file(path: Path, url: str) -> Path:
    rows = [
        {
            "name": shape.name,
            "endpoint": "here",
            "model": shape.name,
            "context_window": 4096,
            "prompt_usd_per_mtok": PROMPT_PRICE,
            "completion_usd_per_mtok": COMPLETION_PRICE,
            "cached_prompt_usd_per_mtok": CACHED_PRICE if shape.cached else None,
            "reasoning_usd_per_mtok": REASONING_PRICE if shape.reasoning else None,
            "request_usd": REQUEST_USD,
        }
        for shape in SHAPES
    ]
    endpoint = {"base_url": f"{url}/v1", "max_concurrency": AT_ONCE, "backoff_s": 0.01}
    content = {
        "prices": {"as_of": "2026-11-01", "source": "made up"},
        "endpoints": {"here": endpoint},
        "candidates": rows,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.slow
async def test_two_thousand_calls_lose_no_text_and_the_ledger_is_the_bill(tmp_path: Path):
    servers = Servers()
    names = list(BY_NAME)
    calls = [(names[place % len(names)], f"Question {place}?") for place in range(CALLS)]
    with serving(servers.app) as url:
        file = read_pool_file(pool_file(tmp_path / "pool.yaml", url))
        budget = Budget(tmp_path / "budget.sqlite", Limits(run_usd=1000.0), run="r")
        pool = HttpPool(file, file.keys({}), max_concurrency=AT_ONCE, budget=budget)
        replies = await asyncio.gather(*(pool.ask(Call(*call)) for call in calls))
        spent = budget.spent_usd()["run r"]
        await pool.aclose()
    assert [reply.failure for reply in replies] == [None] * CALLS
    assert [reply.text for reply in replies] == [servers.said[call] for call in calls]
    assert sum(reply.retries for reply in replies) == servers.failed.total() > CALLS * 0.03
    turns = [
        Turn(Generation("x"), Ask(*call), reply) for call, reply in zip(calls, replies, strict=True)
    ]
    assert ledger(turns).cost_usd == pytest.approx(servers.bill_usd.total(), abs=0.005)
    assert spent == pytest.approx(servers.bill_usd.total(), abs=0.005)
    for name in names:  # far closer than a cent: a single miscounted call would show
        mine = sum(reply.cost_usd for reply in _of(name, calls, replies))
        assert mine == pytest.approx(servers.bill_usd[name], abs=1e-6)
        thinks = BY_NAME[name].thinks
        assert all(bool(reply.thoughts) == thinks for reply in _of(name, calls, replies))


def _of(name: str, calls: list[tuple[str, str]], replies: list[Reply]) -> list[Reply]:
    return [reply for (asked, _), reply in zip(calls, replies, strict=True) if asked == name]
