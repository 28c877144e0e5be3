"""A pool whose candidates understand a question that is worded otherwise.

Simulated and recorded candidates know questions word by word, where a real model sees through a typo or
another phrasing. Here they get what was meant. What a policy makes of the wording is still its own.
"""

import re
from dataclasses import replace

from routerr1.data.rewording import Reworded
from routerr1.matching import normalise
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.types import Reply

_WORD = re.compile(r"[^\W_]+")


class UnderstandingPool(PoolWrapper):
    """`inner`, which is asked what a reworded question means.

    Args:
        worded: the one question that is played here.
    """

    def __init__(self, inner: Pool, worded: Reworded) -> None:
        super().__init__(inner)
        self._asked = normalise(worded.question.question)
        self._worded = worded

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        return await self.inner.ask(replace(call, query=self._meant(call.query)))

    async def aclose(self) -> None:
        """Do nothing: many of these share one inner pool, which its opener closes."""

    def _meant(self, query: str) -> str:
        if normalise(query) == self._asked:
            return self._worded.original
        fixes = self._worded.fixes
        return _WORD.sub(lambda found: fixes.get(found[0].lower(), found[0]), query)
