"""A shadow: another version answers a share of the requests again, beside the answer and never shown."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from routerr1 import files
from routerr1.config import ShadowParams
from routerr1.errors import RouterError
from routerr1.evaluate.stats import Difference, paired_difference
from routerr1.registry.shadow_report import ShadowReport
from routerr1.serve.asked import Outcome
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.gateway import Gateway
from routerr1.serve.second import MOST_AT_ONCE, SecondAnswers
from routerr1.serve.store import PairRow
from routerr1.serve.tracing import sampled

REPORTS = Path("runs/shadow")
_FIRST_REPORT = 25  # pairs; the next ones come at twice as many each
_log = logging.getLogger(__name__)


class Shadow:
    """Plays a version on a sample of the answered requests, and keeps both answers' figures as a pair.

    Args:
        engine: of the shadowing version.
        publish: is handed a report beside the present champion, at 25, 50, 100, ... pairs and at the end.
    """

    def __init__(
        self,
        gateway: Gateway,
        engine: Engine,
        params: ShadowParams,
        publish: Callable[[Identity, ShadowReport], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self._publish = publish
        self._counted: dict[str, int] = {}  # pairs with each champion, as last seen
        self._engine = engine
        self._params = params
        self._playing: set[asyncio.Task[None]] = set()
        self._second = SecondAnswers(
            "shadow", engine.identity.label, budget_usd=params.budget_usd, judge=params.judge,
            timeout_s=gateway.params.timeout_s,
        )  # fmt: skip

    @property
    def stopped(self) -> str | None:
        """Why it plays no further requests; None while it does."""
        return self._second.stopped

    def observe(self, outcome: Outcome) -> None:
        """Play the question again if it is among the sample; only on the server's event loop."""
        champion = outcome.asked.engine.identity.label
        wanted = (
            outcome.answer is not None
            and self.stopped is None
            and champion != self._engine.identity.label
            and len(self._playing) < MOST_AT_ONCE
            and sampled(outcome.asked.id, self._params.share)
        )
        if wanted:
            task = asyncio.ensure_future(self._play(outcome))
            self._playing.add(task)
            task.add_done_callback(self._playing.discard)

    async def finish(self) -> None:
        """Write the report, after the questions that are being played; they have `serve.drain_s` left."""
        if self._playing:
            _, late = await asyncio.wait(self._playing, timeout=self._gateway.params.drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.to_thread(self.write_report)
        await asyncio.to_thread(self.publish)

    async def _play(self, outcome: Outcome) -> None:
        asked, label = outcome.asked, self._engine.identity.label
        found = await self._second.play(outcome, self._engine)
        if found is None:
            return
        if not math.isfinite(found.cost_usd) or not math.isfinite(outcome.cost_usd):
            _log.warning(
                "request %s has a cost that is not finite; it becomes no pair of the shadow %s",
                asked.id, label,
            )  # fmt: skip
            return
        row = PairRow(
            request_id=asked.id,
            shadow=label,
            champion=asked.engine.identity.label,
            at_s=time.time(),
            same=found.same,
            verdict=found.verdict,
            failed=found.failed,
            champion_usd=outcome.cost_usd,
            shadow_usd=found.cost_usd,
            champion_s=outcome.seconds,
            shadow_s=found.seconds,
        )
        await asyncio.to_thread(self._gateway.store.write_pair, row)
        if await asyncio.to_thread(self._is_due, row.champion):
            await asyncio.to_thread(self.publish)

    def _is_due(self, champion: str) -> bool:
        """Whether the pairs with a champion have become enough for another report since the last look."""
        count = self._gateway.store.count_pairs(self._engine.identity.label, champion)
        before = self._counted.get(champion, count - 1)
        self._counted[champion] = count
        return reports_at(before) != reports_at(count)

    def write_report(self) -> Path | None:
        """Write the paired report so far, as a page and as JSON; None without a pair."""
        label = self._engine.identity.label
        return write_report(label, self._gateway.store.pairs(label))

    def publish(self) -> None:
        """Hand out the report beside the present champion; one that does not arrive is logged."""
        champion, own = self._gateway.engine.identity, self._engine.identity
        pairs = self._gateway.store.pairs(own.label)
        found = report_of([pair for pair in pairs if pair.champion == champion.label], champion)
        if self._publish is None or found is None:
            return
        try:
            self._publish(own, found)
        except RouterError as error:
            _log.warning("the report of the shadow %s is not published: %s", own.label, error)


def reports_at(num_pairs: int) -> int:
    """How many reports there have been by then.

    >>> [reports_at(count) for count in (0, 24, 25, 49, 50, 99, 100)]
    [0, 0, 1, 1, 2, 2, 3]
    """
    return (num_pairs // _FIRST_REPORT).bit_length()


def report_of(pairs: Sequence[PairRow], champion: Identity) -> ShadowReport | None:
    """What the gate is told of pairs with one champion; None without a pair."""
    if not pairs:
        return None
    found = _verdict(pairs)
    return ShadowReport(
        champion=champion.version,
        pairs=len(pairs),
        verdict=found.mean,
        low=found.low,
        high=found.high,
    )


def write_report(label: str, pairs: Sequence[PairRow]) -> Path | None:
    """Write runs/shadow/LABEL.md and .json: paired differences, shadow minus champion, with intervals."""
    if not pairs:
        return None
    differing = [pair for pair in pairs if not pair.same and not pair.failed]
    unjudged = sum(pair.verdict is None for pair in differing)
    rows: dict[str, Difference] = {
        "US dollars": _paired([p.shadow_usd for p in pairs], [p.champion_usd for p in pairs]),
        "seconds": _paired([p.shadow_s for p in pairs], [p.champion_s for p in pairs]),
        "verdict": _verdict(pairs),
    }
    champions = ", ".join(sorted({pair.champion for pair in pairs}))
    counts = {
        "pairs": len(pairs),
        "same_answer": sum(pair.same for pair in pairs),
        "no_answer": sum(pair.failed for pair in pairs),
        "judged": len(differing) - unjudged,
        "unjudged": unjudged,
    }
    lines = [
        f"# {label} as a shadow of {champions}",
        "",
        f"{counts['pairs']} requests; {counts['same_answer']} equal answers, {counts['no_answer']} "
        f"without an answer of the shadow, {counts['judged']} differing answers judged, {unjudged} not "
        "judged (no metadata.reference, and no word of a serve.shadow.judge). What was not judged counts as "
        "worse, here and in the gate. Differences are shadow minus "
        "champion on the same requests, with 95 % intervals. A verdict is 1 for the shadow, -1 for the "
        "champion and 0 for neither.",
        "",
        "| | difference | low | high | p |",
        "|---|---|---|---|---|",
    ]
    for name, each in rows.items():
        p = "-" if each.p is None else f"{each.p:.3g}"
        ends = [
            "-" if end is None else f"{end:.6g}" for end in (each.low, each.high)
        ]  # of one pair: none
        lines.append(f"| {name} | {each.mean:.6g} | {' | '.join(ends)} | {p} |")
    stem = re.sub(r"[^\w.-]", "_", label)
    values = {
        name: {"mean": each.mean, "low": each.low, "high": each.high, "p": each.p}
        for name, each in rows.items()
    }
    files.write_json(REPORTS / f"{stem}.json", {**counts, "differences": values})
    page = REPORTS / f"{stem}.md"
    files.atomic_write_text(page, "\n".join(lines) + "\n")
    return page


def _verdict(pairs: Sequence[PairRow]) -> Difference:
    """The mean verdict; an answer that differs and was not judged counts as worse."""
    verdicts = [-1.0 if pair.verdict is None else pair.verdict for pair in pairs]
    return _paired(verdicts, [0.0] * len(verdicts))


def _paired(shadow: Sequence[float], champion: Sequence[float]) -> Difference:
    return paired_difference(list(shadow), list(champion))
