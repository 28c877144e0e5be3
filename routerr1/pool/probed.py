"""What was asked in profiling is not asked again."""

from collections.abc import Iterable, Sequence

from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.pool.profile import ProbeRow
from routerr1.types import Card, Reply


class UnreachablePool(Pool):
    """Candidates that do not answer: what stays in place of a pool that must not be paid."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self.cards = tuple(cards)

    async def ask(self, call: Call) -> Reply:
        """A failed call."""
        return Reply(call.candidate, "", failure="unavailable", note="was not asked in profiling")


class ProbedPool(PoolWrapper):
    """Answers a probe question as its candidate answered it in profiling; `inner` is asked all others.

    A call that failed then is made again.

    Attributes:
        paid_usd: cost of the calls that `inner` made and had not recorded.
    """

    def __init__(self, inner: Pool, rows: Iterable[ProbeRow]) -> None:
        super().__init__(inner)
        self.paid_usd = 0.0
        self._known = {
            (row["candidate"], row["question"]): Reply(
                row["candidate"],
                row["answer"],
                row["prompt_tokens"],
                row["completion_tokens"],
                row["cost_usd"],
                row["latency_s"],
                cached=True,
            )
            for row in rows
            if row["failure"] is None
        }

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        known = self._known.get((call.candidate, call.query))
        if known is not None:
            return known
        reply = await self.inner.ask(call)
        self.paid_usd += 0.0 if reply.cached else reply.cost_usd
        return reply
