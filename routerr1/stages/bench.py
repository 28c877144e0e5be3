"""Shared benchmarks of routers; no stage of dvc.yaml."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from routerr1.baselines import arena
from routerr1.baselines.arena import Names, Prediction
from routerr1.baselines.cascade import Cascade
from routerr1.baselines.learned import Chooser
from routerr1.baselines.published import Benchmark, read_benchmark
from routerr1.baselines.replay_study import ReplayStudy, study
from routerr1.baselines.replies import answer_all
from routerr1.baselines.saved import SavedRouter, fit_router
from routerr1.config import BaselineParams, EvaluateParams, Params
from routerr1.errors import ConfigError, ungrouped
from routerr1.evaluate.controls import POLICY
from routerr1.evaluate.run import policies_of
from routerr1.files import atomic_write_text, digest
from routerr1.jobs.progress import track
from routerr1.lineage import PATHS, fingerprint, hash_of
from routerr1.pool.base import Pool
from routerr1.report.replay import study_text
from routerr1.types import Question, Trajectory
from routerr1.workspace import Workspace


def bench_published(
    name: Benchmark,
    source: Path,
    out: Path,
    baselines: BaselineParams,
    section: EvaluateParams,
    *,
    models: Sequence[str] = (),
    limit: int | None = None,
    repetitions: int = 5,
) -> ReplayStudy:
    """Compare learned routers on the replies that a benchmark publishes; write a table.

    Args:
        out: where the table goes, without its suffix: .json and .md are added.

    Raises: DataError as `read_benchmark`.
    """
    matrix = read_benchmark(name, source, models=models, limit=limit, seed=section.seed)
    with track(name, 2 * repetitions) as bar:
        found = study(matrix, baselines, section, repetitions=repetitions, progress=bar.update)
    found.write(out.with_name(f"{out.name}.json"))
    atomic_write_text(out.with_name(f"{out.name}.md"), study_text(out.name, found))
    return found


def bench_routerarena(
    params: Params,
    dataset: Path,
    root: Path,
    *,
    router: str,
    name: str,
    renamed: Mapping[str, str],
    call: bool,
) -> tuple[int, int]:
    """Write the config and the predictions of a router in RouterArena's form.

    The router plays as in the stage evaluate: same seed, spend level and concurrency, and calls that are
    paid are kept until the predictions are written.

    Args:
        root: a clone of RouterArena, or any folder.
        router: `policy`, or a router that can be fitted without one.
        name: of the router in RouterArena.
        renamed: our candidates' names -> RouterArena's.
        call: ask the candidates; otherwise the router only chooses.

    Returns: the number of questions, and for how many of them several candidates were called.
    Raises: ConfigError if the router cannot choose without calls, or a renamed candidate is unknown; DataError
        naming what is malformed in `dataset`.
    """
    workspace = Workspace(params)
    questions = arena.read_questions(dataset)
    candidates = [card.name for card in workspace.cards]
    if unknown := sorted(set(renamed) - set(candidates)):
        raise ConfigError(
            f"bench: --rename {unknown[0]}: no candidate; there are {', '.join(candidates)}"
        )
    names = Names(renamed)
    calls = _calls_file(params)
    if call:
        played = asyncio.run(play_router(workspace, questions, router, calls))
        fallback = min(workspace.cards, key=lambda card: card.completion_usd_per_mtok).name
        predictions = [
            arena.answered(each, names, fallback=fallback, whole_reply=router != POLICY)
            for each in played
        ]
    else:
        played = []
        predictions = _chosen(_fitted(workspace, router), questions, names)
    arena.write_router(root, name, [names.of(each) for each in candidates], predictions)
    calls.unlink(missing_ok=True)
    return len(predictions), arena.several(played)


def _fitted(workspace: Workspace, router: str) -> Chooser | Cascade:
    if router == POLICY:
        raise ConfigError("bench: a policy chooses by asking; leave out --choose-only")
    params = workspace.params
    what = SavedRouter(router=router, seed=params.seeds[0], baselines=params.baselines)
    return fit_router(what, PATHS.matrix, PATHS.cards)


def _chosen(
    router: Chooser | Cascade, questions: Sequence[Question], names: Names
) -> list[Prediction]:
    if isinstance(router, Cascade):
        raise ConfigError("bench: a cascade chooses by reading replies; leave out --choose-only")
    return [
        arena.choice(question, router.choose(question.question), names) for question in questions
    ]


def _calls_file(params: Params) -> Path:
    """Where paid calls are kept; a recorded call says neither which endpoint answered nor what it charges now."""
    file = params.pool.file
    known = [fingerprint(params, "pool"), digest(file) if file is not None else None]
    return PATHS.calls / f"bench-{hash_of(known)}.jsonl"


async def play_router(
    workspace: Workspace, questions: Sequence[Question], router: str, calls: Path
) -> list[Trajectory]:
    """The questions as the stage evaluate would play them; in their order.

    Args:
        router: see `bench_routerarena`.
        calls: where paid calls are kept.
    """
    section = workspace.params.evaluate
    asked = workspace.at_spend_level(questions)
    pool = workspace.keep_calls(workspace.open_pool(workspace.cards), calls)
    async with aclosing(pool):
        if router == POLICY:
            return await _by_policy(workspace, asked, pool)
        return await answer_all(
            asked,
            _fitted(workspace, router),
            pool,
            seed=section.seed,
            concurrency=section.concurrency,
        )


async def _by_policy(
    workspace: Workspace, questions: Sequence[Question], pool: Pool
) -> list[Trajectory]:
    params = workspace.params
    seed = params.seeds[0]
    generators = {seed: workspace.policy(seed)}
    (policy,) = policies_of(generators, workspace.renderer, params)
    slots = asyncio.Semaphore(params.evaluate.concurrency)

    async def one(question: Question) -> Trajectory:
        async with slots:
            return await policy.play(
                question, pool, seed=params.evaluate.seed, player=f"{arena.DATASET}/{seed}"
            )

    with ungrouped():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(question)) for question in questions]
    return [task.result() for task in tasks]
