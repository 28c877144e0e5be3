"""The one interface to candidates: a call goes in, a reply comes out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from routerr1.pool.tally import FailureTally
from routerr1.types import Card, Reply


@dataclass(frozen=True, slots=True)
class Call:
    """One question to one candidate.

    Attributes:
        candidate: canonical name of the candidate.
        scope: the rollout that makes the call. A question's budget is counted per scope, and a
            replay answers each scope as it was answered before. None: the call belongs to no rollout.
    """

    candidate: str
    query: str
    scope: str | None = None


class GroundTruth(Protocol):
    """What is known about a pool whose candidates are made up; real models have no such knowledge."""

    def knows(self, candidate: str, query: str) -> bool:
        """True if the candidate would answer correctly; False if it is unavailable."""
        ...

    def accuracy(self, candidate: str, query: str) -> float | None:
        """Accuracy on the query's topic, in [0, 1]; 0 if the candidate is unavailable.

        None if the query has no topic or the pool has no such candidate.
        """
        ...


class Pool(ABC):
    """Candidates that can be asked.

    A candidate's failure is a Reply with `failure` set, never an exception, so that no caller can
    mistake it for an answer. `ask` raises `BudgetExceeded` when the budget of the run or month is
    spent: no later call can be made either. A spent budget of one question is a Reply with
    `failure="budget"`.

    Attributes:
        cards: one card per candidate, in the order the prompt shows them.
        tally: counts the failed calls; None where nothing counts them.
    """

    cards: Sequence[Card]
    tally: FailureTally | None = None

    @property
    def ground_truth(self) -> GroundTruth | None:
        """Which candidates answer correctly; None for real models."""
        return None

    def request(self, call: Call) -> dict[str, Any]:
        """The request body of a call: model, messages and sampling parameters. Recordings hash it.

        Raises: PoolError if there is no such candidate.
        """
        return plain_request(call)

    def behind_name(self, candidate: str) -> str:
        """The candidate that answers for `candidate`: itself, unless it is shown under another name."""
        return candidate

    @abstractmethod
    async def ask(self, call: Call) -> Reply:
        """Make one call.

        Raises:
            BudgetExceeded: the budget of the run or month does not allow the call.
            RuntimeError: the pool is closed.
        """

    async def aclose(self) -> None:  # noqa: B027 - most pools hold nothing
        """Release connections and files; nothing by default."""


class PoolWrapper(Pool):
    """A pool around another pool. Whatever a subclass does not override is the inner pool's."""

    def __init__(self, inner: Pool) -> None:
        self.inner = inner
        self.cards = inner.cards
        self.tally = inner.tally

    @property
    def ground_truth(self) -> GroundTruth | None:
        """The inner pool's ground truth."""
        return self.inner.ground_truth

    def request(self, call: Call) -> dict[str, Any]:
        """The inner pool's request."""
        return self.inner.request(call)

    def behind_name(self, candidate: str) -> str:
        """The inner pool's."""
        return self.inner.behind_name(candidate)

    async def ask(self, call: Call) -> Reply:
        """The inner pool's reply."""
        return await self.inner.ask(call)

    async def aclose(self) -> None:
        """Close the inner pool."""
        await self.inner.aclose()


def plain_request(call: Call) -> dict[str, Any]:
    """The request of a pool without sampling parameters."""
    return {"model": call.candidate, "messages": [{"role": "user", "content": call.query}]}


def is_best(pool: Pool, candidate: str, query: str) -> bool | None:
    """True if no available candidate of `pool` is more accurate on the query's topic.

    None without ground truth, for a query without a topic, and for a candidate not in the pool.
    """
    truth = pool.ground_truth
    accuracies = (
        {card.name: truth.accuracy(card.name, query) for card in pool.cards} if truth else {}
    )
    accuracy = accuracies.get(candidate)
    if accuracy is None:
        return None
    return accuracy > 0 and accuracy == max(
        each for each in accuracies.values() if each is not None
    )
