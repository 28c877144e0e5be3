"""A pool under other cards: other names, prices or descriptions, fewer candidates, some of them down."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from routerr1.errors import PoolError
from routerr1.pool.budget import exhausted
from routerr1.pool.interface import Pool
from routerr1.pool.pricing import prices_of, reply_usd
from routerr1.types import Card, Reply


class ChangedPool:
    """Another pool under other cards.

    Args:
        cards: shown to the policy; their prices are what calls cost.
        behind: shown name -> candidate of `inner` that answers.
        down: shown names whose calls fail.

    Raises: PoolError if `inner` has no such candidate.
    """

    def __init__(
        self,
        inner: Pool,
        cards: Sequence[Card],
        behind: Mapping[str, str] | None = None,
        down: Collection[str] = (),
    ) -> None:
        self.inner = inner
        self.behind = dict(behind or {card.name: card.name for card in cards})
        self.down = frozenset(down)
        self._cards = {card.name: card for card in cards}
        self._prices = {card.name: prices_of(card) for card in inner.cards}
        self._shown = {name: shown for shown, name in self.behind.items()}
        missing = self._shown.keys() - self._prices.keys()
        if missing:
            raise PoolError(
                f"the pool has no candidate {min(missing)!r}, which the cards name; run the profile stage again"
            )

    @property
    def cards(self) -> tuple[Card, ...]:
        """See `Pool.cards`."""
        return tuple(self._cards.values())

    @property
    def exhausted(self) -> str | None:
        """See `budget.Budget.exhausted`."""
        return exhausted(self.inner)

    async def ask(self, name: str, query: str) -> Reply:
        """See `Pool.ask`; the reply carries the shown name of who answered, which may be a fallback."""
        if name not in self._cards:
            return Reply(name, "", failure="unknown_model")
        if name in self.down:
            return Reply(name, "", failure="unavailable", note="down")
        reply = await self.inner.ask(self.behind[name], query)
        if reply.model not in self._shown:
            return reply
        card = self._cards[self._shown[reply.model]]
        if prices_of(card) != self._prices[reply.model]:
            reply = replace(reply, cost_usd=reply_usd(card, reply))
        return replace(reply, model=card.name)

    async def aclose(self) -> None:
        """The inner pool belongs to who opened it."""
