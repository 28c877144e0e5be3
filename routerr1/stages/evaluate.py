"""The stage evaluate: the policy, its controls and the baselines on the same questions."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from routerr1.baselines.build import (
    SINGLE,
    BaselineContext,
    baseline_routers,
    fitted_models,
    whole_routers,
)
from routerr1.baselines.learning_cost import learning_costs, training_cost
from routerr1.baselines.matrix import read_matrix
from routerr1.baselines.replay_study import METRICS, read_log, study
from routerr1.baselines.replies import reply_routers
from routerr1.baselines.retrieval import FileIndex, Index, MemoryIndex, RetrieverPool
from routerr1.baselines.tuned import fine_tune
from routerr1.config import BaselineParams, EvaluateParams, Params
from routerr1.errors import ConfigError
from routerr1.evaluate.controls import POLICY, Job, Router, policy_router
from routerr1.evaluate.ray_executor import Learned, play_on_ray
from routerr1.evaluate.results import LearningCost
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import (
    TRAINING_POOL,
    WHOLE,
    Evaluation,
    choose_questions,
    evaluation_jobs,
    evaluation_of,
    jobs_without_policy,
    play_all,
    policies_of,
)
from routerr1.evaluate.store import RowStore
from routerr1.files import atomic_write_text, digest, write_json
from routerr1.jobs.progress import Progress, track
from routerr1.jobs.rejected import Rejected
from routerr1.lineage import PATHS
from routerr1.pool.base import Pool
from routerr1.pool.grading import require_graders
from routerr1.report.outputs import write_evaluation
from routerr1.report.replay import studies_text
from routerr1.rollout.lazy import Lazy, LazyGenerator
from routerr1.rollout.local import LocalGenerator
from routerr1.simulation.facts import statements
from routerr1.tracking.runs import resume_run
from routerr1.tracking.traces import TraceBuffer
from routerr1.workspace import Workspace


def evaluate(params: Params) -> None:
    """Play all routers on the chosen split; write rows, table and metrics to data/eval."""
    workspace = Workspace(params)
    require_graders(workspace.all_questions(), params.verify)
    section, fingerprint = params.evaluate, workspace.fingerprint("evaluate")
    store = RowStore(PATHS.runs / "eval.jsonl", fingerprint, params.max_rejected)
    rejected = Rejected("evaluate", params.max_rejected)
    calls = PATHS.calls / f"evaluate-{fingerprint}.jsonl"
    open_pool = partial(_open_pool, workspace, calls)
    traces = TraceBuffer()
    with track("evaluate", 0) as bar:
        if section.executor == "ray":
            rows = play_on_ray(
                partial(jobs_of, workspace), open_pool, shared=params.pool.kind != "simulated",
                open_grader=workspace.grader, players=section.shards, concurrency=section.concurrency, store=store,
                progress=bar.update, rejected=rejected,
            )  # fmt: skip
        else:
            rows = asyncio.run(_play(workspace, open_pool(), traces, store, bar, rejected))
    rejected.tell()
    num_rejected = sum(row.rejected for row in rows)
    found = evaluation_of(rows, workspace.probes)
    figures = write_evaluation(
        PATHS.evaluate, found, section, num_rejected, _learning(workspace, found)
    )
    with resume_run(params.registry, PATHS.run) as run:
        run.log_metrics({"evaluate": figures})
        run.log_artifact(PATHS.evaluate / "table.md")
        policy = [row for row in rows if (row.pool, row.router) == (TRAINING_POOL, POLICY)]
        if policy:
            run.log_traces(
                [traces.of(row) for row in policy],
                {"stage": "evaluate"},
                sample=params.trace.evaluate,
            )
    store.discard()
    calls.unlink(missing_ok=True)


def _learning(workspace: Workspace, found: Evaluation) -> dict[str, LearningCost]:
    """What each router's learning asked of the candidates; a policy that was not trained here is left out."""
    params, train = workspace.params, workspace.params.train
    training = None
    on_probes = params.looks_up_questions
    if params.has_policy and not on_probes and (PATHS.train / "seeds.csv").is_file():
        held_out = len(workspace.questions("validation"))
        training = training_cost(
            PATHS.train,
            rollouts=train.questions_per_step * train.rollouts_per_question,
            validated=min(train.validation_questions, held_out),
        )
    matrix = read_matrix(PATHS.matrix)
    return learning_costs(
        found, matrix, params.seeds, training, trained=params.has_policy, on_probes=on_probes
    )


def _open_pool(workspace: Workspace, calls: Path) -> Pool:
    return workspace.keep_calls(workspace.open_pool(workspace.cards), calls)


async def _play(
    workspace: Workspace,
    pool: Pool,
    traces: TraceBuffer,
    store: RowStore,
    bar: Progress,
    rejected: Rejected,
) -> list[Row]:
    async with aclosing(pool), aclosing(workspace.grader()) as grader:
        jobs = [
            (traces.keep(router) if router.name == POLICY else router, question)
            for router, question in jobs_of(workspace, pool, {})
        ]
        concurrency = workspace.params.evaluate.concurrency
        return await play_all(
            jobs, concurrency=concurrency, store=store, progress=bar.update, rejected=rejected,
            grade=grader, processes=workspace.processes,
        )  # fmt: skip


def jobs_of(workspace: Workspace, pool: Pool, learned: Learned) -> list[Job]:
    """Every router and question of the stage, from files alone, so that each Ray worker can build them."""
    params = workspace.params
    if not params.has_policy or params.looks_up_questions:
        return _policy_jobs(workspace, pool) + jobs_without_policy(
            partial(_reply_routers, workspace, pool, _fitted_models(workspace, pool, learned)),
            workspace.questions(params.evaluate.split),
            workspace.questions("validation"),
            params=params.evaluate,
        )
    baselines, wholes = _baselines(workspace, pool, learned)
    return evaluation_jobs(
        policies_of(workspace.policies(), workspace.renderer, params),
        pool,
        workspace.spending(params.evaluate.split),
        workspace.spending("validation"),
        params.evaluate,
        others=baselines,
        wholes=wholes,
    )


def _policy_jobs(workspace: Workspace, pool: Pool) -> list[Job]:
    """A policy that answers with whole replies, beside routers that do; none without a policy.

    No other router plays with the policy's text, so what they are worth does not depend on it.
    """
    params = workspace.params
    if not params.has_policy:
        return []
    section = params.evaluate
    questions = workspace.spending(section.split)
    chosen = choose_questions(questions, section.max_questions, section.seed)
    policies = policies_of(workspace.policies(), workspace.renderer, params)
    routers = [policy_router(policy, pool, TRAINING_POOL, section.seed) for policy in policies]
    return [(router, question) for router in routers for question in chosen]


def _fitted_models(
    workspace: Workspace, pool: Pool, learned: Learned
) -> dict[int, dict[str, Lazy[Any]]]:
    """What the learned routers of each training seed learn, by name."""
    section = workspace.params.baselines
    matrix = read_matrix(PATHS.matrix)
    described = {card.name: card.description for card in pool.cards}
    return {
        seed: {
            **fitted_models(matrix, section, seed=seed, descriptions=described),
            **{name: model for (its_seed, name), model in learned.items() if its_seed == seed},
        }
        for seed in workspace.params.seeds
    }


def _reply_routers(
    workspace: Workspace,
    pool: Pool,
    fitted: Mapping[int, Mapping[str, Lazy[Any]]],
    pool_name: str,
) -> list[Router]:
    """The routers without a policy, for every training seed."""
    params = workspace.params
    return [
        router
        for seed in params.seeds
        for router in reply_routers(
            fitted[seed], params.baselines, pool,
            pool_name=pool_name, seed=seed, call_seed=params.evaluate.seed,
        )
    ]  # fmt: skip


def _baselines(
    workspace: Workspace, pool: Pool, learned: Learned
) -> tuple[list[Router], list[Router]]:
    """The baselines that the parameters name, for every training seed; and each candidate asked whole questions.

    The second list is empty unless one of the baselines is a single-round router.
    """
    section = workspace.params.baselines
    if not section.include:
        return [], []
    retriever = _retriever(workspace, pool)
    fitted = _fitted_models(workspace, pool, learned)
    routers, wholes = [], []
    for seed in workspace.params.seeds:
        base = Lazy(partial(workspace.load, workspace.warmstart_folder(seed)))
        (policy,) = policies_of({seed: LazyGenerator(base)}, workspace.renderer, workspace.params)
        known = {
            "sft": Lazy(partial(_fine_tuned, workspace, base, seed)),
            **fitted[seed],
        }
        # The compact prompt has no place for a tool without figures: its policies still read the
        # candidates' cards, and whichever name they write is a search.
        compact = workspace.params.prompt.template == "compact"
        searcher = policy.showing(pool.cards) if compact else policy
        context = BaselineContext(policy, searcher, pool, known, retriever)
        routers += baseline_routers(context, section, pool_name=TRAINING_POOL, seed=seed)
        if set(SINGLE) & set(section.include):
            wholes += whole_routers(policy, pool, pool_name=WHOLE, seed=seed)
    return routers, wholes


def _fine_tuned(workspace: Workspace, base: Lazy[LocalGenerator], seed: int) -> LocalGenerator:
    section = workspace.params.baselines
    return fine_tune(
        base(), workspace.questions("train"), steps=section.sft_steps, batch_size=32,
        learning_rate=section.sft_learning_rate, seed=seed,
    )  # fmt: skip


def _retriever(workspace: Workspace, pool: Pool) -> RetrieverPool | None:
    """What RAG and Search-R1 search; None if the parameters name neither."""
    section = workspace.params.baselines
    if not {"rag", "search_r1"} & set(section.include):
        return None
    if section.corpus is not None:
        index: Index = FileIndex(section.corpus, PATHS.runs / "bm25" / digest(section.corpus))
    elif workspace.params.dataset.source == "embedded":
        index = MemoryIndex(statements(workspace.facts))
    else:
        raise ConfigError(
            "params.yaml: baselines.corpus: rag and search_r1 need passages to search"
        )
    names = [card.name for card in pool.cards]
    return RetrieverPool(index, count=section.passages, aliases=names)


def evaluate_replay(
    baselines: BaselineParams, section: EvaluateParams, log: Path, out: Path, repetitions: int
) -> None:
    """Compare learned single-round routers on recorded replies, under every metric; not a stage."""
    found = {}
    for metric in METRICS:
        matrix = read_log(log, metric)
        with track(f"replay, {metric}", 2 * repetitions) as bar:
            found[metric] = study(
                matrix, baselines, section, repetitions=repetitions, progress=bar.update
            )
    values = {metric: result.model_dump(mode="json") for metric, result in found.items()}
    write_json(out / "replay.json", values)
    atomic_write_text(out / "replay.md", studies_text(found))
