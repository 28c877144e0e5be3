"""Watching: is the champion still what it was, are the candidates, have data or pool been changed?

What is found is an artifact for people and an event for Prefect, on which `routerr1 ops install` starts a
retrain.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.links import link_to_run
from flows.pipeline import DRIFT
from flows.replay import asking_anew, questions_of, replay
from flows.stages import spending_as
from routerr1 import drift, files, lineage, promotion, stages, tracking
from routerr1.config import Params, load_params
from routerr1.drift import Reading
from routerr1.errors import BudgetExceeded, LockHeld, RegistryError
from routerr1.exclusive import file_lock
from routerr1.fingerprints import fingerprint
from routerr1.pool.budget import exhausted
from routerr1.registry import Version, read_version_evidence
from routerr1.types import Question

POOL_CHANGED, DATA_CHANGED = "routerr1.pool.changed", "routerr1.data.changed"
SEEN = Path("runs/watch.json")
_PROBE = ["candidate", "dataset", "question_id"]


def notify(event: str, why: str, payload: dict[str, Any] | None = None) -> None:
    """Tell Prefect; automations that expect `event` run."""
    name = load_params().registry.model
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"routerr1.model.{name}"},
        payload={"why": why, **(payload or {})},
    )


@flow(name="evaluate-champion", persist_result=False)
def evaluate_champion(wait_s: float = 600.0) -> Any:
    """Play the champion again on questions it was judged by, and probe the candidates; True if any moved.

    Args:
        wait_s: how long to wait for a retrain in this folder, whose stages rewrite what is compared here;
            after that this run is cancelled.
    """
    params = load_params()
    champion = promotion.champion_of(tracking.open_client(), params.registry.model)
    if champion is None:
        raise RegistryError(f"model {params.registry.model!r}: has no champion to watch")
    try:
        with file_lock("pipeline", timeout_s=wait_s), spending_as(f"flow run {flow_run.id}"):
            readings, latencies, missing = candidates_task(params)
            # Without a candidate that its prompt names, the champion cannot be played.
            readings = readings if missing else champion_task(params, champion) + readings
    except LockHeld:
        return Cancelled(message="a retrain is under way")
    # Of all intervals together one in twenty looks is wrong, not of each.
    confidence = 1 - 0.05 / max(len(readings) + len(latencies), 1)
    findings = [
        drift.compare(reading, confidence=confidence, seed=params.evaluate.seed)
        for reading in readings
    ]
    findings += [
        drift.compare_latency(
            reading.what,
            reading.before,
            reading.now,
            params.watch.max_latency_ratio,
            confidence=confidence,
        )
        for reading in latencies
    ]
    findings += map(drift.gone, missing)
    create_markdown_artifact(
        key="drift",
        markdown=f"{drift.to_markdown(findings)}\nThe champion's {link_to_run(champion)}.\n",
        description="The champion and the candidates against what was measured before",
    )
    moved = [found.what for found in findings if found.moved]
    if moved:
        get_run_logger().warning("moved: %s", ", ".join(moved))
        notify(DRIFT, ", ".join(moved))
    return bool(moved)


@task(cache_policy=NO_CACHE, persist_result=False)
def champion_task(params: Params, champion: Version) -> list[Reading]:
    """Exact match and cost of the champion, on its own questions as far as data/questions still has them."""
    judged = {play.question_id: play for play in read_version_evidence(champion)[0]}
    chosen = _sample(questions_of(params, judged), params.watch.max_questions, params.evaluate.seed)
    now = replay(params, champion, chosen)
    before = [judged[play.question_id] for play in now]
    groups = tuple(play.group for play in now)
    pairs = {
        "champion exact match": ([play.em for play in before], [play.em for play in now]),
        "champion cost in USD": ([p.cost_usd for p in before], [p.cost_usd for p in now]),
    }
    return [Reading(what, tuple(old), tuple(new), groups) for what, (old, new) in pairs.items()]


def _sample(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    return Random(f"watch/{seed}").sample(list(questions), min(limit, len(questions)))


@task(cache_policy=NO_CACHE, persist_result=False)
def candidates_task(params: Params) -> tuple[list[Reading], list[Reading], list[str]]:
    """Every candidate on questions that the profile stage asked it before.

    Returns: accuracies; seconds, of questions answered both times; names that the pool has no more.
    """
    import pandas as pd

    matrix = pd.read_parquet(stages.POOL / "matrix.parquet").set_index(_PROBE)
    asked = {key[1:] for key in matrix.index}
    questions = [q for q in _probe_questions(params) if (q.dataset, q.id) in asked]
    chosen = _sample(questions, params.watch.probes, params.profile_pool.seed)
    groups = {(q.dataset, q.id): str(q.metadata.get("group", q.id)) for q in chosen}
    now = _probed(params, chosen)
    readings, latencies, missing = [], [], []
    for card in stages.read_cards():
        if card.name not in now.index:
            missing.append(card.name)
            continue
        new = now.loc[card.name]
        old = matrix.loc[card.name].loc[new.index]
        readings.append(
            Reading(
                f"{card.name} accuracy",
                tuple(old["correct"]),
                tuple(new["correct"]),
                tuple(groups[question] for question in new.index),
            )
        )
        answered = new["failure"].isna() & old["failure"].isna()
        before_s, now_s = (tuple(each[answered]["latency_s"]) for each in (old, new))
        latencies.append(Reading(f"{card.name} latency", before_s, now_s, ()))
    return readings, latencies, missing


def _probed(params: Params, questions: Sequence[Question]) -> Any:
    """Each question put to each candidate of the pool as it is now: a frame by `_PROBE`."""
    import pandas as pd

    from routerr1.pool.profile import profile

    pool = stages.open_pool(asking_anew(params))

    async def probe() -> Any:
        try:
            return await profile(questions, pool, store=None)
        finally:
            await pool.aclose()

    found = asyncio.run(probe())
    if (why := exhausted(pool)) is not None:
        raise BudgetExceeded(why)  # refused calls would look like a candidate that got worse
    return pd.DataFrame(found.rows).set_index(_PROBE)


def _probe_questions(params: Params) -> list[Question]:
    from routerr1.data.splits import read_questions

    return read_questions(stages.QUESTIONS, params.profile_pool.split)


@flow(name="watch-changes", persist_result=False)
def watch_changes() -> list[str]:
    """Compare pool and data with what the last look saw; an event for each that was changed."""
    params = load_params()
    seen = files.read_json(SEEN) if SEEN.is_file() else {}
    now = fingerprints(params)
    changed = [event for event, value in now.items() if seen.get(event, value) != value]
    for event in changed:
        get_run_logger().warning("%s", event)
        notify(event, "seen by watch-changes")
    files.write_json(SEEN, now)
    return changed


def fingerprints(params: Params) -> dict[str, str]:
    """What stands for the pool (candidates, prices, endpoints) and for the data, as digests."""
    pool = [fingerprint(params, "pool")]
    if params.pool.file is not None:
        pool.append(files.digest(params.pool.file))
    data = [params.dataset.model_dump_json()]
    data += [files.digest(path) for path in (Path("data/imported"),) if path.exists()]
    return {POOL_CHANGED: lineage.digest_of(pool), DATA_CHANGED: lineage.digest_of(data)}
