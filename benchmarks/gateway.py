"""The gateway beside LiteLLM's proxy, in front of one stub server. Prints JSON.

    python -m benchmarks.gateway [--litellm PATH] [--requests 1500] [--out FILE]

Everything runs on this machine, each server in a process of its own; the client is this process. A
request is written once and sent as it is over kept connections, so the client costs little.

- `throughput`: a candidate asked by name, at 1 and 32 clients: requests a second, median and 95th
  percentile of a request in milliseconds, processor time of a request, and the memory of the server
  with its children in MB.
- `first_token`: milliseconds from the request to the first word of a stream, and beyond the stub's own;
  `routed_first_token` of a router that chooses the candidate first.
- `overhead`: the whole way of a question through the router with one call: milliseconds of the client
  without those of the call. The policy is a script, so generation takes no time.

`--litellm` names the `litellm` command of an environment of its own (`pip install 'litellm[proxy]'`); without
it LiteLLM is left out.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import shared

CLIENTS = (1, 32)
ROOT = Path(__file__).resolve().parents[1]  # servers work in a folder of their own
NAME = "Atlas"
WORDS = ("Paris ", "is ", "the ", "capital ", "of ", "France.")
QUIET = {  # LiteLLM asks for a key otherwise, and for a list of prices from elsewhere
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
QUESTION = "What is the capital of France?"


def serve_stub(port: int) -> None:
    """A model server that answers at once, whole or in words."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    base = {"id": "x", "created": 1, "model": NAME}
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = {**base, "object": "chat.completion", "choices": [choice], "usage": USAGE}

    def event(value: dict[str, Any]) -> bytes:
        chunk = {**base, "object": "chat.completion.chunk", **value}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    async def words() -> AsyncIterator[bytes]:
        for word in WORDS:
            yield event(
                {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]}
            )
            await asyncio.sleep(0.005)
        yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield event({"choices": [], "usage": USAGE})
        yield b"data: [DONE]\n\n"

    async def complete(request: Request) -> Response:
        if (await request.json()).get("stream"):
            return StreamingResponse(words(), media_type="text/event-stream")
        return JSONResponse(whole)

    async def healthy(_: Request) -> Response:
        return JSONResponse({})

    routes = [
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/healthz", healthy),
    ]
    uvicorn.run(Starlette(routes=routes), port=port, log_level="critical", access_log=False)


def serve_gateway(port: int, stub: str) -> None:
    """The gateway, with a scripted policy that makes one call, and the stub as its candidate."""
    from routerr1.baselines.replies import Always, answer_with_reply, next_call_of
    from routerr1.config import RolloutParams, ServeParams
    from routerr1.evaluate.controls import Policy, Router, policy_router
    from routerr1.pool.base import Pool
    from routerr1.pool.budget import Budget, Limits
    from routerr1.pool.client import HttpPool
    from routerr1.pool.pool_file import read_pool_file
    from routerr1.prompt import renderer
    from routerr1.rollout.generate import ScriptedGenerator
    from routerr1.serve.engine import Engine, Identity
    from routerr1.serve.gateway import Gateway
    from routerr1.serve.hearing import Heard, HearingGenerator
    from routerr1.serve.server import serve_forever
    from routerr1.serve.store import Store

    row = {
        "name": NAME, "endpoint": "here", "model": NAME, "context_window": 4096,
        "prompt_usd_per_mtok": 1.0, "completion_usd_per_mtok": 1.0,
    }  # fmt: skip
    content = {
        "prices": {"as_of": "2026-11-01", "source": "made up"},
        "endpoints": {"here": {"base_url": f"{stub}/v1", "max_concurrency": 256}},
        "candidates": [row],
    }
    Path("pool.yaml").write_text(yaml.safe_dump(content))
    budget = Budget(Path("budget.sqlite"), Limits(run_usd=1e6), run="bench")
    pool = HttpPool(
        read_pool_file(Path("pool.yaml")), {"here": ""}, max_concurrency=256, budget=budget
    )
    script = (
        f"<think> {NAME}</think><search> {NAME}: {QUESTION}</search>",
        "<think> done</think><answer>Paris</answer>",
    )
    rollout = RolloutParams(max_rounds=2, max_new_tokens=64, temperature=1.0)

    def route(asked: Pool, heard: Heard) -> Router:
        generator = HearingGenerator(ScriptedGenerator(script), heard)
        policy = Policy(1, generator, renderer("compact", 2), rollout, 0.0)
        return policy_router(policy, asked, "served", 1)

    def direct(asked: Pool, _: Heard) -> Router:
        play = partial(answer_with_reply, next_call=next_call_of(Always(NAME)), pool=asked, seed=1)
        return Router(f"fixed/{NAME}", 1, "served", asked, play, whole_reply=True)

    engine = Engine(Identity("routerr1", "bench", "policy", "http"), route, pool, budget)
    choosing = Engine(
        Identity("routerr1", "direct", f"fixed/{NAME}", "http"), direct, pool, budget,
        answers_with_reply=True,
    )  # fmt: skip
    params = ServeParams(candidates="all", port=port)
    gateway = Gateway(engine, params, Store("sqlite:///serve.sqlite"))
    gateway.beside.append(choosing)
    serve_forever(gateway, "127.0.0.1", port, lambda _: None, page=False)


class Connection:
    """A kept connection that sends one prepared request again and again."""

    def __init__(self, port: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self._port = port
        self._sent = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer none\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
        ) + content

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self) -> tuple[bytes, float]:
        """Send the request; gives the body, and the seconds to its first word."""
        began = time.perf_counter()
        self._writer.write(self._sent)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode(errors="replace"))
        length = lower.partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
        if length:
            body = await self._reader.readexactly(int(length))
            return body, time.perf_counter() - began
        first, pieces = 0.0, []
        while size := int((await self._reader.readuntil(b"\r\n")).strip(), 16):
            pieces.append(await self._reader.readexactly(size + 2))
            if not first and WORDS[0].strip().encode() in pieces[-1]:
                first = time.perf_counter() - began
        await self._reader.readexactly(2)
        return b"".join(pieces), first

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def throughput(port: int, clients: int, requests: int) -> dict[str, float]:
    """Requests a second, and the time of one."""
    body = {"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}
    connections = [Connection(port, body) for _ in range(clients)]
    seconds: list[float] = []
    left = iter(range(requests))

    async def run(connection: Connection) -> None:
        for _ in left:
            began = time.perf_counter()
            await connection.ask()
            seconds.append(time.perf_counter() - began)

    for connection in connections:
        await connection.open()
        await connection.ask()
    began = time.perf_counter()
    await asyncio.gather(*map(run, connections))
    whole = time.perf_counter() - began
    for connection in connections:
        connection.close()
    ordered = sorted(seconds)
    return {
        "requests": requests,
        "requests_per_s": round(requests / whole, 1),
        "median_ms": round(1000 * statistics.median(ordered), 2),
        "p95_ms": round(1000 * ordered[int(0.95 * len(ordered))], 2),
    }


async def first_token(port: int, number: int, model: str = NAME) -> float:
    """Median milliseconds to the first word of a stream, one after another."""
    message = {"role": "user", "content": QUESTION}
    connection = Connection(port, {"model": model, "messages": [message], "stream": True})
    await connection.open()
    found = [(await connection.ask())[1] for _ in range(number)]
    connection.close()
    return round(1000 * statistics.median(found[number // 10 :]), 2)


async def overhead(port: int, number: int) -> dict[str, float]:
    """Milliseconds of a question through the router, without those of its call."""
    message = {"role": "user", "content": QUESTION}
    connection = Connection(port, {"model": "routerr1", "messages": [message]})
    await connection.open()
    found: list[float] = []
    for _ in range(number):
        body, seconds = await connection.ask()
        calls = json.loads(body)["routerr1"]["calls"]
        found.append(1000 * (seconds - sum(call["seconds"] for call in calls)))
    connection.close()
    ordered = sorted(found[number // 10 :])
    return {
        "requests": number,
        "median_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[int(0.95 * len(ordered))], 2),
    }


class Server:
    """A server in a process of its own, ready when this returns."""

    def __init__(self, command: Sequence[str], port: int, path: str, folder: Path) -> None:
        self.port = port
        with (folder / f"{port}.log").open("wb") as log:
            env = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=env
            )
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                    return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    said = (folder / f"{port}.log").read_text(errors="replace")[-2000:]
                    self.end()
                    raise RuntimeError(f"{command[0]} does not answer:\n{said}") from None
                time.sleep(0.2)

    @property
    def memory_mb(self) -> float:
        """Resident memory of the process and its children."""
        return round(sum(each.memory_info().rss for each in self._every) / 2**20, 1)

    @property
    def cpu_s(self) -> float:
        """Processor time of the process and its children so far."""
        times = [each.cpu_times() for each in self._every]
        return float(sum(each.user + each.system for each in times))

    @property
    def _every(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


def measure(server: Server, requests: int, streams: int) -> dict[str, Any]:
    """Throughput, memory and first token of one server."""
    found: dict[str, Any] = {}
    for clients in CLIENTS:
        some = requests if clients > 1 else max(requests // 5, 20)
        before = server.cpu_s
        measured = asyncio.run(throughput(server.port, clients, some))
        cpu_ms = 1000 * (server.cpu_s - before) / (some + clients)
        found[f"clients_{clients}"] = {**measured, "cpu_ms": round(cpu_ms, 2)}
    found["first_token_ms"] = asyncio.run(first_token(server.port, streams))
    found["memory_mb"] = server.memory_mb
    return found


def main() -> None:
    """Measure all servers in one run."""
    parser = shared.parser(__doc__)
    parser.add_argument("--litellm", help="The litellm command of its own environment.")
    parser.add_argument("--requests", type=int, default=1500, help="At 32 clients.")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve-stub", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve-gateway", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_stub:
        serve_stub(args.serve_stub)
        return
    if args.serve_gateway:
        serve_gateway(int(args.serve_gateway[0]), args.serve_gateway[1])
        return
    from tests.servers import free_port  # not in the servers, whose memory is measured

    servers: list[Server] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        here = [sys.executable, "-m", "benchmarks.gateway"]
        try:
            port = free_port()
            stub = Server([*here, "--serve-stub", str(port)], port, "/healthz", folder)
            servers.append(stub)
            url = f"http://127.0.0.1:{port}"
            port = free_port()
            command = [*here, "--serve-gateway", str(port), url]
            gateway = Server(command, port, "/healthz", folder)
            servers.append(gateway)
            results = {"stub": measure(stub, args.requests, args.streams)}
            results["gateway"] = measure(gateway, args.requests, args.streams)
            results["gateway"]["routed_first_token_ms"] = asyncio.run(
                first_token(gateway.port, args.streams, "routerr1@direct")
            )
            results["gateway"]["overhead"] = asyncio.run(overhead(gateway.port, args.streams * 3))
            if args.litellm:
                port = free_port()
                params = {"model": f"openai/{NAME}", "api_base": f"{url}/v1", "api_key": "none"}
                config = {"model_list": [{"model_name": NAME, "litellm_params": params}]}
                (folder / "litellm.yaml").write_text(yaml.safe_dump(config))
                command = [
                    args.litellm, "--config", "litellm.yaml", "--port", str(port), "--host", "127.0.0.1",
                ]  # fmt: skip
                litellm = Server(command, port, "/health/liveliness", folder)
                servers.append(litellm)
                results["litellm"] = measure(litellm, args.requests, args.streams)
        finally:
            for server in servers:
                server.end()
    base = results["stub"]["first_token_ms"]
    for name in results.keys() - {"stub"}:
        beyond = round(results[name]["first_token_ms"] - base, 2)
        results[name]["first_token_beyond_stub_ms"] = beyond
    shared.report({"machine": shared.machine(), **results}, args.out)


if __name__ == "__main__":
    main()
