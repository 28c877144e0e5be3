"""The stage generalize: pools with models that training never saw."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from routerr1.config import Params
from routerr1.pool.interface import Pool
from routerr1.progress import Progress, track
from routerr1.stages.parts import (
    closing,
    evaluation_fingerprint,
    keep_calls,
    load_policies,
    load_policy,
    profile_store,
    questions_of,
    read_cards,
    renderer,
    world_of,
)
from routerr1.stages.places import CALLS, GENERALIZATION, RUN_FILE, RUNS, WARMSTART
from routerr1.types import Card

if TYPE_CHECKING:
    from routerr1.evaluate.changes import Changes
    from routerr1.evaluate.rows import Row


def generalize(params: Params) -> None:
    """The policy on pools it never saw; rows, comparison and metrics into data/generalize."""
    from routerr1.evaluate.generalize import generalize as run_generalization
    from routerr1.evaluate.outputs import write_generalization
    from routerr1.evaluate.store import RowStore
    from routerr1.pool.changed import ChangedPool
    from routerr1.tracking.runs import resume_run

    cards = read_cards()
    mark = evaluation_fingerprint(params, "generalize")
    store, calls = RowStore(RUNS / "generalize.jsonl", mark), CALLS / f"generalize-{mark}.jsonl"
    # One pool answers for old and new models alike: one budget, one recording.
    everyone = keep_calls(_open_grown_pool(params, cards), params, calls)

    async def play(bar: Progress) -> tuple[list["Row"], "Changes"]:
        return await run_generalization(
            load_policies(params),
            ChangedPool(everyone, cards),
            await _new_models(params, everyone, cards) + _redrawn(params, everyone),
            questions_of(params.evaluate.split),
            render=renderer(params),
            rollout=params.rollout,
            params=params.evaluate,
            limits=params.generalize,
            store=store,
            progress=bar.update,
        )

    with track("generalize", 0) as bar:
        rows, changes = asyncio.run(closing(everyone, play(bar)))
    _, figures = write_generalization(GENERALIZATION, rows, changes, params.evaluate)
    with resume_run(params.registry, RUN_FILE) as run:
        run.log_metrics({"generalize": figures})
    store.discard()
    calls.unlink(missing_ok=True)


def _open_grown_pool(params: Params, cards: Sequence[Card]) -> Pool:
    """The training pool and, behind it, models that training never saw, where `params` name any."""
    from routerr1.pool.build import guard, open_http_pool
    from routerr1.simulation.pool import (
        SimulatedPool,
        candidates_of,
        drawn_candidates,
        known_facts,
    )

    if params.pool.kind != "simulated":
        return open_http_pool(params.pool, added=params.generalize.file)
    drawn = drawn_candidates(params.generalize.pool_seed)
    known = known_facts(world_of(params))
    bare = SimulatedPool(drawn, known, seed=params.pool.seed)
    candidates = (*candidates_of(params.pool.candidates), *drawn)
    grown = SimulatedPool(candidates, known, seed=params.pool.seed, cards=(*cards, *bare.cards))
    return guard(grown, params.pool)


async def _new_models(params: Params, everyone: Pool, cards: Sequence[Card]) -> "Changes":
    """The models of `everyone` that are not on the training pool's cards, profiled on the same probes."""
    from routerr1.evaluate.changes import with_new_models, without_new_models
    from routerr1.pool.changed import ChangedPool
    from routerr1.pool.profile import profile, sample_probes

    trained = {card.name for card in cards}
    new = [card for card in everyone.cards if card.name not in trained]
    if not new:
        return without_new_models("generalize.file names no new models")
    section = params.profile_pool
    probes = sample_probes(questions_of(section.split), section.probes, section.seed)
    store = profile_store(params, "pool", "profile_pool", "generalize")
    found = await profile(probes, ChangedPool(everyone, new), store=store)
    return with_new_models(everyone, cards, found.cards, params.generalize.added_models)


def _redrawn(params: Params, pool: Pool) -> "Changes":
    from routerr1.evaluate.redrawn import not_redrawn, redrawn
    from routerr1.evaluate.run import policies_of
    from routerr1.rollout.lazy import LazyGenerator
    from routerr1.simulation.pool import known_facts

    if params.pool.kind != "simulated":
        return not_redrawn("real models cannot be drawn")
    generators = {
        seed: LazyGenerator(partial(load_policy, WARMSTART / f"seed-{seed}", params))
        for seed in params.seeds
    }
    before = policies_of(
        generators, render=renderer(params), rollout=params.rollout, params=params.evaluate
    )
    known = known_facts(world_of(params))
    by_seed = {policy.seed: policy for policy in before}
    return redrawn(pool, known, by_seed, params.generalize.pool_seed)
