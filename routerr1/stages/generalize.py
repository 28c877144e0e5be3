"""The stage generalize: the policy on pools that training never saw."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial

from routerr1.config import Params
from routerr1.evaluate.generalize import best_by_card
from routerr1.evaluate.generalize import generalize as play_on_changed_pools
from routerr1.evaluate.perturbations import (
    Perturbations,
    not_reworded,
    reworded,
    with_new_models,
    without_new_models,
)
from routerr1.evaluate.redrawn import TopicOf, not_redrawn, redrawn
from routerr1.evaluate.rows import Row, write_rows
from routerr1.evaluate.run import policies_of
from routerr1.evaluate.store import RowStore
from routerr1.files import atomic_directory, write_json
from routerr1.jobs.progress import Progress, track
from routerr1.jobs.rejected import Rejected
from routerr1.pool.base import Pool
from routerr1.pool.build import open_http_pool, wrap_pool
from routerr1.pool.drawn import DrawnPools, recorded_pool, stored_probes
from routerr1.pool.grading import Grade
from routerr1.pool.names import UNSEEN_NAMES
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import profile, sample_probes, topic_of
from routerr1.pool.recorded import answerable
from routerr1.report.outputs import write_generalization
from routerr1.simulation.candidates import candidates_of, drawn_candidates, extreme_candidates
from routerr1.simulation.facts import topic_in
from routerr1.simulation.pool import SimulatedPool, drawn_pool
from routerr1.tracking.runs import resume_run
from routerr1.types import Card
from routerr1.workspace import Workspace

FEW_PROBES = 8  # of each topic
_log = logging.getLogger(__name__)


def generalize(params: Params) -> None:
    """Play the policy on perturbed pools; write rows, comparison and metrics to data/generalize.

    A router without a policy calls only candidates of its own pool, so nothing is played for it. Nor is anything
    on a pool of one candidate, of which nothing can be changed.
    """
    workspace = Workspace(params)
    if not params.has_policy:
        with atomic_directory(workspace.paths.generalize) as aside:
            write_json(aside / "metrics.json", {})
        return
    if len(workspace.cards) < 2:
        _log.warning(
            "generalize: the pool has one candidate, so nothing is played: a changed pool needs two"
        )
        with atomic_directory(workspace.paths.generalize) as aside:
            write_rows(aside / "rows.parquet", [])
            write_json(aside / "metrics.json", {})
        return
    paths, fingerprint = workspace.paths, workspace.fingerprint("generalize")
    store = RowStore(paths.runs / "generalize.jsonl", fingerprint, params.max_rejected)
    rejected = Rejected("generalize", params.max_rejected)
    calls = paths.calls / f"generalize-{fingerprint}.jsonl"
    # One pool answers for trained and new models alike: one budget, one recording.
    pool = workspace.keep_calls(_open_extended_pool(workspace), calls)
    with track("generalize", 0) as bar:
        rows, perturbations = asyncio.run(_play(workspace, pool, store, bar, rejected))
    rejected.tell()
    figures = write_generalization(paths.generalize, rows, perturbations, params.evaluate)
    with resume_run(params.registry, paths.run) as run:
        run.log_metrics({"generalize": figures})
    store.discard()
    calls.unlink(missing_ok=True)


async def _play(
    workspace: Workspace, pool: Pool, store: RowStore, bar: Progress, rejected: Rejected
) -> tuple[list[Row], Perturbations]:
    params = workspace.params
    async with aclosing(pool), aclosing(workspace.grader()) as grader:
        new_models = await _new_models(workspace, pool, grader)
        own = PerturbedPool(pool, workspace.cards)
        return await play_on_changed_pools(
            policies_of(workspace.policies(), workspace.renderer, params),
            own,
            new_models + _redrawn(workspace, pool) + _reworded(workspace, own),
            workspace.spending(params.evaluate.split),
            params.evaluate,
            params.generalize,
            topic_of=_topics(workspace),
            few_probes=await _few_probes(workspace, pool, grader),
            store=store,
            progress=bar.update,
            rejected=rejected,
            grade=grader,
            processes=workspace.processes,
        )


def _open_extended_pool(workspace: Workspace) -> Pool:
    """The training pool, followed by models that training never saw if the parameters name any."""
    pool, section = workspace.params.pool, workspace.params.generalize
    if pool.kind != "simulated":
        return open_http_pool(
            pool, added=section.file, held_out=True, max_rejected=workspace.params.max_rejected
        )
    unseen = (*drawn_candidates(section.pool_seed), *extreme_candidates(section.pool_seed))
    unseen_cards = SimulatedPool(unseen, workspace.facts, seed=pool.seed).cards
    extended = SimulatedPool(
        (*candidates_of(pool.candidates), *unseen),
        workspace.facts,
        seed=pool.seed,
        cards=(*workspace.cards, *unseen_cards),
    )
    return wrap_pool(extended, pool, max_rejected=workspace.params.max_rejected)


async def _new_models(workspace: Workspace, pool: Pool, grade: Grade) -> Perturbations:
    """The models of `pool` that have no profiled card, profiled on the same probe questions."""
    trained = {card.name for card in workspace.cards}
    new = [card for card in pool.cards if card.name not in trained]
    if not new:
        return without_new_models("neither generalize.file nor held_out names new models")
    section = workspace.params.profile_pool
    questions = answerable(workspace.questions(section.split), pool)
    probes = sample_probes(questions, section.probes, section.seed)
    store = workspace.probe_store("pool", "profile_pool", "generalize")
    found = await profile(
        probes, PerturbedPool(pool, new), store=store, max_rejected=workspace.params.max_rejected,
        grade=grade,
    )  # fmt: skip
    added = workspace.params.generalize.added_models
    topics = _topics(workspace)
    control = None if topics is None else best_by_card(topics)
    return with_new_models(
        pool, workspace.cards, found.cards, added, controls=control, seed=section.seed
    )


def _topics(workspace: Workspace) -> TopicOf | None:
    """The topic of a sub-question, which best-on-cards needs; only the embedded questions tell it."""
    if workspace.params.dataset.source != "embedded":
        return None
    return partial(topic_in, workspace.facts)


def _reworded(workspace: Workspace, own: Pool) -> Perturbations:
    if workspace.params.dataset.source != "embedded":
        return not_reworded("other wordings are made for the embedded questions")
    return reworded(own, workspace.params.generalize.pool_seed)


async def _few_probes(workspace: Workspace, pool: Pool, grade: Grade) -> Sequence[Card] | None:
    """The cards as 8 probes of each topic would have made them; None where probes cost money."""
    params = workspace.params
    if params.pool.kind == "http":
        return None
    rows = answerable(workspace.questions(params.profile_pool.split), pool)
    topics = {topic_of(row) for row in rows}
    probes = sample_probes(rows, FEW_PROBES * len(topics), params.generalize.pool_seed)
    own = PerturbedPool(pool, workspace.cards)
    return list((await profile(probes, own, store=None, grade=grade)).cards)


def _redrawn(workspace: Workspace, pool: Pool) -> Perturbations:
    """Another drawn pool for each question, also played by the policy before training."""
    params = workspace.params
    draw: Callable[[int], Pool] = partial(drawn_pool, workspace.facts)
    if params.pool.kind == "http":
        return not_redrawn("pools are drawn from simulated or recorded candidates")
    if params.pool.kind == "recorded":
        recorded = recorded_pool(pool)
        drawn = DrawnPools(recorded, stored_probes(recorded, workspace.questions("train")))
        draw = partial(drawn.draw, UNSEEN_NAMES)
    before = policies_of(
        {seed: workspace.warm_started(seed) for seed in params.seeds}, workspace.renderer, params
    )
    by_seed = {policy.seed: policy for policy in before}
    topic_of = partial(topic_in, workspace.facts)
    return redrawn(pool, draw, topic_of, by_seed, params.generalize.pool_seed)
