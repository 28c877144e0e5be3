"""A gateway on a free port of loopback: real server, real sockets, a policy that says what a test wants."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from routerr1.config import Params, ServeParams
from routerr1.pool.base import Pool
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.prompt import renderer
from routerr1.rollout.generate import Generator, ScriptedGenerator
from routerr1.serve.build import policy_route
from routerr1.serve.engine import Engine, Identity, Route
from routerr1.serve.gateway import Gateway
from routerr1.serve.server import Server, listen
from routerr1.serve.store import Store
from routerr1.serve.topics import Topics
from routerr1.simulation.pool import SimulatedPool

FRANCE = "What is the capital of France?"


def calls_atlas(_: str, inserted: Sequence[str]) -> str:
    """Asks Atlas the question as it stands, then answers with the reply."""
    if not inserted:
        return "<think> geography: Atlas</think><search> Atlas: @question</search>"
    said = inserted[-1].strip().removeprefix("<information>").removesuffix("</information>")
    return f"<think> done</think><answer>{said.strip().removeprefix('@1').strip()}</answer>"


@dataclass
class Running:
    """A gateway that serves.

    Attributes:
        budget: of its engine.
    """

    url: str
    gateway: Gateway
    budget: Budget
    server: Server


Start = Callable[..., Running]


@contextmanager
def serving(gateway: Gateway) -> Iterator[tuple[str, Server]]:
    """Serve from a thread while the block runs."""
    listening = listen("127.0.0.1", 0)
    server = Server(gateway)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        listening.close()


@pytest.fixture
def start(
    params: Params, pool: SimulatedPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Starts gateways, which end with the test."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def begin(
            generator: Generator | None = None,
            asked: Pool | None = None,
            *,
            limits: Limits | None = None,
            identity: Identity | None = None,
            budget: Budget | None = None,
            topics: Topics | None = None,
            route: Route | None = None,
            **section: object,
        ) -> Running:
            served = ServeParams.model_validate({"drain_s": 1, **section})
            budget = budget or Budget(
                tmp_path / "budget.sqlite", limits or Limits(), run=f"run {time.monotonic_ns()}"
            )
            inner = asked or BudgetedPool(pool, budget, max_reply_tokens=100)
            answers_with_reply = route is not None
            route = route or policy_route(
                generator or ScriptedGenerator(calls_atlas), renderer("compact", 4), params
            )
            engine = Engine(
                identity or Identity("routerr1", "7", "policy", "simulated"), route, inner, budget,
                answers_with_reply=answers_with_reply, topics=topics,
            )  # fmt: skip
            gateway = Gateway(
                engine, served, Store(served.database or f"sqlite:///{tmp_path / 'serve.sqlite'}")
            )
            url, server = stack.enter_context(serving(gateway))
            return Running(url, gateway, budget, server)

        yield begin
