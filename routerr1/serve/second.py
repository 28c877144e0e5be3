"""A second answer to a request that was answered, by another version, and which of the two is better."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from routerr1.answers.verifiers import verifiers, verify
from routerr1.errors import BudgetExceeded, RouterError
from routerr1.matching import exact_match
from routerr1.pool.base import Call
from routerr1.pool.budget import Grant, Payer
from routerr1.pool.judge import Judge
from routerr1.serve.answers import require_answer
from routerr1.serve.asked import Outcome
from routerr1.serve.engine import Engine
from routerr1.serve.errors import ApiError
from routerr1.serve.hearing import Heard
from routerr1.serve.requests import metadata_of
from routerr1.types import Question

MOST_AT_ONCE = 32  # beyond this a request gets no second answer
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Second:
    """What another version made of a request.

    Attributes:
        same: the answer equals the first one.
        verdict: how much better it is than the first, in [-1, 1]; None if nothing could judge.
        failed: there is no answer.
    """

    same: bool
    verdict: float | None
    failed: bool
    seconds: float
    cost_usd: float


class SecondAnswers:
    """Plays requests again, with calls that a budget of their own pays.

    Args:
        use: what second answers are for, in scopes and as payer.
        judge: candidate that compares two answers that differ; None leaves them unjudged.

    Attributes:
        stopped: why there are no more; None while there are.
    """

    def __init__(
        self, use: str, label: str, *, budget_usd: float, judge: str | None, timeout_s: float
    ) -> None:
        self._use, self._label = use, label
        self._budget_usd, self._judge, self._timeout_s = budget_usd, judge, timeout_s
        self.stopped: str | None = None

    async def play(self, outcome: Outcome, engine: Engine) -> Second | None:
        """The answer of `engine` beside that of `outcome`; None once the budget is spent."""
        asked = outcome.asked
        metadata = metadata_of(asked.request)
        question = Question(asked.id, self._use, outcome.question, (), "test", metadata=metadata)
        heard = Heard(f"{self._use}/{asked.id}", asked.key.candidates if asked.key else None)
        began = time.perf_counter()
        said: str | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                said = require_answer(await engine.play(question, heard, self._grant()))
        except BudgetExceeded as spent:
            self._stop(str(spent))
            return None
        except (ApiError, RouterError, TimeoutError) as error:
            _log.info("%s gave no second answer: %s", engine.identity.label, error)
        seconds = time.perf_counter() - began
        same = said is not None and exact_match(said, [outcome.answer or ""]) == 1.0
        verdict: float | None = -1.0 if said is None else 0.0
        if said is not None and not same:
            verdict = await self._compared(outcome, said, engine)
        cost_usd = sum(reply.cost_usd for reply in heard.replies)
        return Second(same, verdict, said is None, seconds, cost_usd)

    def _grant(self) -> Grant:
        return Grant(payers=(Payer(f"{self._use} {self._label}", self._budget_usd),))

    async def _compared(self, outcome: Outcome, said: str, engine: Engine) -> float | None:
        """The verdict on two answers that differ; None if nothing can judge them."""
        known = outcome.asked.request.metadata or {}
        verified = verdict_by_reference(outcome.answer or "", said, known)
        return await self._judged(outcome, said, engine) if verified is None else verified

    async def _judged(self, outcome: Outcome, said: str, engine: Engine) -> float | None:
        """The judge's verdict on two answers; see `Judge.compare`."""
        candidate = self._judge
        if candidate is None:
            return None
        scope = f"judge/{outcome.asked.id}"
        judge = Judge(lambda prompt: engine.pool.ask(Call(candidate, prompt, scope)))
        try:
            with engine.granted(scope, self._grant()):
                return await judge.compare(outcome.question, outcome.answer or "", said)
        except BudgetExceeded as spent:
            self._stop(str(spent))
            return None

    def _stop(self, why: str) -> None:
        if self.stopped is None:
            self.stopped = why
            _log.warning("the %s %s stops: %s", self._use, self._label, why)


def right_by_reference(said: str, known: Mapping[str, JsonValue]) -> float | None:
    """How right an answer is by the request's `metadata.reference`, in [0, 1]; None without one.

    `metadata.task` names the verifier, `short` if it is missing.

    >>> right_by_reference("2000 m", {"reference": "2 km", "task": "number"})
    1.0
    """
    reference, task = known.get("reference"), known.get("task", "short")
    if not isinstance(reference, str) or task not in verifiers():
        return None
    options = known.get("options")
    of_task = {"task": task, "options": options if isinstance(options, list) else []}
    return verify(said, [reference], "text", of_task)


def verdict_by_reference(first: str, second: str, known: Mapping[str, JsonValue]) -> float | None:
    """How much more right the second answer is; None without a reference, see `right_by_reference`.

    >>> known = {"reference": "2 km", "task": "number"}
    >>> verdict_by_reference("2 m", "2000 m", known), verdict_by_reference("2", "3", {"task": "number"})
    (1.0, None)
    """
    one, other = (right_by_reference(said, known) for said in (first, second))
    return None if one is None or other is None else other - one
