"""The stage train: reinforcement learning, for every training seed."""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from routerr1.config import Params, TrainParams
from routerr1.data.embedded import DATASET
from routerr1.data.rewording import as_typed
from routerr1.errors import DataError
from routerr1.files import digest, write_json
from routerr1.jobs.progress import track
from routerr1.jobs.rejected import Rejected
from routerr1.lineage import PATHS, hash_of, known_commit
from routerr1.metrics import mean_over_seeds
from routerr1.notation import with_spend
from routerr1.policy.load import load_options
from routerr1.pool.base import Pool
from routerr1.pool.drawn import (
    DrawnPools,
    recorded_pool,
    stored_probes,
    with_outages,
)
from routerr1.pool.grading import Grade, Grader, compared, require_graders
from routerr1.pool.names import TRAINING_NAMES
from routerr1.pool.probed import ProbedPool
from routerr1.pool.recorded import answerable
from routerr1.pool.understanding import UnderstandingPool
from routerr1.rollout.loop import stream_seed
from routerr1.simulation.pool import training_pool
from routerr1.stages.warmstart import demonstrations, probed_pools, write_none
from routerr1.tracking.runs import Run, new_run
from routerr1.tracking.traces import spread
from routerr1.train.checkpoint import read_manifest, save_policy
from routerr1.train.context import Task, TrainingContext
from routerr1.train.grpo import Trained
from routerr1.train.grpo import train as train_grpo
from routerr1.train.log import train_cost_usd, train_hours, write_log
from routerr1.train.process_lock import exit_with_parent, only_trainer
from routerr1.train.rehearsal import Rehearsal, rehearsal
from routerr1.types import Question, Trajectory
from routerr1.workspace import Workspace

Inputs = Mapping[str, Any]
"""What a trained policy depends on; see `Workspace.inputs`."""


def train(params: Params) -> None:
    """Train with GRPO for every seed; the first seed's policy becomes models/policy.

    Without a policy notes take their places, and the run is that of the routers that `evaluate`
    trains.
    """
    exit_with_parent()
    workspace = Workspace(params)
    if not params.has_policy:
        _open_run_without_policy(workspace)
        return
    if int(os.environ.get("RANK", "0")):
        _follow(workspace)
        return
    with only_trainer(PATHS.runs):
        inputs = read_inputs(workspace)
        name = _run_name(params.preset, params.seeds)
        with new_run(params.registry, PATHS.run, hash_of(inputs), name=name) as run:
            _train_seeds(workspace, inputs, run)
        # Only now: a kill before it would cost the seeds that are done.
        for seed in params.seeds:
            shutil.rmtree(_working_folder(inputs[seed], seed), ignore_errors=True)


def _open_run_without_policy(workspace: Workspace) -> None:
    params = workspace.params
    made_of = {
        "policy": None,
        "seeds": params.seeds,
        "data": digest(PATHS.questions),
        "cards": digest(PATHS.cards),
    }
    write_none(PATHS.policy)
    write_none(PATHS.other_policies)
    name = _run_name(params.preset, params.seeds)
    with new_run(params.registry, PATHS.run, hash_of(made_of), name=name) as run:
        run.log_params(params)
        run.log_dataset(PATHS.questions, "training")
        costs = {"train_cost_usd": 0.0}
        run.log_metrics({"train_hours": 0.0, **costs})
    write_json(PATHS.train / "results.json", costs)
    write_json(PATHS.train / "metrics.json", costs)


def _run_name(preset: str, seeds: Sequence[int]) -> str:
    """What MLflow's lists show, e.g. "embedded, seeds 1 2 3, at 1a2b3c4"."""
    commit = known_commit()
    named = f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}"
    return ", ".join([preset, named, *([f"at {commit[:7]}"] if commit else [])])


def read_inputs(workspace: Workspace) -> dict[int, Inputs]:
    """Check all that training reads, and give what the policy of each seed depends on.

    Raises: ConfigError, DataError, PoolError, CheckpointError: before a run is opened or anything
        is paid.
    """
    train, seeds = workspace.params.train, workspace.params.seeds
    require_graders(workspace.all_questions(), workspace.params.verify)
    asyncio.run(workspace.open_pool(workspace.cards).aclose())
    _ = workspace.renderer
    for seed in seeds:
        read_manifest(workspace.warmstart_folder(seed))
    count, wanted = len(workspace.questions("train")), train.questions_per_step
    if train.steps and count < (1 if _drawn_share(workspace.params) else wanted):
        raise DataError(
            f"{PATHS.questions}: holds {count} training questions, and a step takes {wanted} "
            "(train.questions_per_step)"
        )
    if not workspace.questions("validation"):
        raise DataError(
            f"{PATHS.questions}: holds no validation questions, by which training chooses its best step"
        )
    return {seed: workspace.inputs("train", seed) for seed in seeds}


def _train_seeds(workspace: Workspace, inputs: Mapping[int, Inputs], run: Run) -> None:
    seeds = workspace.params.seeds
    run.log_params(workspace.params)
    run.log_dataset(PATHS.questions, "training")
    metrics: dict[str, dict[str, float]] = {}
    rows: dict[int, list[dict[str, float]]] = {}
    timing: dict[int, list[dict[str, float]]] = {}
    write_json(PATHS.other_policies / "seeds.json", {"first": seeds[0], "others": seeds[1:]})
    for seed in seeds:
        trained, metrics[f"seed_{seed}"] = _train_seed(workspace, seed, inputs[seed], run)
        rows[seed], timing[seed] = trained.rows, trained.timing
    # By steps: a resumed process knows only its own seconds.
    hours = train_hours(row for found in timing.values() for row in found)
    cost = sum(found.pop("train_cost_usd") for found in metrics.values())
    rejected = sum(found.pop("rejected") for found in metrics.values())
    whole = {"train_cost_usd": cost, "rejected": rejected}
    run.log_metrics({"train": metrics, "train_hours": hours, **whole})
    write_log(PATHS.train / "log.csv", rows[seeds[0]])
    write_log(PATHS.train / "seeds.csv", _by_seed(rows))
    write_json(PATHS.train / "results.json", {**metrics, **whole})
    headline = mean_over_seeds(metrics, {"em": "validation/em", "reward": "validation/reward"})
    write_json(PATHS.train / "metrics.json", {**headline, **whole})
    # Times differ from run to run, so they are no output that DVC hashes.
    write_log(PATHS.train_seconds, _by_seed(timing))
    for path in (PATHS.train / "log.csv", PATHS.train / "seeds.csv", PATHS.train_seconds):
        run.log_artifact(path, "curves")


def _by_seed(rows: Mapping[int, list[dict[str, float]]]) -> list[dict[str, float]]:
    return [{"seed": float(seed), **row} for seed, found in rows.items() for row in found]


def _train_seed(
    workspace: Workspace, seed: int, inputs: Inputs, run: Run
) -> tuple[Trained, dict[str, float]]:
    train = workspace.params.train
    pool, grader = _open_pool(workspace), _grader(workspace)
    context = training_context(workspace, pool, seed, grader)

    def log_step(step: int, row: Mapping[str, float]) -> None:
        run.log_metrics({f"seed_{seed}/{key}": value for key, value in row.items()}, step)

    traced = set(spread(range(1, train.steps + 1), workspace.params.trace.train))

    def log_rollouts(step: int, played: Sequence[Trajectory]) -> None:
        if step in traced:
            tags = {"stage": "train", "seed": str(seed), "step": str(step)}
            run.hand_over_traces(played[:1], tags)

    try:
        with track(f"train, seed {seed}", train.steps) as bar:
            trained = train_grpo(
                workspace.warmstart_folder(seed), context, _working_folder(inputs, seed),
                progress=lambda row: bar.update(
                    int(row["step"]), note=f"reward {row['reward']:.2f}, EM {row['em']:.2f}"
                ),
                log_step=log_step, log_rollouts=log_rollouts,
            )  # fmt: skip
    finally:
        asyncio.run(pool.aclose())
        asyncio.run(grader.aclose())
        context.rejected.tell()
    save_policy(
        trained.folder,
        workspace.policy_folder(seed),
        {**inputs, "cost_scale": trained.cost_scale.state(), "best_step": trained.best_step},
    )
    metrics = _metrics(trained, train, len(context.validation))
    if isinstance(pool, ProbedPool):  # what was recorded before is not paid again
        metrics["train_cost_usd"] = pool.paid_usd
    return trained, metrics


def _metrics(trained: Trained, train: TrainParams, validation_questions: int) -> dict[str, float]:
    by_step = trained.by_step
    per_step = train.questions_per_step * train.rollouts_per_question
    return {
        "best_step": trained.best_step,
        "steps": int(trained.rows[-1]["step"]),
        "rejected": sum(
            row.get(f"{part}rejected", 0)
            for row in by_step.values()
            for part in ("", "validation/")
        ),
        "train_cost_usd": train_cost_usd(by_step.values(), per_step, validation_questions),
        **{
            key: value
            for key, value in by_step[trained.best_step].items()
            if key.startswith("validation/")
        },
        **{key.replace("validation/", "start/"): value for key, value in trained.start.items()},
    }


def _follow(workspace: Workspace) -> None:
    """The part in training of a process that `accelerate` started beside the first; the first alone writes."""
    inputs = read_inputs(workspace)
    for seed in workspace.params.seeds:
        pool, grader = _open_pool(workspace), _grader(workspace)
        try:
            train_grpo(
                workspace.warmstart_folder(seed),
                training_context(workspace, pool, seed, grader),
                _working_folder(inputs[seed], seed), progress=lambda _: None,
            )  # fmt: skip
        finally:
            asyncio.run(pool.aclose())
            asyncio.run(grader.aclose())


def _working_folder(inputs: Inputs, seed: int) -> Path:
    return PATHS.runs / "train" / f"{hash_of(inputs)}-seed-{seed}"


def training_context(
    workspace: Workspace, pool: Pool, seed: int, grade: Grade = compared
) -> TrainingContext:
    """What stays fixed over a training run, here and in the sweep."""
    params = workspace.params
    train = params.train
    held_out = _sampled(workspace.questions("validation"), train.validation_questions, seed)
    steps = train.steps * train.questions_per_step
    return TrainingContext(
        tasks=_tasks(
            workspace, _questions(workspace, pool), pool, seed, steps, single=train.single_share
        ),
        validation=_tasks(workspace, held_out, pool, seed + 1, _validated(params, len(held_out))),
        names=[] if _drawn_share(params) == 1 else [card.name for card in pool.cards],
        render=workspace.renderer,
        rollout=params.rollout,
        reward=params.reward,
        train=train,
        seed=seed,
        lockstep=params.pool.calls != "live",
        load=load_options(params),
        grade=grade,
        rehearsal=_rehearsal(workspace, seed),
        rejected=Rejected(
            "train", params.max_rejected, steps * train.rollouts_per_question + len(held_out)
        ),
    )


def _questions(workspace: Workspace, pool: Pool) -> list[Question]:
    """The training questions; of a recorded pool only those that it can answer.

    A question of several facts is asked in parts, whose replies are recorded. Where look-ups are by question, the
    probes are trained on: their replies are paid.
    """
    questions = workspace.questions("train")
    if workspace.params.looks_up_questions:
        return workspace.probed(questions)
    recorded = {question.id for question in answerable(questions, pool)}
    return [each for each in questions if (each.hops or 1) > 1 or each.id in recorded]


def _tasks(
    workspace: Workspace,
    questions: list[Question],
    pool: Pool,
    seed: int,
    count: int,
    *,
    single: float = 0.0,
) -> list[Task]:
    """`count` questions, again and again where there are fewer; `pool.redraw` of them on a drawn pool each.

    Args:
        single: share of them that are drawn from those of one fact: whom to call is learned faster where nothing else
            decides the reward.
    """
    share = _drawn_share(workspace.params)
    draw = training_pools(workspace, pool) if share else None
    levels = workspace.params.train.spend_levels
    rng = Random(f"tasks/{seed}")
    simple = [question for question in questions if question.hops == 1] or questions
    sources = _in_rounds(simple, count, rng), _in_rounds(questions, count, rng)
    chosen = [sources[rng.random() >= single].pop() for _ in range(count)]
    tasks = []
    for place, question in enumerate(chosen):
        drawn = draw is not None and rng.random() < share
        own = draw(stream_seed(seed, place)) if draw is not None and drawn else pool
        asked = with_spend(question, rng.choice(levels))
        if question.dataset == DATASET:
            worded = as_typed(asked, rng)
            asked, own = worded.question, UnderstandingPool(own, worded)
        tasks.append(Task(asked, own))
    return tasks


def _in_rounds(questions: list[Question], count: int, rng: Random) -> list[Question]:
    """`count` of the questions in random order; none comes again before all have come."""
    rounds = -(-count // len(questions))
    return [each for _ in range(rounds) for each in rng.sample(questions, len(questions))][:count]


def training_pools(workspace: Workspace, pool: Pool) -> Callable[[int], Pool]:
    """Seed -> a pool to train on, from simulated or recorded candidates; in some of them candidates are down."""
    if workspace.params.looks_up_questions:
        return probed_pools(pool, workspace.probes)
    if workspace.params.pool.kind == "recorded":
        source = recorded_pool(pool)
        recorded = DrawnPools(source, stored_probes(source, workspace.questions("train")))
        return lambda seed: with_outages(recorded.draw(TRAINING_NAMES, seed), seed)
    return lambda seed: with_outages(training_pool(workspace.facts, seed), seed)


def _validated(params: Params, held_out: int) -> int:
    """Plays of a validation: few questions are played several times where no reply is paid twice."""
    return params.train.validation_questions if params.looks_up_questions else held_out


def _drawn_share(params: Params) -> float:
    return params.pool.redraw if params.looks_up_questions else params.pool.drawn_share


def _open_pool(workspace: Workspace) -> Pool:
    """The pool of training; probes are answered as in profiling."""
    pool = workspace.open_pool(workspace.cards)
    return ProbedPool(pool, workspace.probes) if workspace.params.looks_up_questions else pool


def _grader(workspace: Workspace) -> Grader:
    return workspace.grader(probed=workspace.params.looks_up_questions)


def _sampled(questions: list[Question], count: int, seed: int) -> list[Question]:
    """`count` of `questions`, drawn by `seed`; all of them if there are no more."""
    return Random(f"validation/{seed}").sample(questions, min(count, len(questions)))


def _rehearsal(workspace: Workspace, seed: int) -> Rehearsal | None:
    """What the warm start taught; None if there was none."""
    params = workspace.params
    if not (params.train.rehearsal_weight and params.warmstart.steps):
        return None
    return rehearsal(
        demonstrations(workspace), seed, params.train.rehearsal_batch, chat=params.prompt.chat
    )
