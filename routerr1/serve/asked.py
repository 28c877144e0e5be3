"""One request on its way through the gateway, and what came of it."""

import time
import uuid
from dataclasses import dataclass, field

from routerr1.serve.engine import Engine
from routerr1.serve.requests import ChatRequest
from routerr1.serve.store import Key


@dataclass
class Asked:
    """One request on its way.

    Attributes:
        engine: that took the request; a version that takes over later leaves it alone.
        budget_usd: X-Budget-USD; None without one.
    """

    id: str
    request: ChatRequest
    engine: Engine
    key: Key | None = None
    budget_usd: float | None = None
    trace_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: float = field(default_factory=time.perf_counter)
    first_s: float | None = None

    @property
    def spend(self) -> float | None:
        """The spend level that the router heeds; None if it heeds none."""
        return self.request.spend if self.engine.identity.reads_spend else None

    def answered(self) -> None:
        """Note that the first visible token is decided."""
        if self.first_s is None:
            self.first_s = time.perf_counter() - self.began


@dataclass(frozen=True, slots=True)
class Outcome:
    """A question that was put to the router, and what came of it.

    Attributes:
        status: 200, or that of the error.
        answer: None without one.
    """

    asked: Asked
    question: str
    status: int
    seconds: float
    cost_usd: float
    answer: str | None

    @property
    def failed(self) -> bool:
        """Whether the router is to blame: a client that leaves or a spent budget says nothing of it."""
        return self.status >= 500
