"""One router with its pool, on an event loop of its own: a policy that computes must not hold up the server."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass

from routerr1.errors import CheckpointError
from routerr1.evaluate.controls import Router
from routerr1.pool.background import BackgroundLoop
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.pool.budget import Budget, Grant
from routerr1.pool.client import HttpPool
from routerr1.serve.hearing import Heard, HearingPool
from routerr1.serve.topics import Topics
from routerr1.types import Card, Question, Reply, Trajectory

Route = Callable[[Pool, Heard], Router]
"""Makes the router of one request, around the request's own pool and what listens to it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answer says of its router.

    Attributes:
        name: the model's name for clients.
        version: number of the registered version, or a digest of the policy's files.
        router: `policy`, or a baseline.
        pool: kind of the pool: http, recorded or simulated.
        digest: of the policy's files; "" for a router without one.
        reads_spend: it heeds the spend level of a request.
    """

    name: str
    version: str
    router: str
    pool: str
    digest: str = ""
    reads_spend: bool = True

    @property
    def label(self) -> str:
        """Name and version in one, for fingerprints and metrics."""
        return f"{self.name}@{self.version}"


class Engine:
    """Plays questions concurrently; they share the batches of the policy.

    Args:
        pool: closed with the engine, and the budget with it.
        remote: a generator that is connected with `open`, and closed with the engine.
        topics: places questions among those that the router learned from; closed with the engine.
        answers_with_reply: a candidate's reply is the answer. Its words can be passed on while it writes, where
            that is certain before it is asked; see `Heard.is_answer`.
    """

    def __init__(
        self,
        identity: Identity,
        route: Route,
        pool: Pool,
        budget: Budget,
        remote: AbstractAsyncContextManager[object] | None = None,
        *,
        answers_with_reply: bool = False,
        topics: Topics | None = None,
    ) -> None:
        self.answers_with_reply = answers_with_reply
        self.identity = identity
        self.pool = pool
        self._route = route
        self._budget = budget
        self._remote = remote
        self.topics = topics
        self._background = BackgroundLoop(f"routerr1-engine-{identity.version}")
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def cards(self) -> Sequence[Card]:
        """The candidates, as the policy knows them."""
        return self.pool.cards

    @property
    def under_way(self) -> int:
        """Requests that are being answered."""
        return self._under_way

    async def play(self, question: Question, heard: Heard, grant: Grant) -> Trajectory:
        """Answer one question; cancelling this cancels its generation and its calls.

        Raises: BudgetExceeded if the run, the month or a payer cannot pay another call; RouterError.
        """
        with self.holding():
            return await self._background.run(self._play(question, heard, grant))

    async def _play(self, question: Question, heard: Heard, grant: Grant) -> Trajectory:
        with self._budget.granted(heard.scope, grant):
            router = self._route(HearingPool(self.pool, heard), heard)
            return await router.play(question, player=heard.scope)

    def open(self) -> None:
        """Connect to what generates, if that is a server; not from an event loop.

        Raises: CheckpointError if it does not answer.
        """
        if self._remote is not None:
            asyncio.run(self._background.run(self._entered(self._remote)))

    async def _entered(self, remote: AbstractAsyncContextManager[object]) -> None:
        await remote.__aenter__()

    async def _left(self, remote: AbstractAsyncContextManager[object]) -> None:
        await remote.__aexit__(None, None, None)

    def run_calls_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the calls of an HTTP pool on the server's loop: a request that is passed on changes no thread."""
        if isinstance(self.pool, HttpPool):
            self.pool.run_on(loop)

    async def check(self) -> None:
        """Let the router play one question without asking anything, so that a broken one shows.

        Raises: CheckpointError if it writes nothing; whatever playing raises.
        """
        heard = Heard(f"check/{self.identity.version}")
        question = Question("check", "served", "What is the capital of France?", (), "test")
        with self.holding():
            played = await self._background.run(self._closed_book(question, heard))
        if not any(turn.generation.text for turn in played.turns):
            raise CheckpointError(f"{self.identity.label}: writes nothing")

    async def _closed_book(self, question: Question, heard: Heard) -> Trajectory:
        router = self._route(HearingPool(_Refusing(self.pool), heard), heard)
        return await router.play(question, player=heard.scope)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep the engine open while the block runs; only on the server's event loop."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def granted(self, scope: str, grant: Grant) -> AbstractContextManager[None]:
        """Count calls that are made past the router; see `Budget.granted`."""
        return self._budget.granted(scope, grant)

    async def drained(self) -> None:
        """Wait until no request is under way."""
        await self._idle.wait()

    async def aclose(self) -> None:
        """Close the pool and end the thread; requests still under way end in an error."""
        if self._remote is not None:
            await self._background.run(self._left(self._remote))
        await self.pool.aclose()
        if self.topics is not None:
            self.topics.close()
        self._background.stop()


class _Refusing(PoolWrapper):
    """A pool that is not asked."""

    async def ask(self, call: Call) -> Reply:
        """A failure."""
        return Reply(call.candidate, "", failure="unavailable", note="not asked")
