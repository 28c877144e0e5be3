"""Two gateways of one registry under load: champions come and go, candidates fail, one gateway is killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from routerr1.config import Params
from routerr1.pool.base import Call
from routerr1.pool.budget import Budget, Limits
from routerr1.registry import promotion, versions
from routerr1.serve.store import RequestRow, Store
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.faults import Faults
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from tests.chain import commit_nothing
from tests.servers import write_pool_file

ROOT = Path(__file__).parents[2]
FAULTS = Faults(server_error=0.06, cut=0.02, broken_json=0.02)
PATH = ("promote 2", "promote 3", "rollback 2", "promote 4", "rollback 2", "promote 5")
KILLED_AFTER = 3  # changes of the champion
ATLAS = next(each for each in default_candidates() if each.name == "Atlas")

_PAUSE_S = 0.4  # of a client after each request, so that requests last as long as the changes

GATEWAY = """
import sys
from functools import partial
from pathlib import Path
from routerr1.config import ServeParams, load_params
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.serve.build import policy_route
from routerr1.serve.champion import Named, Watch, find_version
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.gateway import Gateway
from routerr1.serve.server import serve_forever
from routerr1.serve.store import Store
from tests.serve.conftest import calls_atlas

limit_usd, pool_file = float(sys.argv[1]), Path(sys.argv[2])
params = load_params()

def says(number, prompt, inserted):
    return calls_atlas(prompt, inserted).replace("<answer>", f"<answer>version {number}: ")

def build(version):
    budget = Budget(Path("budget.sqlite"), Limits(run_usd=limit_usd), run="both")
    pool = HttpPool(read_pool_file(pool_file), {"here": ""}, max_concurrency=64, budget=budget)
    script = ScriptedGenerator(partial(says, version.number))
    route = policy_route(script, renderer("compact", 4), params)
    identity = Identity("routerr1", str(version.number), "policy", "http")
    return Engine(identity, route, pool, budget)

champion = Named(params.registry.model, "champion", moves=True)
gateway = Gateway(build(find_version(champion)), ServeParams(keep="full"), Store("sqlite:///serve.sqlite"))
watch = Watch(gateway, champion, build, every_s=0.5)
serve_forever(gateway, "127.0.0.1", 0, lambda address: print(address, flush=True), [watch])
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client saw of one request; status 0 if the connection broke."""

    gateway: int
    id: str
    question: str
    status: int
    version: str
    text: str
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """All requests and the books.

    Attributes:
        rows: that the gateways kept, of both.
        reported: tokens of the replies that arrived whole, by the model server of the gateway that survives.
        servers_usd: of both model servers, with all replies.
        booked_usd: by both gateways, against `limit_usd`.
    """

    asked: Sequence[Asked]
    rows: Sequence[RequestRow]
    reported: dict[str, int]
    servers_usd: float
    booked_usd: float
    limit_usd: float
    seconds: float

    @property
    def survivors(self) -> list[Asked]:
        """The requests to the gateway that survives."""
        return [each for each in self.asked if each.gateway == 1]

    @property
    def ledger(self) -> dict[str, int]:
        """The tokens of all calls that the surviving gateway has kept."""
        own = {each.id for each in self.survivors}
        calls = [call for row in self.rows if row.id in own for call in row.calls]
        return {
            name: sum(call[name] for call in calls)
            for name in ("prompt_tokens", "completion_tokens")
        }

    def check(self, pool: SimulatedPool) -> None:
        """Assert that no request to the survivor is lost or mixed, and that the books agree."""
        survivors, kept = self.survivors, {row.id: row for row in self.rows}
        assert {each.status for each in survivors} == {200, 503, 429} - (
            set() if any(each.status == 503 for each in survivors) else {503}
        )
        served = [each for each in survivors if each.status != 429]
        assert sum(each.status == 200 for each in served) > 0.95 * len(served)
        assert {each.text for each in survivors if each.status == 429} == {"insufficient_quota"}
        for each in self.asked:
            said = f"version {each.version}: {pool.say('Atlas', each.question).strip()}"
            assert each.status != 200 or each.text == said
        assert len({each.id for each in survivors}) == len(survivors)
        for each in survivors:
            row = kept[each.id]
            assert (row.status, row.version) == (each.status, f"routerr1@{each.version}")
            assert each.status != 200 or row.cost_usd == each.cost_usd
        assert {each.version for each in survivors if each.status == 200} >= {"2", "3", "4", "5"}
        lost = [each for each in self.asked if each.gateway == 0 and each.status == 0]
        assert lost, "the killed gateway was never asked after its end"
        assert self.ledger == self.reported
        assert self.servers_usd <= self.booked_usd <= self.limit_usd

    def figures(self) -> dict[str, Any]:
        """In numbers."""
        survivor = self.survivors
        return {
            "requests": len(self.asked),
            "seconds": round(self.seconds, 1),
            "by_status": dict(sorted(Counter(str(each.status) for each in self.asked).items())),
            "by_status_of_the_survivor": dict(
                sorted(Counter(str(each.status) for each in survivor).items())
            ),
            "by_version": dict(sorted(Counter(e.version for e in self.asked if e.version).items())),
            "tokens_by_the_server": self.reported,
            "tokens_by_the_ledger": self.ledger,
            "servers_usd": self.servers_usd,
            "booked_usd": self.booked_usd,
            "limit_usd": self.limit_usd,
        }


async def play(
    params: Params, pool: SimulatedPool, questions: Sequence[str], *, requests: int, clients: int
) -> Outcome:
    """Ask `requests` questions or more, until every change of the champion has happened and the budget is spent.

    The working folder is that of `tests/chain.py`, with an empty registry.
    """
    for _ in range(5):
        commit_nothing()
        versions.register(params)
    assert promotion.promote(params, 1, why="first").record is not None
    prices = [(await pool.ask(Call("Atlas", each))).cost_usd for each in questions]
    # A try that was cut is booked at the most that it can have cost, so a request costs some five times its price.
    limit_usd = 3.5 * requests * sum(prices) / len(prices)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(build_app(pool, faults=FAULTS, seed=seed, time_scale=0.05)))
            for seed in (3, 4)
        ]
        gateways = []
        for number, server in enumerate(servers):
            file = write_pool_file(Path(f"pools/p{number}.yaml"), server, default_candidates())
            process, url = begun(file, limit_usd)
            stack.callback(ended, process)
            gateways.append((process, url))
        began = time.monotonic()
        asked = await _under_load(params, gateways, questions, requests, clients)
        seconds = time.monotonic() - began
        os.kill(gateways[1][0].pid, signal.SIGTERM)
        await asyncio.to_thread(gateways[1][0].wait, 60)
        stats = [read_stats(server) for server in servers]
    store = Store("sqlite:///serve.sqlite")
    rows = store.requests()
    store.close()
    budget = Budget(Path("budget.sqlite"), Limits(), run="both")
    booked_usd = budget.spent_usd()["run both"]
    budget.close()
    return Outcome(
        asked=asked,
        rows=rows,
        reported={name: stats[1][name] for name in ("prompt_tokens", "completion_tokens")},
        servers_usd=sum(usd(each) + usd(each, "unreported_") for each in stats),
        booked_usd=booked_usd,
        limit_usd=limit_usd,
        seconds=seconds,
    )


async def _under_load(
    params: Params,
    gateways: Sequence[tuple[subprocess.Popen[str], str]],
    questions: Sequence[str],
    requests: int,
    clients: int,
) -> list[Asked]:
    found: list[Asked] = []
    changed, refused = asyncio.Event(), asyncio.Event()
    begun_requests = 0
    share = requests / (len(PATH) + 1)  # of a change
    changes = 0  # that have happened

    async def client(http: httpx2.AsyncClient) -> None:
        nonlocal begun_requests
        while begun_requests < requests or not (changed.is_set() and refused.is_set()):
            # A slow change would see the budget spent before the last version has answered.
            if changes < len(PATH) and begun_requests >= (changes + 1) * share:
                await asyncio.sleep(0.02)
                continue
            number = begun_requests
            begun_requests += 1
            gateway = number % 2
            url = gateways[gateway][1]
            found.append(await ask(http, gateway, url, questions[number % len(questions)]))
            if found[-1].status == 429:
                refused.set()
            await asyncio.sleep(_PAUSE_S)

    async def change() -> None:
        nonlocal changes
        for place, step in enumerate(PATH):
            while begun_requests < (place + 0.5) * share:
                await asyncio.sleep(0.02)
            kind, number = step.split()
            move: Callable[[], object] = (
                partial(promotion.promote, params, int(number), why="test")
                if kind == "promote"
                else partial(promotion.rollback, params, why="test")
            )
            await asyncio.to_thread(move)
            await asyncio.to_thread(until_serving, gateways[1][1], number)
            if place + 1 == KILLED_AFTER:
                os.kill(gateways[0][0].pid, signal.SIGKILL)
            changes = place + 1
        changed.set()

    limits = httpx2.Limits(max_keepalive_connections=clients)
    async with httpx2.AsyncClient(trust_env=False, timeout=60, limits=limits) as http:
        await asyncio.gather(change(), *(client(http) for _ in range(clients)))
    return found


async def ask(http: httpx2.AsyncClient, gateway: int, url: str, question: str) -> Asked:
    """One question to one gateway."""
    body = {"model": "routerr1", "messages": [{"role": "user", "content": question}]}
    try:
        reply = await http.post(f"{url}/v1/chat/completions", json=body)
    except httpx2.TransportError:
        return Asked(gateway, "", question, 0, "", "", 0.0)
    value = reply.json()
    version = reply.headers.get("x-routerr1-version", "")
    number = reply.headers.get("x-request-id", "")
    if reply.status_code != 200:
        code = value["error"]["code"]
        return Asked(gateway, number, question, reply.status_code, version, code, 0.0)
    text = value["choices"][0]["message"]["content"]
    return Asked(gateway, number, question, 200, version, text, value["usage"]["cost"])


def begun(pool_file: Path, limit_usd: float) -> tuple[subprocess.Popen[str], str]:
    """A gateway in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(limit_usd), str(pool_file)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> None:
    """Kill it if it still runs, and read what it said."""
    process.kill()
    process.communicate()


def until_serving(url: str, version: str) -> None:
    """Wait until a gateway serves a version."""
    deadline = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(f"{url}/readyz") as reply:
            if json.load(reply)["version"] == version:
                return
        assert time.monotonic() < deadline, f"version {version} is not served"
        time.sleep(0.05)


def read_stats(server: str) -> dict[str, int]:
    """The sums that a model server counted."""
    with urllib.request.urlopen(f"{server}/stats") as reply:
        found: dict[str, int] = json.load(reply)["total"]
    return found


def usd(tokens: dict[str, int], kind: str = "") -> float:
    """The price of tokens of Atlas."""
    return (
        tokens[f"{kind}prompt_tokens"] * ATLAS.prompt_usd_per_mtok
        + tokens[f"{kind}completion_tokens"] * ATLAS.completion_usd_per_mtok
    ) / 1e6
