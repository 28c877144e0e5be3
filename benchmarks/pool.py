"""Throughput of the HTTP pool, and the time that it adds to a call. Prints JSON.

    python -m benchmarks.pool [--repeats 3] [--out FILE]

Throughput: 256 calls to the simulated server (a process of its own, 0.3 s median latency, lognormal
with sigma 0.6) by the pool at concurrency 256, and by ten threads of the OpenAI client, as in the
Router-R1 release. Every repeat asks other questions, so it has other latencies, the same for both
sides. Connections are open before the clock starts, as in the middle of a run. `longest_call_s` is
a lower bound of the wall time.

Overhead: time of a call beyond the server's own waiting, as a median over calls, for the pool and
for raw httpx, at concurrency 1 (the server answers at once) and at concurrency 256; and CPU time of
a call.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks import shared
from routerr1.pool.base import Call
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serve_forever

CALLS = 256
THREADS = 10  # of the reference
MEDIAN_S = 0.3
NAME = "Atlas"


def simulated() -> SimulatedPool:
    """Candidates of one median latency; what they answer does not matter here."""
    candidates = [replace(each, latency_s=MEDIAN_S) for each in default_candidates()]
    return SimulatedPool(candidates, {}, seed=1)


def start_server(time_scale: float) -> tuple[subprocess.Popen[str], str]:
    """A server process and its address."""
    command = [sys.executable, "-m", "benchmarks.pool", "--serve", str(time_scale)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def open_pool(url: str, folder: Path, budget: bool = False) -> HttpPool:
    """The pool as an operator would open it."""
    row = {
        "name": NAME, "endpoint": "here", "model": NAME, "context_window": 4096,
        "prompt_usd_per_mtok": 1.0, "completion_usd_per_mtok": 1.0,
    }  # fmt: skip
    content = {
        "prices": {"as_of": "2026-11-01", "source": "made up"},
        "endpoints": {"here": {"base_url": f"{url}/v1", "max_concurrency": CALLS}},
        "candidates": [row],
    }
    path = folder / "pool.yaml"
    path.write_text(yaml.safe_dump(content))
    purse = Budget(folder / "budget.sqlite", Limits(run_usd=1e6), run="bench") if budget else None
    return HttpPool(read_pool_file(path), {"here": ""}, max_concurrency=CALLS, budget=purse)


def reference_s(url: str, queries: Sequence[str]) -> float:
    """Wall seconds of ten threads, each with one blocking call at a time."""
    from openai import OpenAI

    client = OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0)

    def ask(query: str) -> None:
        client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": query}], temperature=0, max_tokens=600
        )

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(ask, (f"warm up {n}" for n in range(THREADS))))
        began = time.perf_counter()
        list(threads.map(ask, queries))
        return time.perf_counter() - began


async def timed(
    ask: Callable[[str], Awaitable[Any]], queries: Sequence[str]
) -> tuple[float, list[float]]:
    """Wall seconds of all calls at once, and of each."""
    seconds: list[float] = []

    async def one(query: str) -> None:
        began = time.perf_counter()
        await ask(query)
        seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(one(query) for query in queries))
    return time.perf_counter() - began, seconds


async def by_pool(
    url: str, folder: Path, batches: Sequence[Sequence[str]], budget: bool = False
) -> Any:
    """(wall, seconds of each call) for every batch; all but the first start with open connections."""
    pool = open_pool(url, folder, budget)

    async def ask(query: str) -> None:
        reply = await pool.ask(Call(NAME, query))
        assert reply.failure is None, reply.note

    found = [await timed(ask, batch) for batch in batches]
    await pool.aclose()
    return found


async def by_httpx(url: str, batches: Sequence[Sequence[str]]) -> Any:
    """The same with httpx and nothing around it."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def ask(query: str) -> None:
            body = {
                "model": NAME, "messages": [{"role": "user", "content": query}],
                "max_tokens": 600, "temperature": 0.0,
            }  # fmt: skip
            answer = await client.post(f"{url}/v1/chat/completions", json=body)
            answer.raise_for_status()
            assert answer.json()["choices"][0]["message"]["content"]

        return [await timed(ask, batch) for batch in batches]


def throughput(repeats: int, folder: Path) -> dict[str, Any]:
    """Calls per second of pool and reference, and the overhead of pool and raw httpx beside each other."""
    world = simulated()
    batches = [[f"question {n} of {batch}" for n in range(CALLS)] for batch in range(repeats)]
    process, url = start_server(1.0)
    runs: list[dict[str, Any]] = []
    over: dict[str, list[float]] = {"pool": [], "httpx": []}
    try:
        warm = [f"warm up {n}" for n in range(CALLS)]
        for batch in batches:
            slept = [world.latency_s(NAME, query) for query in batch]
            reference = reference_s(url, batch)
            _, (wall, seconds) = asyncio.run(by_pool(url, folder, [warm, batch]))
            _, (raw_wall, raw_seconds) = asyncio.run(by_httpx(url, [warm, batch]))
            # Same calls, same sleeps: what is above the sleeps' median is overhead.
            over["pool"].append(statistics.median(seconds) - statistics.median(slept))
            over["httpx"].append(statistics.median(raw_seconds) - statistics.median(slept))
            runs.append({
                "pool_s": wall, "reference_s": reference, "httpx_s": raw_wall,
                "pool_calls_per_s": CALLS / wall, "reference_calls_per_s": CALLS / reference,
                "ratio": reference / wall, "longest_call_s": max(slept),
                "share_of_limit": max(slept) / wall,
            })  # fmt: skip
    finally:
        process.terminate()
        process.wait()
    return {
        "runs": runs,
        "median_ratio": statistics.median(run["ratio"] for run in runs),
        "least_ratio": min(run["ratio"] for run in runs),
        "burst_overhead_ms": {
            name: 1e3 * statistics.median(values) for name, values in over.items()
        },
    }


def overhead(repeats: int, folder: Path) -> dict[str, float]:
    """Median milliseconds of a call, one after another, to a server that answers at once."""
    process, url = start_server(0.0)
    queries = [[f"q{n}"] for n in range(100 * repeats)]
    found: dict[str, float] = {}
    try:
        for name, play in (
            ("httpx_ms", lambda: by_httpx(url, queries)),
            ("pool_ms", lambda: by_pool(url, folder, queries)),
            ("pool_with_budget_ms", lambda: by_pool(url, folder, queries, budget=True)),
            ("httpx_again_ms", lambda: by_httpx(url, queries)),
        ):
            seconds = [each for _, (each,) in asyncio.run(play())]
            found[name] = 1e3 * statistics.median(seconds)
    finally:
        process.terminate()
        process.wait()
    raw = (found["httpx_ms"] + found["httpx_again_ms"]) / 2
    return {
        **found,
        "added_ms": found["pool_ms"] - raw,
        "added_with_budget_ms": found["pool_with_budget_ms"] - raw,
    }


def main() -> None:
    """Run it all."""
    parser = shared.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        app = build_app(simulated(), time_scale=args.serve)
        serve_forever(app, "127.0.0.1", 0, ready=lambda url: print(url, flush=True))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "calls": CALLS,
            "throughput": throughput(args.repeats, Path(folder)),
            "overhead_one_at_a_time": overhead(args.repeats, Path(folder)),
            "machine": shared.machine(),
        }
    shared.report(result, args.out)


if __name__ == "__main__":
    main()
