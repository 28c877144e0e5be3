"""A canary: another version answers a share of users, and returns by itself when it does worse."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest, quantile_test

from routerr1 import files
from routerr1.config import CanaryParams
from routerr1.serve.asked import Outcome
from routerr1.serve.engine import Engine
from routerr1.serve.feedback import RIGHT
from routerr1.serve.gateway import Gateway
from routerr1.serve.second import MOST_AT_ONCE, SecondAnswers, right_by_reference
from routerr1.serve.store import RequestRow
from routerr1.serve.tracing import sampled

RETURNED = Path("runs/canary")
_WINDOW = 500  # latest requests of each side that are compared
_CONFIDENCE = (
    0.99  # the comparison is made after every request, so a loose one would return by chance
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    failed: bool
    seconds: float


class Canary:
    """Sends a fixed share of users to a version, and compares what it does with the champion.

    Args:
        engine: of the canary version.
    """

    def __init__(self, gateway: Gateway, engine: Engine, params: CanaryParams) -> None:
        self._gateway = gateway
        self._engine = engine
        self._params = params
        self._seen: dict[bool, deque[_Seen]] = {
            side: deque(maxlen=_WINDOW) for side in (True, False)
        }
        self._scores: dict[bool, dict[str, float]] = {True: {}, False: {}}
        self._right: dict[bool, deque[float]] = {
            side: deque(maxlen=_WINDOW) for side in (True, False)
        }
        self._verdicts: deque[float] = deque(maxlen=_WINDOW)
        self._champion = gateway.engine.identity.label
        self._comparing: set[asyncio.Task[None]] = set()
        self._second = SecondAnswers(
            "canary", engine.identity.label, budget_usd=params.budget_usd, judge=params.judge,
            timeout_s=gateway.params.timeout_s,
        )  # fmt: skip
        self.returned: str | None = None

    def choose(self, sticky: str) -> Engine | None:
        """The canary's engine for users of its share; None for all others, and once it has returned."""
        champion = self._gateway.engine.identity.label
        if self.returned is not None or champion == self._engine.identity.label:
            return None
        label = self._engine.identity.label
        return self._engine if sampled(f"{label}/{sticky}", self._params.share) else None

    def observe(self, outcome: Outcome) -> None:
        """Count an outcome; the canary returns if it does worse. Only on the server's event loop."""
        if self.returned is not None or 400 <= outcome.status < 500:
            return
        own = self._side(outcome.asked.engine.identity.label)
        if own is None:
            return
        self._seen[own].append(_Seen(outcome.failed, outcome.seconds))
        known = outcome.asked.request.metadata or {}
        right = right_by_reference(outcome.answer or "", known)
        if right is not None:
            self._right[own].append(right)
        self._judge()
        wanted = (
            own
            and outcome.answer is not None
            and self._params.judge is not None
            and self._second.stopped is None
            and self.returned is None
            and len(self._comparing) < MOST_AT_ONCE
            and sampled(f"judged/{outcome.asked.id}", self._params.judged)
        )
        if wanted:
            task = asyncio.ensure_future(self._compare(outcome))
            self._comparing.add(task)
            task.add_done_callback(self._comparing.discard)

    async def _compare(self, outcome: Outcome) -> None:
        """Let the champion answer too, and the judge say which answer is better."""
        champion = self._gateway.engine
        found = await self._second.play(outcome, champion)
        current = self._side(champion.identity.label) is False
        if found is not None and found.verdict is not None and self.returned is None and current:
            self._verdicts.append(-found.verdict)  # of the canary over the champion
            self._judge()

    async def finish(self) -> None:
        """Compare no further answers."""
        for task in self._comparing:
            task.cancel()
        await asyncio.gather(*self._comparing, return_exceptions=True)

    def scored(self, request: RequestRow, score: float) -> None:
        """Count a user's latest word on a request; only on the server's event loop."""
        own = self._side(request.version)
        if self.returned is not None or own is None or request.model != self._engine.identity.name:
            return
        scores = self._scores[own]
        scores[request.id] = score
        if len(scores) > _WINDOW:
            del scores[next(iter(scores))]
        self._judge()

    def _side(self, version: str) -> bool | None:
        """Whether a version is the canary's; None if it is neither that nor the present champion's.

        What an earlier champion did is forgotten.
        """
        champion = self._gateway.engine.identity.label
        if champion != self._champion:
            self._champion = champion
            for counted in (self._seen[False], self._scores[False], self._right[False]):
                counted.clear()
            self._verdicts.clear()
        own = self._engine.identity.label
        return version == own if version in (own, champion) else None

    def _judge(self) -> None:
        why = self._worse()
        if why is None:
            return
        self.returned, label = why, self._engine.identity.label
        _log.error("the canary %s returns: %s", label, why)
        self._gateway.metrics.refused_versions.labels("canary").inc()
        files.write_json(RETURNED / f"{label}.json", {"version": label, "why": why})
        self._gateway.retire(self._engine)

    def _worse(self) -> str | None:
        own, other = list(self._seen[True]), list(self._seen[False])
        least = self._params.min_requests
        if len(own) >= least and len(other) >= least:
            errors = [sum(each.failed for each in side) for side in (own, other)]
            if more_often(errors[0], len(own), errors[1], len(other)):
                return f"{errors[0]} of {len(own)} requests failed, {errors[1]} of {len(other)} of the champion"
            ratio = self._params.max_latency_ratio
            if slower([e.seconds for e in own], [e.seconds for e in other], ratio):
                return f"its median latency is over {ratio:g} times that of the champion"
        scores = self._scores
        if min(len(scores[True]), len(scores[False])) >= least:
            wrong = [
                sum(score <= RIGHT for score in scores[side].values()) for side in (True, False)
            ]
            if more_often(wrong[0], len(scores[True]), wrong[1], len(scores[False])):
                return f"users call {wrong[0]} of {len(scores[True])} answers wrong"
        right = self._right
        if min(len(right[True]), len(right[False])) >= least:
            wrong = [sum(each <= RIGHT for each in right[side]) for side in (True, False)]
            if more_often(wrong[0], len(right[True]), wrong[1], len(right[False])):
                return f"{wrong[0]} of {len(right[True])} answers are wrong by their references"
        if len(self._verdicts) >= least:
            worse, better = (sum(each * side > 0 for each in self._verdicts) for side in (-1, 1))
            if more_than_half(worse, worse + better):
                return f"the judge finds {worse} of {len(self._verdicts)} answers worse, and {better} better"
        return None


def more_often(count: int, total: int, other_count: int, other_total: int) -> bool:
    """Whether a share is above another: their intervals (Wilson, 99 %) do not meet.

    >>> more_often(20, 50, 1, 50), more_often(3, 50, 1, 50)
    (True, False)
    """
    low = binomtest(count, total).proportion_ci(_CONFIDENCE, "wilson").low
    high = binomtest(other_count, other_total).proportion_ci(_CONFIDENCE, "wilson").high
    return bool(low > high)


def more_than_half(count: int, total: int) -> bool:
    """Whether a share is above one half: its interval (Wilson, 99 %) does not reach it.

    >>> more_than_half(10, 10), more_than_half(6, 10), more_than_half(0, 0)
    (True, False, False)
    """
    if not total:
        return False
    return bool(binomtest(count, total).proportion_ci(_CONFIDENCE, "wilson").low > 0.5)


def slower(seconds: Sequence[float], others: Sequence[float], ratio: float) -> bool:
    """Whether the median is over `ratio` times another one, by their 99 % intervals.

    >>> slower([3.0] * 40, [1.0] * 40, 1.5), slower([1.1] * 40, [1.0] * 40, 1.5)
    (True, False)
    """
    own = quantile_test(seconds).confidence_interval(_CONFIDENCE)
    other = quantile_test(others).confidence_interval(_CONFIDENCE)
    return bool(own.low > ratio * other.high)


def has_returned(label: str) -> bool:
    """Whether a version returned before; it is not tried again until its file is removed."""
    return (RETURNED / f"{label}.json").is_file()
