"""Who would answer right: known of simulated pools only, for controls and for judging calls."""

from typing import Protocol

from routerr1.pool.budget import BudgetedPool
from routerr1.pool.changed import ChangedPool
from routerr1.pool.interface import Pool
from routerr1.pool.recording import Recorder
from routerr1.simulation.pool import SimulatedPool


class Truth(Protocol):
    """Ground truth of a pool."""

    def knows(self, name: str, query: str) -> bool:
        """Would this candidate answer right?"""
        ...

    def is_best(self, name: str, query: str) -> bool | None:
        """Has nobody who is up a higher accuracy on the query's topic?

        None: the query has no topic, or the pool no such candidate.
        """
        ...


class _SimulatedTruth:
    """The truth behind a simulated pool, under the names that are shown: of those that are up, and of those `down`."""

    def __init__(self, pool: SimulatedPool, behind: dict[str, str], down: set[str]) -> None:
        self._pool = pool
        self._behind = behind
        self._down = down
        self._skill = {candidate.name: candidate.skill for candidate in pool.candidates}

    def knows(self, name: str, query: str) -> bool:
        return name in self._behind and self._pool.knows(self._behind[name], query)

    def is_best(self, name: str, query: str) -> bool | None:
        fact = self._pool.fact(query)
        if fact is None or name not in self._behind:
            return False if fact is not None and name in self._down else None
        accuracy = {
            shown: self._skill[inner].get(fact.topic, 0.0) for shown, inner in self._behind.items()
        }
        return accuracy[name] == max(accuracy.values())


def truth_of(pool: Pool) -> Truth | None:
    """The truth of `pool`, or None where nobody has it: real models, recorded replies.

    A candidate that is down knows nothing and is the best nowhere.
    """
    behind = {card.name: card.name for card in pool.cards}
    down: set[str] = set()
    while True:
        match pool:
            case SimulatedPool():
                return _SimulatedTruth(pool, behind, down)
            case ChangedPool():
                down |= {shown for shown, name in behind.items() if name in pool.down}
                behind = {
                    shown: pool.behind[name] for shown, name in behind.items() if shown not in down
                }
                pool = pool.inner
            case Recorder() | BudgetedPool():
                pool = pool.inner
            case _:
                return None
