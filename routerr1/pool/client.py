"""HTTP pool with retries, circuit breakers and hard budgets, for any OpenAI-compatible server."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from pydantic import JsonValue
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from routerr1.pool.addresses import Access
from routerr1.pool.attempts import Completion, read_completion
from routerr1.pool.background import BackgroundLoop
from routerr1.pool.base import Call, Pool
from routerr1.pool.breaker import Breaker
from routerr1.pool.budget import Budget, QuestionBudgetSpent, Reservation
from routerr1.pool.failures import (
    TryError,
    described,
    status_failure,
    transport_failure,
    without_secrets,
)
from routerr1.pool.forward import Forwarded, Passing, Target
from routerr1.pool.listening import Listening
from routerr1.pool.pool_file import CandidateRow, Endpoint, PoolFile
from routerr1.pool.pricing import is_free, usage_usd, worst_case_usd
from routerr1.pool.tally import FailureTally
from routerr1.pool.transport import LaneTransport
from routerr1.types import BreakerState, Card, Failure, Reply, Usage

log = logging.getLogger(__name__)

_NO_KEY = "no-key-needed"  # the SDK insists on one
_Sender = Callable[["_Connections", CandidateRow, Call], Awaitable[Completion]]
"""Makes one try of a call."""


@dataclass
class _Bill:
    """What one call has used so far, over all its tries and candidates."""

    tries: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    latency_s: float = 0.0
    unseen: int = 0
    breaker_state: BreakerState | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, card: Card, usage: Usage, stated_usd: float | None) -> float:
        """Count one try's usage; returns its price in USD.

        Args:
            stated_usd: what the server says it costs; None: the card's prices count.
        """
        price = usage_usd(card, usage)
        if stated_usd == 0 and not is_free(card):
            self.notes.append("the server states no cost, priced by the pool file")
        elif stated_usd is not None:
            price = stated_usd
        self.usage += usage
        self.cost_usd += price
        return price

    def reply(
        self, model: str, text: str = "", failure: Failure | None = None, *, thoughts: str = ""
    ) -> Reply:
        """The call's reply, with all its tries on it."""
        if self.unseen:
            self.notes.append(f"{self.unseen} tries may be billed beyond what was reported")
        return Reply(
            model,
            text,
            self.usage.prompt_tokens,
            self.usage.completion_tokens,
            self.cost_usd,
            self.latency_s,
            retries=max(self.tries - 1, 0),
            failure=failure,
            breaker_state=self.breaker_state,
            note="; ".join(self.notes) or None,
            cached_prompt_tokens=self.usage.cached_prompt_tokens,
            reasoning_tokens=self.usage.reasoning_tokens,
            thoughts=thoughts,
        )


@dataclass(frozen=True)
class _Connections:
    """One endpoint: the SDK's client, and where requests are forwarded to over the same connections."""

    sdk: AsyncOpenAI
    target: Target


@dataclass(frozen=True)
class _Live:
    """Connections, and how many calls may use them at once."""

    clients: dict[str, _Connections]
    slots: dict[str, asyncio.Semaphore]
    all_slots: asyncio.Semaphore


class HttpPool(Pool):
    """The candidates of a pool file, over HTTP. It can be asked from any event loop.

    Args:
        keys: key of every endpoint, from `PoolFile.keys`.
        max_concurrency: limit of calls under way over all endpoints.
        budget: sets aside the worst-case price before every try. A try whose usage is unknown (cut
            off, timed out) stays counted at that price, because it may be billed.
        cards: profiled cards to show instead of the file's; prices stay the file's.
        seed: of the jitter between tries.
        environ: where the headers and proxies of the file find their variables; the process's if None.

    `Reply.latency_s` is the time of all tries, without the pauses between them and the wait for a free
    slot. `Reply.note` names fallbacks, failed tries and estimated usage.
    """

    def __init__(
        self,
        file: PoolFile,
        keys: Mapping[str, str],
        *,
        max_concurrency: int,
        budget: Budget | None = None,
        cards: Sequence[Card] | None = None,
        seed: int = 0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._file = file
        self._access = file.access(keys, os.environ if environ is None else environ)
        self._secrets = tuple(s for access in self._access.values() for s in access.secrets)
        self._max_concurrency = max_concurrency
        self._budget = budget
        self._priced = {card.name: card for card in file.cards}
        self.cards = tuple(cards) if cards is not None else file.cards
        self._random = Random(seed)
        self._breakers = {row.name: self._new_breaker(row) for row in file.candidates}
        self._background = BackgroundLoop("routerr1-http-pool")
        self._live: _Live | None = None
        self._closed = False
        self._tally = FailureTally()
        self._plain: set[str] = set()  # candidates whose last reply held no thoughts

    def _new_breaker(self, row: CandidateRow) -> Breaker:
        endpoint = self._file.endpoints[row.endpoint]
        return Breaker(endpoint.breaker_failures, endpoint.breaker_s, time.monotonic)

    def request(self, call: Call) -> dict[str, Any]:
        """The request body as it is sent."""
        return self._file.request(call)

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        if self._closed:
            raise RuntimeError("this pool is closed")
        if call.candidate not in self._breakers:
            return Reply(call.candidate, "", failure="unknown_model")
        return await self._background.run(self._tallied(call))

    async def listen(self, call: Call, hear: Callable[[str], None]) -> Reply:
        """`ask`, and hand over the reply while it is written, as far as its words are certain.

        A candidate whose chat template opens its thoughts shows only at their end that they were thoughts. So
        words are heard of a candidate whose last reply in this pool held no thoughts, from the second one on.

        Args:
            hear: called in another thread, with each new word or words of the reply.
        """
        if self._closed:
            raise RuntimeError("this pool is closed")
        if call.candidate not in self._breakers:
            return Reply(call.candidate, "", failure="unknown_model")
        listening = Listening(hear, self._secrets)

        async def send(endpoint: _Connections, row: CandidateRow, call: Call) -> Completion:
            total_s = self._file.endpoints[row.endpoint].total_s
            completion = await listening.send(
                endpoint.target, self._file, row, call.query, total_s, live=row.name in self._plain
            )
            return self._noted(row, completion)

        return await self._background.run(self._tallied(call, send))

    async def forward(
        self,
        call: Call,
        body: Mapping[str, JsonValue],
        emit: Callable[[bytes], None] | None = None,
    ) -> Forwarded:
        """Send a client's own request to a candidate, and give back what came, without keys of the pool.

        Retries, fallbacks, breakers and budgets are those of `ask`. Once a part of a stream is emitted,
        nothing is tried again.

        Args:
            call: the candidate, and all of the request as one text, by which its price is bounded.
            body: the request; model and sampling parameters of the pool file take the place of its own.
            emit: called in another thread with the JSON of each event of a stream; None asks for no stream.

        Raises: BudgetExceeded: the budget of the run, the month or a payer does not allow the call.
        """
        if self._closed:
            raise RuntimeError("this pool is closed")
        if call.candidate not in self._breakers:
            return Forwarded(Reply(call.candidate, "", failure="unknown_model"))
        passing = Passing(body, emit, self._secrets)

        async def send(endpoint: _Connections, row: CandidateRow, _: Call) -> Completion:
            total_s = self._file.endpoints[row.endpoint].total_s
            return await passing.send(endpoint.target, self._file, row, call.query, total_s)

        reply = await self._background.run(self._tallied(call, send))
        return Forwarded(reply, passing.content, emitted=passing.emitted, status=passing.status)

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make all calls on `loop`, which no computation holds up, in place of a thread's own.

        Raises: RuntimeError if calls were made already.
        """
        self._background.adopt(loop)

    def breaker_states(self) -> dict[str, BreakerState]:
        """The state of every candidate's circuit breaker."""
        return {name: breaker.state for name, breaker in self._breakers.items()}

    async def _tallied(self, call: Call, send: _Sender | None = None) -> Reply:
        reply = await self._ask(call, send or self._send)
        self._tally.add(call.candidate, reply)
        return reply

    async def _ask(self, call: Call, send: _Sender) -> Reply:
        if self._live is None:
            self._live = self._connect()
        live, bill, name = self._live, _Bill(), call.candidate
        for row in self._file.chain(name):
            try:
                completion: Completion = await self._retrying(row)(
                    self._try, live, row, call, bill, send
                )
            except QuestionBudgetSpent as refused:
                bill.notes.append(str(refused))
                return bill.reply(name, failure="budget")
            except TryError as failed:
                bill.notes.append(f"{row.name}: {described(failed, self._secrets)}")
                continue
            if row.name != name:
                bill.notes.append(f"answered by {row.name}, fallback of {name}")
            said, thoughts = (
                without_secrets(text, self._secrets)
                for text in (completion.text, completion.thoughts)
            )
            return bill.reply(row.name, said, thoughts=thoughts)
        return bill.reply(name, failure="unavailable")

    def _retrying(self, row: CandidateRow) -> AsyncRetrying:
        endpoint = self._file.endpoints[row.endpoint]

        def again(error: BaseException) -> bool:
            return (
                isinstance(error, TryError)
                and error.retry
                and (error.retry_after_s or 0.0) <= endpoint.max_wait_s
            )

        return AsyncRetrying(
            retry=retry_if_exception(again),
            stop=stop_after_attempt(endpoint.max_tries),
            wait=lambda state: self._pause_s(state, endpoint),
            reraise=True,
        )

    def _pause_s(self, state: RetryCallState, endpoint: Endpoint) -> float:
        """Full jitter: from 0 to a bound that doubles; never less than the server asked for."""
        bound = min(endpoint.backoff_s * 2 ** (state.attempt_number - 1), endpoint.max_wait_s)
        jittered = self._random.uniform(0, bound)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, TryError) else None
        return jittered if asked is None else asked + min(jittered, endpoint.backoff_s)

    async def _try(
        self, live: _Live, row: CandidateRow, call: Call, bill: _Bill, send: _Sender
    ) -> Completion:
        card, breaker = self._priced[row.name], self._breakers[row.name]
        worst_usd = worst_case_usd(card, call.query, self._file.reply_tokens(row))
        # The endpoint's slot first: one slow endpoint must not fill the slots of all.
        async with live.slots[row.endpoint], live.all_slots:
            # The state before the first try; later tries change it themselves.
            bill.breaker_state = bill.breaker_state or breaker.state
            with breaker.attempt(), self._reserve(worst_usd, call.scope) as reservation:
                bill.tries += 1
                started = time.perf_counter()
                try:
                    completion = await send(live.clients[row.endpoint], row, call)
                except TryError as failed:
                    reservation.cost_usd = self._failure_usd(failed, row, worst_usd, bill)
                    raise
                finally:
                    bill.latency_s += time.perf_counter() - started
                stated_usd = self._stated_usd(row, completion.cost_usd)
                reservation.cost_usd = bill.add(card, completion.usage, stated_usd)
        bill.notes.extend(completion.notes)
        return completion

    def _reserve(self, usd: float, scope: str | None) -> AbstractContextManager[Reservation]:
        if self._budget is None:
            return nullcontext(Reservation(usd))
        return self._budget.reserve(usd, scope)

    async def _send(self, endpoint: _Connections, row: CandidateRow, call: Call) -> Completion:
        total_s = self._file.endpoints[row.endpoint].total_s
        try:
            async with asyncio.timeout(total_s):
                # `chat.completions.create` refuses keywords that it does not know, which a pool file may
                # set, and takes twice the CPU time (0.7 against 0.34 ms), because it renames all keys.
                answer = await endpoint.sdk.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    body=self._file.request(Call(row.name, call.query)),
                )
            completion = read_completion(
                answer.content, call.query, headers=answer.headers, thoughts=row.thoughts
            )
            return self._noted(row, completion)
        except TimeoutError:
            raise TryError(
                f"no whole reply within {total_s:g} s", retry=True, billable=True
            ) from None
        except APIStatusError as error:
            raise status_failure(error) from None
        except APIConnectionError as error:
            raise transport_failure(error) from None

    def _noted(self, row: CandidateRow, completion: Completion) -> Completion:
        if completion.plain:
            self._plain.add(row.name)
        else:
            self._plain.discard(row.name)
        return completion

    def _failure_usd(
        self, failed: TryError, row: CandidateRow, worst_usd: float, bill: _Bill
    ) -> float:
        """What the budget counts for a failed try, in US dollars."""
        log.debug("%s: %s", row.name, failed.why)
        failed.__context__ = None  # its traceback holds the response's body
        if failed.usage is not None and failed.usage != Usage():
            stated_usd = self._stated_usd(row, failed.cost_usd)
            return bill.add(self._priced[row.name], failed.usage, stated_usd)
        if failed.billable:
            bill.unseen += 1
            return worst_usd
        return 0.0

    def _stated_usd(self, row: CandidateRow, cost_usd: float | None) -> float | None:
        return cost_usd if self._file.endpoints[row.endpoint].cost == "reported" else None

    def _connect(self) -> _Live:
        endpoints = {name: self._file.endpoints[name] for name in self._access}
        slots = {name: asyncio.Semaphore(each.max_concurrency) for name, each in endpoints.items()}
        clients = {name: self._client(each, self._access[name]) for name, each in endpoints.items()}
        return _Live(clients, slots, asyncio.Semaphore(self._max_concurrency))

    def _client(self, endpoint: Endpoint, access: Access) -> _Connections:
        transport = LaneTransport(
            self._file.max_reply_bytes, proxy=access.proxy, verify=access.context
        )
        # Without compression: a compressed reply could be small on the wire and huge in memory.
        http = httpx2.AsyncClient(
            transport=transport,
            headers={"accept-encoding": "identity"},
            params=access.query,
            trust_env=False,
        )
        timeout = httpx2.Timeout(endpoint.read_s, connect=endpoint.connect_s)
        sdk = AsyncOpenAI(
            api_key=access.key or _NO_KEY,
            base_url=endpoint.base_url,
            max_retries=0,
            default_headers=access.headers,
            http_client=http,
            timeout=timeout,
        )
        url = str(sdk.base_url.join("chat/completions"))
        headers = {**sdk.auth_headers, **access.headers}
        return _Connections(sdk, Target(http, url, headers, timeout))

    async def aclose(self) -> None:
        """Close the connections and the budget, and log which calls failed and why."""
        self._closed = True
        self._tally.log_once(self._file.path)
        if self._live is not None:
            for endpoint in self._live.clients.values():
                await self._background.run(endpoint.sdk.close())
            self._live = None
        self._background.stop()
        if self._budget is not None:
            self._budget.close()
