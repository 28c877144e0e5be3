"""The stage evaluate, with the baselines it plays; and learned routers on recorded replies."""

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from routerr1.config import Params
from routerr1.errors import ConfigError
from routerr1.files import digest, write_json
from routerr1.pool.interface import Pool
from routerr1.progress import Progress, track
from routerr1.stages.parts import (
    closing,
    evaluation_fingerprint,
    keep_calls,
    load_policies,
    load_policy,
    open_pool,
    questions_of,
    read_cards,
    renderer,
    world_of,
)
from routerr1.stages.places import CALLS, EVALUATION, POOL, RUN_FILE, RUNS, WARMSTART

if TYPE_CHECKING:
    from routerr1.baselines.retrieval import RetrieverPool
    from routerr1.evaluate.controls import Router
    from routerr1.evaluate.ray_executor import Learnt
    from routerr1.evaluate.rows import Row
    from routerr1.evaluate.run import Job
    from routerr1.rollout.lazy import Lazy
    from routerr1.rollout.local import LocalGenerator


def evaluate(params: Params) -> None:
    """The policy and its controls on the split asked for; rows, table and metrics into data/eval."""
    from routerr1.evaluate.controls import POLICY
    from routerr1.evaluate.outputs import write_evaluation
    from routerr1.evaluate.ray_executor import play_on_ray
    from routerr1.evaluate.run import TRAINING_POOL, evaluation_of, play_all
    from routerr1.evaluate.store import RowStore
    from routerr1.tracking.runs import resume_run
    from routerr1.tracking.traces import TraceBuffer

    section = params.evaluate
    mark = evaluation_fingerprint(params, "evaluate")
    store, calls = RowStore(RUNS / "eval.jsonl", mark), CALLS / f"evaluate-{mark}.jsonl"
    open_kept = partial(_open_kept, params, calls)
    kept = TraceBuffer()

    async def play(pool: Pool, bar: Progress) -> list["Row"]:
        jobs = [
            (kept.keep(router) if router.name == POLICY else router, question)
            for router, question in jobs_of(params, pool, {})
        ]
        return await play_all(
            jobs, concurrency=section.concurrency, store=store, progress=bar.update
        )

    with track("evaluate", 0) as bar:
        if section.executor == "ray":
            rows = play_on_ray(
                partial(jobs_of, params), open_kept, shared=params.pool.kind != "simulated",
                players=section.shards, concurrency=section.concurrency, store=store,
                progress=bar.update,
            )  # fmt: skip
        else:
            pool = open_kept()
            rows = asyncio.run(closing(pool, play(pool, bar)))
    found = evaluation_of(rows)
    _, figures = write_evaluation(EVALUATION, found, section)
    with resume_run(params.registry, RUN_FILE) as run:
        run.log_metrics({"evaluate": figures})
        run.log_artifact(EVALUATION / "table.md")
        policy = [row for row in rows if (row.pool, row.router) == (TRAINING_POOL, POLICY)]
        run.log_traces(
            [kept.of(row) for row in policy], {"stage": "evaluate"}, sample=params.trace.evaluate
        )
    store.discard()
    calls.unlink(missing_ok=True)


def _open_kept(params: Params, calls: Path) -> Pool:
    """The pool of the profiled cards, as `keep_calls` has it."""
    return keep_calls(open_pool(params, read_cards()), params, calls)


def jobs_of(params: Params, pool: Pool, learnt: "Learnt") -> list["Job"]:
    """Every router and question of the evaluate stage, from files alone: workers build them anew."""
    from routerr1.evaluate.run import evaluation_jobs

    baselines, wholes = _baselines(params, pool, learnt)
    return evaluation_jobs(
        load_policies(params),
        pool,
        questions_of(params.evaluate.split),
        questions_of("validation"),
        render=renderer(params),
        rollout=params.rollout,
        params=params.evaluate,
        others=baselines,
        wholes=wholes,
    )


def _baselines(
    params: Params, pool: Pool, learnt: "Learnt"
) -> tuple[list["Router"], list["Router"]]:
    """The rows of the paper's table that params name, for every training seed; and each candidate asked
    whole questions, if that is what some of them do."""
    from routerr1.baselines.build import SINGLE, Materials, baseline_routers, lessons, whole_routers
    from routerr1.baselines.matrix import read_matrix
    from routerr1.evaluate.run import TRAINING_POOL, WHOLE, policies_of
    from routerr1.rollout.lazy import Lazy, LazyGenerator

    section = params.baselines
    if not section.include:
        return [], []
    retriever = _retriever(params, pool)
    matrix = read_matrix(POOL / "matrix.parquet")
    described = {card.name: card.description for card in pool.cards}
    routers, wholes = [], []
    for seed in params.seeds:
        base = Lazy(partial(load_policy, WARMSTART / f"seed-{seed}", params))
        (policy,) = policies_of(
            {seed: LazyGenerator(base)},
            render=renderer(params), rollout=params.rollout, params=params.evaluate,
        )  # fmt: skip
        known = {
            **lessons(matrix, section, seed=seed, descriptions=described),
            "sft": Lazy(partial(_fine_tuned, params, base, seed)),
            **{name: lesson for (its_seed, name), lesson in learnt.items() if its_seed == seed},
        }
        # The compact prompt has no place for a tool without figures: its policies go on reading the
        # candidates' cards, and whichever name they write is a search.
        searcher = policy.showing(pool.cards) if params.prompt.template == "compact" else policy
        materials = Materials(policy, searcher, pool, known, retriever)
        routers += baseline_routers(materials, section, pool_name=TRAINING_POOL, seed=seed)
        if set(SINGLE) & set(section.include):
            wholes += whole_routers(policy, pool, pool_name=WHOLE, seed=seed)
    return routers, wholes


def _fine_tuned(params: Params, base: "Lazy[LocalGenerator]", seed: int) -> "LocalGenerator":
    from routerr1.baselines.tuned import fine_tune

    section = params.baselines
    return fine_tune(
        base(), questions_of("train"), steps=section.sft_steps, batch_size=32,
        learning_rate=section.sft_learning_rate, seed=seed,
    )  # fmt: skip


def _retriever(params: Params, pool: Pool) -> "RetrieverPool | None":
    """What RAG and Search-R1 search; None if params name neither."""
    from routerr1.baselines.retrieval import (
        FileIndex,
        Index,
        MemoryIndex,
        RetrieverPool,
        passages_of,
    )
    from routerr1.simulation.pool import known_facts

    section = params.baselines
    if not {"rag", "search_r1"} & set(section.include):
        return None
    if section.corpus is not None:
        index: Index = FileIndex(section.corpus, RUNS / "bm25" / digest(section.corpus))
    elif params.dataset.source == "embedded":
        index = MemoryIndex(passages_of(known_facts(world_of(params))))
    else:
        raise ConfigError(
            "params.yaml: baselines.corpus: rag and search_r1 need passages to search"
        )
    names = [card.name for card in pool.cards]
    return RetrieverPool(index, count=section.passages, aliases=names)


def evaluate_replay(params: Params, log: Path, out: Path, repetitions: int) -> None:
    """Learned single-round routers on recorded replies, under every metric, into `out`; no stage."""
    from routerr1.baselines.replay_study import METRICS, read_log, studies_markdown, study
    from routerr1.files import atomic_write_text

    found = {}
    for metric in METRICS:
        matrix = read_log(log, metric)
        with track(f"replay, {metric}", 2 * repetitions) as bar:
            found[metric] = study(
                matrix, params.baselines, params.evaluate,
                repetitions=repetitions, progress=bar.update,
            )  # fmt: skip
    write_json(out / "replay.json", found)
    atomic_write_text(out / "replay.md", studies_markdown(found))
