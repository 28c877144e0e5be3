"""The stages of dvc.yaml: each reads params and the outputs before it, builds the parts, calls, writes.

No arithmetic here. Paths are relative to the repository's root, as in dvc.yaml. Working files that must
survive a kill lie under runs/, outside of DVC's outputs, which DVC deletes before it runs a stage.
"""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from routerr1 import prompt
from routerr1.config import Params
from routerr1.errors import CheckpointError, ConfigError, DataError, PoolError
from routerr1.files import digest, write_json
from routerr1.fingerprints import TRAINING_CODE, code, fingerprint, hash_of, sections
from routerr1.pool.interface import Pool
from routerr1.progress import Progress, track, working
from routerr1.types import Card, Question, Split, Trajectory

if TYPE_CHECKING:
    from routerr1.baselines.retrieval import RetrieverPool
    from routerr1.data.embedded import World
    from routerr1.evaluate.changes import Changes
    from routerr1.evaluate.controls import Router
    from routerr1.evaluate.lazy import Lazy
    from routerr1.evaluate.rows import Row
    from routerr1.evaluate.run import Job
    from routerr1.evaluate.shards import Learnt
    from routerr1.rollout.generate import Generator
    from routerr1.rollout.local import LocalGenerator
    from routerr1.tracking import Run
    from routerr1.train.grpo import Trained
    from routerr1.train.rehearsal import Rehearsal
    from routerr1.train.setting import Setting, Task

QUESTIONS = Path("data/questions")
CHECKS = Path("data/checks")
POOL = Path("data/pool")
WARMSTART = Path("models/warmstart")
POLICY = Path("models/policy")
OTHER_SEEDS = Path("models/seeds")
TRAINING = Path("data/train")
RUN_FILE = TRAINING / "run.json"
EVALUATION = Path("data/eval")
GENERALIZATION = Path("data/generalize")
REPORT = Path("data/report")
RUNS = Path("runs")
WARM_STARTED = RUNS / "warmstart"  # seeds that are done, until all are
PROFILED = RUNS / "profile"  # calls that profiling has made; they answer if the stage is run again
CALLS = RUNS / "calls"  # paid calls of an evaluation that is under way; see `keep_calls`

_FORMED_ENOUGH = 0.95
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def dataset(params: Params) -> None:
    """Questions into data/questions."""
    from routerr1.data.build import build_dataset
    from routerr1.data.imported import require_known

    require_known(params.dataset.imported)
    with track("dataset", 0) as bar:
        build_dataset(params.dataset, QUESTIONS, progress=lambda rows: bar.update(rows, rows))


def checks(params: Params) -> None:
    """Expectations about the questions into data/checks; raises CheckFailed."""
    from routerr1.data.checks import run_checks

    with track("checks", 0) as bar:
        run_checks(QUESTIONS, params.dataset, params.checks, CHECKS, progress=bar.update)


def profile(params: Params) -> None:
    """Probe questions to every candidate; cards and matrix into data/pool."""
    from routerr1.pool.profile import profile as profile_pool
    from routerr1.pool.profile import sample_probes, write_profile

    section = params.profile_pool
    probes = sample_probes(questions_of(section.split), section.probes, section.seed)
    pool = open_pool(params)
    render = renderer(params)
    for probe in probes[:1]:  # a prompt that cannot be used is found out before anything is paid
        render(probe, pool.cards)
    store = _profile_store(params, "pool", "profile_pool")
    with track("profile", len(probes) * len(pool.cards)) as bar:
        found = asyncio.run(
            _closing(pool, profile_pool(probes, pool, store=store, progress=bar.update))
        )
    write_profile(POOL, found)


def _profile_store(params: Params, *names: str) -> Path | None:
    """Where probes' replies wait for the stage to be run again; they hang on the sections `names`, and on the
    pool files of these: a recorded call tells neither which endpoint answered nor what it charges by now.

    A simulated pool needs none: it costs nothing, and what it says changes with the code.
    """
    if params.pool.kind == "simulated":
        return None
    pools = {"pool": params.pool.file, "generalize": params.generalize.file}
    read = [digest(file) for name in names if (file := pools.get(name)) is not None]
    return PROFILED / f"{hash_of([fingerprint(params, *names), *read])}.jsonl"


def warmstart(params: Params) -> None:
    """Supervised warm start for every seed; models/warmstart and its metrics."""
    from routerr1.files import atomic_directory
    from routerr1.train.checkpoint import read_manifest
    from routerr1.train.guard import die_with_pipeline, only_trainer
    from routerr1.train.warmstart import adopt

    die_with_pipeline()
    adopted = params.model.init != "scratch" and not params.warmstart.steps
    if not adopted and params.dataset.source != "embedded":
        raise ConfigError(
            "params.yaml: warmstart: learns from the embedded questions' parts; with other questions name a "
            "pretrained model in model.init and set warmstart.steps to 0"
        )
    with only_trainer(RUNS):
        with atomic_directory(WARMSTART) as aside:
            for seed in params.seeds:
                if adopted:
                    adopt(params.model.init, aside / f"seed-{seed}")
                else:
                    shutil.copytree(_warm_started(params, seed), aside / f"seed-{seed}")
        metrics = {
            f"seed_{seed}": read_manifest(WARMSTART / f"seed-{seed}")["metrics"]
            for seed in params.seeds
        }
        write_json(Path("data/warmstart/metrics.json"), metrics)
        shutil.rmtree(WARM_STARTED, ignore_errors=True)


def _warm_started(params: Params, seed: int) -> Path:
    """The warm start of one seed, under runs/: one that is there is taken, so that a kill costs no other seed."""
    from routerr1.train.checkpoint import read_manifest
    from routerr1.train.warmstart import warm_start

    folder = WARM_STARTED / f"{hash_of(_warmstart_parts(params))}-seed-{seed}"
    with suppress(CheckpointError):
        read_manifest(folder)
        _log.info("warm start, seed %d: was done before", seed)
        return folder
    began = time.perf_counter()
    metrics = warm_start(_all_questions(), _world(params), read_cards(), params, seed, folder)
    _log.info("warm start, seed %d: %.0f s", seed, time.perf_counter() - began)
    if metrics["format_validity"] < _FORMED_ENOUGH:
        _log.warning(
            "warm start, seed %d: %.0f%% of the trajectories it samples keep the format; under %.0f%%, "
            "reinforcement learning first learns to be short: raise warmstart.steps",
            seed, 100 * metrics["format_validity"], 100 * _FORMED_ENOUGH,
        )  # fmt: skip
    return folder


def _warmstart_parts(params: Params) -> dict[str, Any]:
    """What a warm start depends on, beside its seed."""
    return {
        "params": sections(params, "dataset", "pool", "prompt", "rollout", "model", "warmstart"),
        "data": digest(QUESTIONS),
        "cards": digest(POOL / "cards.json"),
        "prompt": _prompt_hash(params),
        "code": code(),
    }


def train(params: Params) -> None:
    """GRPO for every seed; the first seed's policy into models/policy, the others' into models/seeds."""
    from routerr1.tracking import open_run
    from routerr1.train.guard import die_with_pipeline, only_trainer

    die_with_pipeline()
    if int(os.environ.get("RANK", "0")):
        _follow(params)
        return
    with only_trainer(RUNS):
        about = _read_inputs(params)
        with open_run(params.registry, RUN_FILE, resume=False) as run:
            _train_seeds(params, about, run)
        # Only now: a kill before it would cost the seeds that are done.
        for seed in params.seeds:
            shutil.rmtree(_working_folder(about[seed], seed), ignore_errors=True)


def _read_inputs(params: Params) -> dict[int, dict[str, Any]]:
    """What each seed's policy depends on, once all that training reads is known to be fit for use.

    Raises: ConfigError, DataError, PoolError, CheckpointError: before a run is opened or anything is paid.
    """
    from routerr1.train.checkpoint import read_manifest

    asyncio.run(open_pool(params, read_cards()).aclose())
    renderer(params)
    for seed in params.seeds:
        read_manifest(WARMSTART / f"seed-{seed}")
    count, wanted = len(questions_of("train")), params.train.questions_per_step
    if params.train.steps and count < (1 if params.pool.redraw else wanted):
        raise DataError(
            f"{QUESTIONS}: holds {count} training questions, and a step takes {wanted} "
            "(train.questions_per_step)"
        )
    if not questions_of("validation"):
        raise DataError(
            f"{QUESTIONS}: holds no validation questions, by which training chooses its best step"
        )
    return {seed: fingerprint_parts(params, seed) for seed in params.seeds}


def _train_seeds(params: Params, about: Mapping[int, Mapping[str, Any]], run: "Run") -> None:
    from routerr1.train.recorder import train_hours

    run.log_params(params)
    run.log_dataset(QUESTIONS, "training")
    metrics: dict[str, Any] = {}
    rows: dict[int, list[dict[str, float]]] = {}
    timing: dict[int, list[dict[str, float]]] = {}
    write_json(OTHER_SEEDS / "seeds.json", {"first": params.seeds[0], "others": params.seeds[1:]})
    for place, seed in enumerate(params.seeds):
        target = POLICY if place == 0 else OTHER_SEEDS / f"seed-{seed}"
        trained, metrics[f"seed_{seed}"] = _train_seed(params, seed, about[seed], target, run)
        rows[seed], timing[seed] = trained.rows, trained.timing
    # By steps: a process that went on with another's work knows only its own seconds.
    hours = train_hours(row for found in timing.values() for row in found)
    cost = sum(found.pop("train_cost_usd") for found in metrics.values())
    run.log_metrics({"train": metrics, "train_hours": hours, "train_cost_usd": cost})
    _write_training(params, rows, {**metrics, "train_cost_usd": cost})
    _write_times(timing, hours)
    for name in ("log.csv", "seeds.csv"):
        run.log_artifact(TRAINING / name, "curves")


def _follow(params: Params) -> None:
    """The part in training of a process that `accelerate` started beside the first, which alone writes."""
    from routerr1.train.grpo import train as run_grpo

    about = _read_inputs(params)
    for seed in params.seeds:
        pool = open_pool(params, read_cards())
        try:
            run_grpo(
                WARMSTART / f"seed-{seed}", train_setting(params, pool, seed),
                _working_folder(about[seed], seed), progress=lambda _: None,
            )  # fmt: skip
        finally:
            asyncio.run(pool.aclose())


def _working_folder(about: Mapping[str, Any], seed: int) -> Path:
    return RUNS / "train" / f"{hash_of(about)}-seed-{seed}"


def _write_training(
    params: Params,
    rows: Mapping[int, list[dict[str, float]]],
    metrics: Mapping[str, Any],
) -> None:
    from routerr1.train.recorder import write_log

    write_log(TRAINING / "log.csv", rows[params.seeds[0]])
    every = [{"seed": float(seed), **row} for seed, found in rows.items() for row in found]
    write_log(TRAINING / "seeds.csv", every)
    write_json(TRAINING / "metrics.json", metrics)


def _write_times(timing: Mapping[int, list[dict[str, float]]], hours: float) -> None:
    """Times differ from run to run, so they stand apart from what is equal to the byte."""
    from routerr1.train.recorder import write_log

    every = [{"seed": float(seed), **row} for seed, found in timing.items() for row in found]
    write_log(TRAINING / "seconds.csv", every)
    write_json(TRAINING / "timing.json", {"train_hours": round(hours, 4)})


def _train_seed(
    params: Params, seed: int, about: Mapping[str, Any], target: Path, run: "Run"
) -> tuple["Trained", dict[str, float]]:
    from routerr1.tracing import spread
    from routerr1.train.checkpoint import save_policy
    from routerr1.train.grpo import train as run_grpo
    from routerr1.train.recorder import train_cost_usd

    pool = open_pool(params, read_cards())
    start = WARMSTART / f"seed-{seed}"
    folder = _working_folder(about, seed)
    setting = train_setting(params, pool, seed)

    def log_step(step: int, row: Mapping[str, float]) -> None:
        run.log_metrics({f"seed_{seed}/{key}": value for key, value in row.items()}, step)

    traced = set(spread(range(1, params.train.steps + 1), params.trace.train))

    def log_played(step: int, played: Sequence[Trajectory]) -> None:
        if step in traced:
            tags = {"stage": "train", "seed": str(seed), "step": str(step)}
            run.hand_over_traces(played[:1], tags)

    try:
        with track(f"train, seed {seed}", params.train.steps) as bar:
            trained = run_grpo(
                start, setting, folder,
                progress=lambda row: bar.update(
                    int(row["step"]), note=f"reward {row['reward']:.2f}, EM {row['em']:.2f}"
                ),
                log_step=log_step, log_played=log_played,
            )  # fmt: skip
    finally:
        asyncio.run(pool.aclose())
    save_policy(
        trained.folder,
        target,
        {**about, "cost_scale": trained.cost_scale.state(), "best_step": trained.best_step},
    )
    at_best = (row for row in trained.rows if row["step"] == trained.best_step)
    best = next(at_best, trained.start)
    per_step = params.train.questions_per_step * params.train.rollouts_per_question
    return trained, {
        "best_step": trained.best_step,
        "steps": int(trained.rows[-1]["step"]),
        "train_cost_usd": train_cost_usd(
            [trained.start, *trained.rows], per_step, len(setting.validation)
        ),
        **{key: value for key, value in best.items() if key.startswith("validation/")},
        **{key.replace("validation/", "start/"): value for key, value in trained.start.items()},
    }


def train_setting(params: Params, pool: Pool, seed: int) -> "Setting":
    """What a training run of these params keeps fixed."""
    from routerr1.rollout.local import loading
    from routerr1.train.setting import Setting

    held = _sampled(questions_of("validation"), params.train.validation_questions, seed)
    return Setting(
        tasks=_tasks(
            params,
            questions_of("train"),
            pool,
            seed,
            params.train.steps * params.train.questions_per_step,
        ),
        validation=_tasks(params, held, pool, seed + 1, len(held)),
        names=[] if params.pool.redraw == 1 else [card.name for card in pool.cards],
        render=renderer(params),
        rollout=params.rollout,
        reward=params.reward,
        train=params.train,
        seed=seed,
        in_step=params.pool.calls != "live",
        how=loading(params),
        rehearsal=_rehearsal(params, seed),
    )


def _rehearsal(params: Params, seed: int) -> "Rehearsal | None":
    """What a warm start taught; None where there was none."""
    from routerr1.pool.simulated import known_facts
    from routerr1.train.rehearsal import rehearsal
    from routerr1.train.warmstart import drawn_cards, names_met

    if not (params.train.rehearsal_weight and params.warmstart.steps):
        return None
    world = _world(params)
    cards = partial(drawn_cards, names_met(read_cards(), params), known_facts(world), seed)
    return rehearsal(_all_questions(), world, cards, params, seed, render=renderer(params))


def _all_questions() -> list[Question]:
    return questions_of("train") + questions_of("validation") + questions_of("test")


def evaluate(params: Params) -> None:
    """The policy and its controls on the split asked for; rows, table and metrics into data/eval."""
    from routerr1.evaluate.controls import POLICY
    from routerr1.evaluate.outputs import write_evaluation
    from routerr1.evaluate.run import TRAINING_POOL, evaluation_of, play_all
    from routerr1.evaluate.shards import play_on_ray
    from routerr1.evaluate.store import RowStore
    from routerr1.tracing import Kept
    from routerr1.tracking import open_run

    section = params.evaluate
    mark = evaluation_fingerprint(params, "evaluate")
    store, calls = RowStore(RUNS / "eval.jsonl", mark), CALLS / f"evaluate-{mark}.jsonl"
    open_kept = partial(_open_kept, params, calls)
    kept = Kept()

    async def play(pool: Pool, bar: Progress) -> list["Row"]:
        jobs = [
            (kept.keep(router) if router.name == POLICY else router, question)
            for router, question in _evaluation_jobs(params, pool, {})
        ]
        return await play_all(
            jobs, concurrency=section.concurrency, store=store, progress=bar.update
        )

    with track("evaluate", 0) as bar:
        if section.executor == "ray":
            rows = play_on_ray(
                partial(_evaluation_jobs, params), open_kept, shared=params.pool.kind != "simulated",
                players=section.shards, concurrency=section.concurrency, store=store,
                progress=bar.update,
            )  # fmt: skip
        else:
            pool = open_kept()
            rows = asyncio.run(_closing(pool, play(pool, bar)))
    found = evaluation_of(rows)
    _, figures = write_evaluation(EVALUATION, found, section)
    with open_run(params.registry, RUN_FILE, resume=True) as run:
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


def keep_calls(pool: Pool, params: Params, path: Path) -> Pool:
    """`pool`, its calls kept in `path` until the stage is done, where nobody else keeps what is paid.

    A stage that is started again after a kill then pays no call twice; nor does one evaluation in which
    several routers put the same question to the same candidate.
    """
    from routerr1.pool.recording import Recorder
    from routerr1.pool.records import RecordStore

    if params.pool.kind == "simulated" or params.pool.calls != "live":
        return pool
    return Recorder(pool, RecordStore(path), repeats=False)


def _evaluation_jobs(params: Params, pool: Pool, learnt: "Learnt") -> list["Job"]:
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
    from routerr1.evaluate.lazy import Lazy, LazyGenerator
    from routerr1.evaluate.run import TRAINING_POOL, WHOLE, policies_of

    section = params.baselines
    if not section.include:
        return [], []
    retriever = _retriever(params, pool)
    matrix = read_matrix(POOL / "matrix.parquet", questions_of(params.profile_pool.split))
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
    from routerr1.pool.simulated import known_facts

    section = params.baselines
    if not {"rag", "search_r1"} & set(section.include):
        return None
    if section.corpus is not None:
        index: Index = FileIndex(section.corpus, RUNS / "bm25" / digest(section.corpus))
    elif params.dataset.source == "embedded":
        index = MemoryIndex(passages_of(known_facts(_world(params))))
    else:
        raise ConfigError(
            "params.yaml: baselines.corpus: rag and search_r1 need passages to search"
        )
    names = [card.name for card in pool.cards]
    return RetrieverPool(index, count=section.passages, aliases=names)


def evaluate_replay(params: Params, log: Path, out: Path, repetitions: int) -> None:
    """Learned single-round routers on recorded replies, under every metric, into `out`; no stage."""
    from routerr1.evaluate.replay import METRICS, read_log, studies_markdown, study
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


def generalize(params: Params) -> None:
    """The policy on pools it never saw; rows, comparison and metrics into data/generalize."""
    from routerr1.evaluate.generalize import generalize as run_generalization
    from routerr1.evaluate.outputs import write_generalization
    from routerr1.evaluate.store import RowStore
    from routerr1.pool.changed import ChangedPool
    from routerr1.tracking import open_run

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
        rows, changes = asyncio.run(_closing(everyone, play(bar)))
    _, figures = write_generalization(GENERALIZATION, rows, changes, params.evaluate)
    with open_run(params.registry, RUN_FILE, resume=True) as run:
        run.log_metrics({"generalize": figures})
    store.discard()
    calls.unlink(missing_ok=True)


def _open_grown_pool(params: Params, cards: Sequence[Card]) -> Pool:
    """The training pool and, behind it, models that training never saw, where `params` name any."""
    from routerr1.pool.build import guard, open_http_pool
    from routerr1.pool.simulated import (
        SimulatedPool,
        candidates_of,
        drawn_candidates,
        known_facts,
    )

    if params.pool.kind != "simulated":
        return open_http_pool(params.pool, added=params.generalize.file)
    drawn = drawn_candidates(params.generalize.pool_seed)
    known = known_facts(_world(params))
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
    store = _profile_store(params, "pool", "profile_pool", "generalize")
    found = await profile(probes, ChangedPool(everyone, new), store=store)
    return with_new_models(everyone, cards, found.cards, params.generalize.added_models)


def _redrawn(params: Params, pool: Pool) -> "Changes":
    from routerr1.evaluate.lazy import LazyGenerator
    from routerr1.evaluate.redrawn import not_redrawn, redrawn
    from routerr1.evaluate.run import policies_of
    from routerr1.pool.simulated import known_facts

    if params.pool.kind != "simulated":
        return not_redrawn("real models cannot be drawn")
    generators = {
        seed: LazyGenerator(partial(load_policy, WARMSTART / f"seed-{seed}", params))
        for seed in params.seeds
    }
    before = policies_of(
        generators, render=renderer(params), rollout=params.rollout, params=params.evaluate
    )
    known = known_facts(_world(params))
    by_seed = {policy.seed: policy for policy in before}
    return redrawn(pool, known, by_seed, params.generalize.pool_seed)


def report(params: Params) -> None:
    """Tables, plots and trajectories into data/report."""
    with working("report"):
        _write_report(params)


def _write_report(params: Params) -> None:
    from routerr1.report import read_sources, write_report

    facts = {
        "profile": params.profile,
        "training seeds": ", ".join(map(str, params.seeds)),
        "questions (SHA-256)": digest(QUESTIONS)[:16],
        "cards (SHA-256)": digest(POOL / "cards.json")[:16],
        "evaluation rows (SHA-256)": digest(EVALUATION / "rows.parquet")[:16],
    }
    simulated = params.pool.kind == "simulated"
    write_report(REPORT, read_sources(Path("data"), simulated=simulated, facts=facts))


def open_pool(
    params: Params, cards: Sequence[Card] | None = None, *, run: str | None = None
) -> Pool:
    """The pool that params name; `cards` (from profiling) instead of its own.

    Args:
        run: whose budget of a run it uses where the environment names none.
    """
    from routerr1.pool.build import ONE_RUN, guard, open_http_pool
    from routerr1.pool.simulated import SimulatedPool, candidates_of, known_facts

    if params.pool.kind == "simulated":
        if params.dataset.source != "embedded":
            raise ConfigError("params.yaml: pool.kind: simulated answers embedded questions only")
        known = known_facts(_world(params))
        candidates = candidates_of(params.pool.candidates)
        strangers = {card.name for card in cards or ()} - {each.name for each in candidates}
        if strangers:
            raise PoolError(
                f"{POOL / 'cards.json'}: the simulated pool has no candidate {min(strangers)!r}; "
                "run the profile stage again"
            )
        simulated = SimulatedPool(candidates, known, seed=params.pool.seed, cards=cards)
        return guard(simulated, params.pool, run=run or ONE_RUN)
    return open_http_pool(params.pool, cards, run=run or ONE_RUN)


def read_cards() -> list[Card]:
    """The profiled cards of data/pool."""
    from routerr1.pool.cards import read_cards as read

    return read(POOL / "cards.json")


def renderer(params: Params) -> prompt.Renderer:
    """The prompt's renderer."""
    section = params.prompt
    return prompt.renderer(section.template, params.rollout.max_rounds, section.file)


def _prompt_hash(params: Params) -> str:
    section = params.prompt
    return prompt.prompt_hash(section.template, params.rollout.max_rounds, section.file)


def load_policies(params: Params) -> dict[int, "Generator"]:
    """The trained policy of every seed, loaded (see `load_policy`) when it is first played."""
    from routerr1.evaluate.lazy import LazyGenerator

    folders = [POLICY, *(OTHER_SEEDS / f"seed-{seed}" for seed in params.seeds[1:])]
    return {
        seed: LazyGenerator(partial(load_policy, folder, params))
        for seed, folder in zip(params.seeds, folders, strict=True)
    }


def load_policy(folder: Path, params: Params) -> "LocalGenerator":
    """A saved policy, on the device that params name.

    Raises: CheckpointError if a file is missing, corrupt or cannot be loaded.
    """
    from routerr1.train.checkpoint import read_manifest

    read_manifest(folder)
    return load_checkpoint(folder, params)


def load_checkpoint(name: Path | str, params: Params) -> "LocalGenerator":
    """Any causal LM that transformers loads, from a folder or the hub; its files are not checked.

    Raises: CheckpointError if it cannot be loaded.
    """
    from routerr1.rollout.local import LocalGenerator, loading

    return LocalGenerator.load(name, loading(params))


def fingerprint_parts(params: Params, seed: int) -> dict[str, Any]:
    """What a trained policy depends on; stored with it, and the name of its working folder."""
    return {
        "seed": seed,
        "params": sections(params, "prompt", "rollout", "model", "reward", "train", "pool"),
        "data": digest(QUESTIONS),
        "cards": digest(POOL / "cards.json"),
        "prompt": _prompt_hash(params),
        "warmstart": digest(WARMSTART / f"seed-{seed}"),
        "code": code(*TRAINING_CODE),
    }


def evaluation_fingerprint(params: Params, section: str) -> str:
    """Of everything that the rows and calls of an evaluation with these `params` depend on."""
    return hash_of(
        {
            "code": code(),
            "params": fingerprint(
                params, "rollout", "prompt", "pool", "evaluate", "baselines", section
            ),
            "prompt": _prompt_hash(params),
            "policies": digest(POLICY),
            "others": digest(OTHER_SEEDS),
            "data": digest(QUESTIONS),
            "cards": digest(POOL / "cards.json"),
            "matrix": digest(POOL / "matrix.parquet"),
            "base": digest(WARMSTART),
            "files": [
                digest(path) if path else None
                for path in (params.baselines.corpus, params.pool.file, params.generalize.file)
            ],
        }
    )


def questions_of(split: Split) -> list[Question]:
    """The questions of one split of data/questions."""
    from routerr1.data.splits import read_questions

    return read_questions(QUESTIONS, split)


def _tasks(
    params: Params, questions: list[Question], pool: Pool, seed: int, count: int
) -> list["Task"]:
    """Every question on `pool`; or, if pools vary, `count` questions, as many as `pool.redraw` says with a
    pool of its own, and as many as `pool.hide` says without one candidate."""
    from routerr1.pool.changed import ChangedPool
    from routerr1.train.setting import Task

    section = params.pool
    if not (section.redraw or section.hide):
        return [Task(question, pool) for question in questions]
    rng = Random(f"tasks/{seed}")
    draw = _redrawing(params, seed) if section.redraw else None

    def pool_of(place: int) -> Pool:
        chosen = draw(place) if draw and rng.random() < section.redraw else pool
        if rng.random() >= section.hide:
            return chosen
        hidden = rng.choice(chosen.cards)
        return ChangedPool(chosen, [card for card in chosen.cards if card != hidden])

    rounds = [rng.sample(questions, len(questions)) for _ in range(-(-count // len(questions)))]
    drawn = [question for each in rounds for question in each][:count]
    return [Task(question, pool_of(place)) for place, question in enumerate(drawn)]


def _redrawing(params: Params, seed: int) -> Callable[[int], Pool]:
    """The n-th drawn pool of a training run."""
    from routerr1.pool.simulated import known_facts, training_pool
    from routerr1.rollout.loop import stream_seed

    known = known_facts(_world(params))
    return lambda place: training_pool(known, stream_seed(seed, place))


def _sampled(questions: list[Question], count: int, seed: int) -> list[Question]:
    """`count` of `questions`, drawn by `seed`; all of them if there are no more."""
    return Random(f"validation/{seed}").sample(questions, min(count, len(questions)))


def _world(params: Params) -> "World":
    from routerr1.data.embedded import build_world

    return build_world(params.dataset.embedded)


async def _closing(pool: Pool, work: Awaitable[Result]) -> Result:
    try:
        return await work
    finally:
        await pool.aclose()
