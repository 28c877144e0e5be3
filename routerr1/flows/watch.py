"""The watch: drift of the champion and of the candidates, and changes of data and pool.

Each finding becomes an artifact for people and an event for Prefect, which starts a retrain. It is repeated
at each look until a retrain has acknowledged it; see `baseline.py`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from random import Random
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Cancelled

from routerr1.config import Params, load_params
from routerr1.errors import LockHeld, RegistryError
from routerr1.files import atomic_write_text
from routerr1.flows import baseline, drift
from routerr1.flows.baseline import DriftReport
from routerr1.flows.drift import Finding, Reading
from routerr1.flows.links import link_to_run
from routerr1.flows.replay import cards_of, lacking, questions_of, replay, with_live_calls
from routerr1.flows.stages import spending_as
from routerr1.flows.triggers import DRIFT, notify
from routerr1.lineage import PATHS
from routerr1.pool.cards import read_cards
from routerr1.pool.profile import ProbeRow, asked_in, probe, read_probes
from routerr1.registry import promotion
from routerr1.registry.samples import EvalSample
from routerr1.registry.versions import Version, read_version_evidence
from routerr1.tracking.store import file_lock, open_client
from routerr1.types import Question
from routerr1.workspace import Workspace

_EM, _COST = "champion exact match", "champion cost in USD"


@flow(name="evaluate-champion", persist_result=False)
def evaluate_champion(wait_s: float = 600.0) -> Any:
    """Evaluate the champion again on questions it was judged by, and probe the candidates.

    Args:
        wait_s: seconds to wait for a retrain in this folder, whose stages rewrite what is compared here;
            after that this run is cancelled.

    Returns: True if anything moved.
    """
    params = load_params()
    champion = promotion.champion_of(open_client(), params.registry.model)
    if champion is None:
        raise RegistryError(f"model {params.registry.model!r}: has no champion to watch")
    try:
        with file_lock("pipeline", timeout_s=wait_s), spending_as(f"flow run {flow_run.id}"):
            findings = _look(params, champion)
    except LockHeld:
        return Cancelled(message="a retrain is under way")
    when = datetime.now(UTC).isoformat(" ", "minutes").partition("+")[0]
    page = f"{drift.to_markdown(findings)}\nVersion {champion.number} is champion; {when} UTC.\n"
    atomic_write_text(drift.PAGE, page)
    create_markdown_artifact(
        key="drift",
        markdown=f"{page}\nThe champion's {link_to_run(champion)}.\n",
        description="The champion and the candidates, compared with what the last retrain knew",
    )
    moved = [found.what for found in findings if found.moved]
    if moved:
        get_run_logger().warning("moved: %s", ", ".join(moved))
        notify(DRIFT, ", ".join(moved))
    return bool(moved)


def _look(params: Params, champion: Version) -> list[Finding]:
    """Measure, compare, and store the drift for the next retrain."""
    known = baseline.acknowledged(champion.number)
    readings, latencies = candidates_task(params)
    needed = cards_of(champion)
    missing = dict.fromkeys(lacking(params, [*needed, *read_cards(PATHS.cards)]))
    samples: list[EvalSample] = []
    if not missing.keys() & {card.name for card in needed}:
        samples = champion_task(params, champion)
        readings = _champion_readings(champion, samples, known) + readings
    findings = _compared(params, readings, latencies)
    findings += [drift.gone(name, known=name in known.gone) for name in missing]
    moved = {found.what for found in findings if found.moved}
    # Figures that did not move keep their old baseline, or a slow drift would never show.
    figures = known.figures
    if moved & {_EM, _COST}:
        figures = {play.content: (play.em, play.cost_usd) for play in samples}
    report = DriftReport(champion=champion.number, figures=figures, gone=tuple(missing))
    baseline.keep(report if moved else None)
    return findings


@task(cache_policy=NO_CACHE, persist_result=False)
def champion_task(params: Params, champion: Version) -> list[EvalSample]:
    """The champion on questions it was judged by, or on the present ones if data/questions has none of them."""
    judged = {play.content for play in read_version_evidence(champion).samples}
    questions = questions_of(params, judged) or questions_of(params)
    return replay(
        params, champion, _sample(questions, params.watch.max_questions, params.evaluate.seed)
    )


def _champion_readings(
    champion: Version, now: Sequence[EvalSample], known: DriftReport
) -> list[Reading]:
    """Exact match and cost, compared with the last retrain's baseline or with what the champion was judged by."""
    judged = read_version_evidence(champion).samples
    figures = {play.content: (play.em, play.cost_usd) for play in judged} | known.figures
    both = [(figures[play.content], play) for play in now if play.content in figures]
    groups = tuple(play.group for _, play in both)
    em = [(before[0], play.em) for before, play in both]
    cost = [(before[1], play.cost_usd) for before, play in both]
    return [
        Reading(what, tuple(old for old, _ in pairs), tuple(new for _, new in pairs), groups)
        for what, pairs in ((_EM, em), (_COST, cost))
    ]


def _sample(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    return Random(f"watch/{seed}").sample(list(questions), min(limit, len(questions)))


@task(cache_policy=NO_CACHE, persist_result=False)
def candidates_task(params: Params) -> tuple[list[Reading], list[Reading]]:
    """Every candidate of the pool on questions of the profile stage.

    The questions come from the matrix, because data/questions may have changed.

    Returns: readings of accuracy, and of latency over questions answered both times.
    """
    before = read_probes(PATHS.matrix)
    known = {_place(row): row for row in before}
    asked = _sample(asked_in(before), params.watch.probes, params.profile_pool.seed)
    pairs: dict[str, list[tuple[ProbeRow, ProbeRow]]] = defaultdict(list)
    for row in _probed(params, asked):
        if _place(row) in known:
            pairs[row["candidate"]].append((known[_place(row)], row))
    accuracies = [
        Reading(
            f"{name} accuracy",
            tuple(old["correct"] for old, _ in rows),
            tuple(new["correct"] for _, new in rows),
            tuple(new["group"] for _, new in rows),
        )
        for name, rows in pairs.items()
    ]
    return accuracies, [_latency(name, rows) for name, rows in pairs.items()]


def _place(row: ProbeRow) -> tuple[str, str, str]:
    return row["candidate"], row["dataset"], row["question_id"]


def _latency(name: str, rows: Sequence[tuple[ProbeRow, ProbeRow]]) -> Reading:
    answered = [pair for pair in rows if all(row["failure"] is None for row in pair)]
    before_s = tuple(old["latency_s"] for old, _ in answered)
    return Reading(
        f"{name} latency, s", before_s, tuple(new["latency_s"] for _, new in answered), ()
    )


def _probed(params: Params, questions: Sequence[Question]) -> tuple[ProbeRow, ...]:
    """Put each question to each candidate of the pool as it is now."""
    pool = Workspace(with_live_calls(params)).open_pool()

    async def ask() -> tuple[ProbeRow, ...]:
        try:
            async with aclosing(Workspace(params).grader()) as grader:
                return await probe(questions, pool, store=None, grade=grader)
        finally:
            await pool.aclose()

    return asyncio.run(ask())


def _compared(
    params: Params, readings: Sequence[Reading], latencies: Sequence[Reading]
) -> list[Finding]:
    # Bonferroni: 95 % for all intervals of a look together.
    confidence = 1 - 0.05 / max(len(readings) + len(latencies), 1)
    findings = [
        drift.compare(reading, confidence=confidence, seed=params.evaluate.seed)
        for reading in readings
    ]
    return findings + [
        drift.compare_latency(
            reading.what,
            reading.before,
            reading.now,
            params.watch.max_latency_ratio,
            confidence=confidence,
        )
        for reading in latencies
    ]


@flow(name="watch-changes", persist_result=False)
def watch_changes() -> list[str]:
    """Compare pool and data with what the last retrain saw, and send an event for each change.

    The first look in a new folder becomes the baseline.
    """
    now = baseline.fingerprints(load_params())
    if not baseline.SEEN.is_file():
        baseline.acknowledge(now, drift=False)
    changed = baseline.changed(now)
    for event in changed:
        get_run_logger().warning("%s", event)
        notify(event, "seen by watch-changes")
    return changed
