"""The stage train, and the setting of a training run, which the sweep trains with too."""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.files import write_json
from routerr1.fingerprints import hash_of
from routerr1.lineage import known_commit
from routerr1.pool.interface import Pool
from routerr1.progress import track
from routerr1.stages.parts import (
    all_questions,
    fingerprint_parts,
    open_pool,
    questions_of,
    read_cards,
    renderer,
    world_of,
)
from routerr1.stages.places import (
    OTHER_SEEDS,
    POLICY,
    QUESTIONS,
    RUN_FILE,
    RUNS,
    TRAIN_SECONDS,
    TRAINING,
    WARMSTART,
)
from routerr1.types import Question, Trajectory

if TYPE_CHECKING:
    from routerr1.tracking.runs import Run
    from routerr1.train.grpo import Trained
    from routerr1.train.rehearsal import Rehearsal
    from routerr1.train.setting import Setting, Task


def train(params: Params) -> None:
    """GRPO for every seed; the first seed's policy into models/policy, the others' into models/seeds."""
    from routerr1.tracking.runs import new_run
    from routerr1.train.process_lock import die_with_pipeline, only_trainer

    die_with_pipeline()
    if int(os.environ.get("RANK", "0")):
        _follow(params)
        return
    with only_trainer(RUNS):
        about = _read_inputs(params)
        with new_run(params.registry, RUN_FILE, hash_of(about), name=_run_name(params)) as run:
            _train_seeds(params, about, run)
        # Only now: a kill before it would cost the seeds that are done.
        for seed in params.seeds:
            shutil.rmtree(_working_folder(about[seed], seed), ignore_errors=True)


def _run_name(params: Params) -> str:
    """What MLflow's lists show, e.g. "embedded, seeds 1 2 3, at 1a2b3c4"."""
    commit = known_commit()
    seeds = f"seed{'s' * (len(params.seeds) > 1)} {' '.join(map(str, params.seeds))}"
    return ", ".join([params.preset, seeds, *([f"at {commit[:7]}"] if commit else [])])


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
    if params.train.steps and count < (1 if _vary(params) else wanted):
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
    _write_times(timing)
    for path in (TRAINING / "log.csv", TRAINING / "seeds.csv", TRAIN_SECONDS):
        run.log_artifact(path, "curves")


def _train_seed(
    params: Params, seed: int, about: Mapping[str, Any], target: Path, run: "Run"
) -> tuple["Trained", dict[str, float]]:
    from routerr1.tracking.traces import spread
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
    by_step = trained.by_step
    per_step = params.train.questions_per_step * params.train.rollouts_per_question
    return trained, {
        "best_step": trained.best_step,
        "steps": int(trained.rows[-1]["step"]),
        "train_cost_usd": train_cost_usd(by_step.values(), per_step, len(setting.validation)),
        **{
            key: value
            for key, value in by_step[trained.best_step].items()
            if key.startswith("validation/")
        },
        **{key.replace("validation/", "start/"): value for key, value in trained.start.items()},
    }


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


def _write_times(timing: Mapping[int, list[dict[str, float]]]) -> None:
    """Seconds of every step. They differ from run to run, so they are no output that DVC hashes."""
    from routerr1.train.recorder import write_log

    every = [{"seed": float(seed), **row} for seed, found in timing.items() for row in found]
    write_log(TRAIN_SECONDS, every)


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


def train_setting(params: Params, pool: Pool, seed: int) -> "Setting":
    """What a training run of these params keeps fixed."""
    from routerr1.policy.load import load_options
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
        lockstep=params.pool.calls != "live",
        how=load_options(params),
        rehearsal=_rehearsal(params, seed),
    )


def _tasks(
    params: Params, questions: list[Question], pool: Pool, seed: int, count: int
) -> list["Task"]:
    """Every question on `pool`; or, if pools vary, `count` questions, as many as `pool.redraw` says with a
    pool of its own, and as many as `pool.hide` says without one candidate."""
    from routerr1.pool.changed import ChangedPool
    from routerr1.train.setting import Task

    section = params.pool
    if not _vary(params):
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


def _vary(params: Params) -> bool:
    """Do pools differ between questions? One question may then be asked in a step more than once."""
    return bool(params.pool.redraw or params.pool.hide)


def _redrawing(params: Params, seed: int) -> Callable[[int], Pool]:
    """The n-th drawn pool of a training run."""
    from routerr1.rollout.loop import stream_seed
    from routerr1.simulation.pool import known_facts, training_pool

    known = known_facts(world_of(params))
    return lambda place: training_pool(known, stream_seed(seed, place))


def _sampled(questions: list[Question], count: int, seed: int) -> list[Question]:
    """`count` of `questions`, drawn by `seed`; all of them if there are no more."""
    return Random(f"validation/{seed}").sample(questions, min(count, len(questions)))


def _rehearsal(params: Params, seed: int) -> "Rehearsal | None":
    """What a warm start taught; None where there was none."""
    from routerr1.simulation.pool import known_facts
    from routerr1.train.rehearsal import rehearsal
    from routerr1.train.warmstart import drawn_cards, names_met

    if not (params.train.rehearsal_weight and params.warmstart.steps):
        return None
    world = world_of(params)
    cards = partial(drawn_cards, names_met(read_cards(), params), known_facts(world), seed)
    return rehearsal(all_questions(), world, cards, params, seed, render=renderer(params))
