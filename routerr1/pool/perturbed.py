"""A pool under other cards: other names, prices or descriptions, fewer candidates, some unavailable."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from routerr1.errors import PoolError
from routerr1.pool.base import Call, GroundTruth, Pool, PoolWrapper
from routerr1.pool.pricing import prices_of, reply_usd
from routerr1.types import Card, Reply


class PerturbedPool(PoolWrapper):
    """Another pool under other cards.

    Args:
        cards: shown to the policy; their prices are what calls cost.
        behind: shown name -> candidate of `inner` that answers; the same names by default.
        down: shown names whose calls fail.

    Several shown names can have the same candidate behind them.

    Raises: PoolError if `inner` has no such candidate.
    """

    def __init__(
        self,
        inner: Pool,
        cards: Sequence[Card],
        behind: Mapping[str, str] | None = None,
        down: Collection[str] = (),
    ) -> None:
        super().__init__(inner)
        self.cards = tuple(cards)
        self._by_name = {card.name: card for card in cards}
        self.behind = dict(behind or {name: name for name in self._by_name})
        self.down = frozenset(down)
        self._prices = {card.name: prices_of(card) for card in inner.cards}
        self._shown = {name: shown for shown, name in self.behind.items()}
        missing = self._shown.keys() - self._prices.keys()
        if missing:
            raise PoolError(
                f"the pool has no candidate {min(missing)!r}, which the cards name; "
                "run the profile stage again"
            )

    @property
    def ground_truth(self) -> GroundTruth | None:
        """The inner pool's, under the shown names; an unavailable candidate knows nothing."""
        truth = self.inner.ground_truth
        return None if truth is None else _ShownTruth(truth, self.behind, self.down)

    def request(self, call: Call) -> dict[str, Any]:
        """The inner pool's request for the candidate behind the shown name."""
        return self.inner.request(self._inner_call(call))

    def behind_name(self, candidate: str) -> str:
        """The inner pool's, of the candidate behind the shown name."""
        return self.inner.behind_name(self.behind.get(candidate, candidate))

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`; `Reply.model` is the shown name, of the fallback if a fallback answered."""
        if call.candidate not in self._by_name:
            return Reply(call.candidate, "", failure="unknown_model")
        if call.candidate in self.down:
            return Reply(call.candidate, "", failure="unavailable", note="down")
        reply = await self.inner.ask(self._inner_call(call))
        if reply.model not in self._shown:
            return reply
        own = self.behind[call.candidate] == reply.model
        card = self._by_name[call.candidate if own else self._shown[reply.model]]
        if prices_of(card) != self._prices[reply.model]:
            reply = replace(reply, cost_usd=reply_usd(card, reply))
        return replace(reply, model=card.name)

    async def aclose(self) -> None:
        """Do nothing: several perturbed pools share one inner pool, which its opener closes."""

    def _inner_call(self, call: Call) -> Call:
        return replace(call, candidate=self.behind.get(call.candidate, call.candidate))


class _ShownTruth:
    """Ground truth under the names of a `PerturbedPool`."""

    def __init__(
        self, inner: GroundTruth, behind: Mapping[str, str], down: Collection[str]
    ) -> None:
        self._inner = inner
        self.behind = behind
        self._down = down

    def knows(self, candidate: str, query: str) -> bool:
        if candidate not in self.behind or candidate in self._down:
            return False
        return self._inner.knows(self.behind[candidate], query)

    def accuracy(self, candidate: str, query: str) -> float | None:
        if candidate not in self.behind:
            return None
        found = self._inner.accuracy(self.behind[candidate], query)
        return 0.0 if found is not None and candidate in self._down else found
