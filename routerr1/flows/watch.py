"""Watching: is the champion still what it was, are the candidates, have data or pool been changed?

What is found is an artifact for people and an event for Prefect, on which `routerr1 ops install` starts a
retrain. It is told again at each look until a retrain has taken it in; see `baseline.py`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Cancelled

from routerr1 import stages
from routerr1.config import Params, load_params
from routerr1.errors import BudgetExceeded, LockHeld, RegistryError
from routerr1.flows import baseline, drift
from routerr1.flows.baseline import Look
from routerr1.flows.drift import Finding, Reading
from routerr1.flows.links import link_to_run
from routerr1.flows.replay import asking_anew, cards_of, lacking, questions_of, replay
from routerr1.flows.stages import spending_as
from routerr1.flows.triggers import DRIFT, notify
from routerr1.pool.budget import exhausted
from routerr1.pool.profile import ProbeRow, asked_in, probe, read_probes
from routerr1.registry import promotion
from routerr1.registry.gate import EvalSample
from routerr1.registry.versions import Version, read_version_evidence
from routerr1.tracking.store import file_lock, open_client
from routerr1.types import Question

_EM, _COST = "champion exact match", "champion cost in USD"


@flow(name="evaluate-champion", persist_result=False)
def evaluate_champion(wait_s: float = 600.0) -> Any:
    """Play the champion again on questions it was judged by, and probe the candidates; True if any moved.

    Args:
        wait_s: how long to wait for a retrain in this folder, whose stages rewrite what is compared here;
            after that this run is cancelled.
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
    create_markdown_artifact(
        key="drift",
        markdown=f"{drift.to_markdown(findings)}\nThe champion's {link_to_run(champion)}.\n",
        description="The champion and the candidates against what the last retrain knew",
    )
    moved = [found.what for found in findings if found.moved]
    if moved:
        get_run_logger().warning("moved: %s", ", ".join(moved))
        notify(DRIFT, ", ".join(moved))
    return bool(moved)


def _look(params: Params, champion: Version) -> list[Finding]:
    """Measure, compare, and keep what was found for the retrain that will answer it."""
    known = baseline.answered(champion.number)
    readings, latencies = candidates_task(params)
    needed = cards_of(champion)
    missing = dict.fromkeys(lacking(params, [*needed, *stages.read_cards()]))
    samples: list[EvalSample] = []
    if not missing.keys() & {card.name for card in needed}:
        samples = champion_task(params, champion)
        readings = _champion_readings(champion, samples, known) + readings
    findings = _compared(params, readings, latencies)
    findings += [drift.gone(name, known=name in known.gone) for name in missing]
    moved = {found.what for found in findings if found.moved}
    # What has not moved is held against the same figures again: else it could creep away unseen.
    figures = known.figures
    if moved & {_EM, _COST}:
        figures = {play.content: (play.em, play.cost_usd) for play in samples}
    look = Look(champion=champion.number, figures=figures, gone=tuple(missing))
    baseline.keep(look if moved else None)
    return findings


@task(cache_policy=NO_CACHE, persist_result=False)
def champion_task(params: Params, champion: Version) -> list[EvalSample]:
    """The champion on questions that it was judged by; on today's, if data/questions has none of them."""
    judged = {play.content for play in read_version_evidence(champion).samples}
    questions = questions_of(params, judged) or questions_of(params)
    return replay(
        params, champion, _sample(questions, params.watch.max_questions, params.evaluate.seed)
    )


def _champion_readings(champion: Version, now: Sequence[EvalSample], known: Look) -> list[Reading]:
    """Exact match and cost, against what the last retrain knew of them, or what the champion was judged by."""
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
    """Every candidate that the pool still has, on questions that the profile stage put to it.

    They are taken from the matrix as they were asked: data/questions may hold others by now.

    Returns: accuracies; seconds, of questions answered both times.
    """
    before = read_probes(stages.POOL / "matrix.parquet")
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
    return Reading(f"{name} latency", before_s, tuple(new["latency_s"] for _, new in answered), ())


def _probed(params: Params, questions: Sequence[Question]) -> tuple[ProbeRow, ...]:
    """Each question put to each candidate of the pool as it is now."""
    pool = stages.open_pool(asking_anew(params))

    async def ask() -> tuple[ProbeRow, ...]:
        try:
            return await probe(questions, pool, store=None)
        finally:
            await pool.aclose()

    rows = asyncio.run(ask())
    if (why := exhausted(pool)) is not None:
        raise BudgetExceeded(why)  # refused calls would look like a candidate that got worse
    return rows


def _compared(
    params: Params, readings: Sequence[Reading], latencies: Sequence[Reading]
) -> list[Finding]:
    # Of all intervals together one in twenty looks is wrong, not of each.
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
    """Compare pool and data with what the last retrain saw; an event for each that was changed since.

    The first look in a folder where nothing was seen yet becomes what later ones compare with.
    """
    now = baseline.fingerprints(load_params())
    if not baseline.SEEN.is_file():
        baseline.take_in(now, drift=False)
    changed = baseline.changed(now)
    for event in changed:
        get_run_logger().warning("%s", event)
        notify(event, "seen by watch-changes")
    return changed
