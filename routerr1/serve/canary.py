"""A canary: another version answers a share of users, and returns by itself when it does worse."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from scipy.stats import binomtest, quantile_test
from sqlalchemy.exc import SQLAlchemyError

from routerr1 import files
from routerr1.config import CanaryParams
from routerr1.serve.asked import Outcome
from routerr1.serve.engine import Engine
from routerr1.serve.feedback import RIGHT
from routerr1.serve.gateway import Gateway
from routerr1.serve.second import MOST_AT_ONCE, SecondAnswers, right_by_reference
from routerr1.serve.store import RequestRow, TrialRow
from routerr1.serve.tracing import sampled
from routerr1.serve.windows import Seen, Windows, add, read_windows

RETURNED = Path("runs/canary")
_DAY_S = 86_400.0  # what is older says little of today
_CONFIDENCE = (
    0.99  # the comparison is made after every request, so a loose one would return by chance
)
_log = logging.getLogger(__name__)


class Canary:
    """Sends a fixed share of users to a version, and compares what it does with the champion.

    Gateways that share a database compare what all of them saw; so does one that is started again.

    Args:
        engine: of the canary version.
        every_s: between looks at what others saw; they come with requests.
    """

    def __init__(
        self, gateway: Gateway, engine: Engine, params: CanaryParams, *, every_s: float = 10.0
    ) -> None:
        self._gateway = gateway
        self._engine = engine
        self._params = params
        self._windows = Windows()
        self._every_s, self._looked_s = every_s, -math.inf
        self._looking: asyncio.Task[None] | None = None
        self._took_s, self._began_s = time.time(), math.nan  # nan until the database was asked
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
        number = outcome.asked.id
        add(self._windows.seen[own], {number: Seen(outcome.failed, outcome.seconds)})
        known = outcome.asked.request.metadata or {}
        right = right_by_reference(outcome.answer or "", known)
        if right is not None:
            add(self._windows.right[own], {number: right})
            self._keep("reference", outcome.asked.engine.identity.label, number, right)
        self._judge()
        self._look_if_due()
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
            number, better = outcome.asked.id, -found.verdict  # of the canary over the champion
            add(self._windows.verdicts, {number: better})
            self._keep("judge", champion.identity.label, number, better)
            self._judge()

    async def finish(self) -> None:
        """Compare no further answers."""
        under_way = [*self._comparing, *([] if self._looking is None else [self._looking])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _keep(
        self, kind: Literal["reference", "judge"], version: str, number: str, value: float
    ) -> None:
        label = self._engine.identity.label
        self._gateway.keep(TrialRow(label, time.time(), kind, version, number, value))

    def _look_if_due(self) -> None:
        """Take in what others saw, and what was seen before this gateway was started, in a while."""
        now = time.monotonic()
        idle = self._looking is None or self._looking.done()
        kept = self._gateway.params.keep != "none"
        if self.returned is None and kept and idle and now - self._looked_s >= self._every_s:
            self._looked_s = now
            self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        champion = self._champion
        try:
            found, ended = await asyncio.to_thread(self._read, champion)
        except SQLAlchemyError as error:
            first = str(error).splitlines()[0]
            _log.warning("the canary is compared by what this gateway saw alone: %s", first)
            return
        if self.returned is not None:
            return
        if ended is not None:
            self._return(ended)
        elif champion == self._champion:
            self._windows.merge(found)
            self._judge()

    def _read(self, champion: str) -> tuple[Windows, str | None]:
        """What all gateways saw in this trial, and why one of them ended it."""
        store, canary = self._gateway.store, self._engine.identity
        if math.isnan(self._began_s):
            self._began_s = store.join_trial(canary.label, self._took_s)
        since_s = max(self._began_s, time.time() - _DAY_S)
        found = read_windows(store, canary.label, champion, canary.name, since_s)
        return found, store.trial_ended(canary.label, self._began_s)

    def scored(self, request: RequestRow, score: float) -> None:
        """Count a user's latest word on a request; only on the server's event loop."""
        own = self._side(request.version)
        if self.returned is not None or own is None or request.model != self._engine.identity.name:
            return
        add(self._windows.scores[own], {request.id: score})
        self._judge()

    def _side(self, version: str) -> bool | None:
        """Whether a version is the canary's; None if it is neither that nor the present champion's.

        What an earlier champion did is forgotten.
        """
        champion = self._gateway.engine.identity.label
        if champion != self._champion:
            self._champion = champion
            self._windows.forget_champion()
        own = self._engine.identity.label
        return version == own if version in (own, champion) else None

    def _judge(self) -> None:
        why = self._worse()
        if why is None:
            return
        label = self._engine.identity.label
        self._gateway.keep(TrialRow(label, time.time(), "returned", label, why=why))
        self._return(why)

    def _return(self, why: str) -> None:
        self.returned, label = why, self._engine.identity.label
        _log.error("the canary %s returns: %s", label, why)
        self._gateway.metrics.refused_versions.labels("canary").inc()
        files.write_json(RETURNED / f"{label}.json", {"version": label, "why": why})
        self._gateway.retire(self._engine)

    def _worse(self) -> str | None:
        windows = self._windows
        own, other = list(windows.seen[True].values()), list(windows.seen[False].values())
        least = self._params.min_requests
        if len(own) >= least and len(other) >= least:
            errors = [sum(each.failed for each in side) for side in (own, other)]
            if more_often(errors[0], len(own), errors[1], len(other)):
                return f"{errors[0]} of {len(own)} requests failed, {errors[1]} of {len(other)} of the champion"
            ratio = self._params.max_latency_ratio
            if slower([e.seconds for e in own], [e.seconds for e in other], ratio):
                return f"its median latency is over {ratio:g} times that of the champion"
        scores = windows.scores
        if min(len(scores[True]), len(scores[False])) >= least:
            wrong = [
                sum(score <= RIGHT for score in scores[side].values()) for side in (True, False)
            ]
            if more_often(wrong[0], len(scores[True]), wrong[1], len(scores[False])):
                return f"users call {wrong[0]} of {len(scores[True])} answers wrong"
        right = windows.right
        if min(len(right[True]), len(right[False])) >= least:
            wrong = [sum(each <= RIGHT for each in right[side].values()) for side in (True, False)]
            if more_often(wrong[0], len(right[True]), wrong[1], len(right[False])):
                return f"{wrong[0]} of {len(right[True])} answers are wrong by their references"
        verdicts = windows.verdicts.values()
        if len(verdicts) >= least:
            worse, better = (sum(each * side > 0 for each in verdicts) for side in (-1, 1))
            if more_than_half(worse, worse + better):
                return (
                    f"the judge finds {worse} of {len(verdicts)} answers worse, and {better} better"
                )
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
