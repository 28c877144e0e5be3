"""`routerr1 sweep`: policies for other weights of cost, and all of them on one plot with every other router.

By default each weight continues from the policy of the one before, the first from the trained policy:
that takes far fewer steps than a run of its own, since neighbouring weights want almost the same
policy. What is given up: a policy that has stopped calling a model explores it little again. So it
can also start every weight from the warm start, which costs a whole training run each.
"""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from routerr1.config import Params
from routerr1.errors import CheckpointError
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.rows import Row, read_rows
from routerr1.evaluate.run import TRAINING_POOL, choose_questions, play_all, policies_of
from routerr1.evaluate.store import RowStore
from routerr1.files import digest
from routerr1.jobs.progress import track
from routerr1.jobs.rejected import Rejected
from routerr1.lineage import PATHS, hash_of
from routerr1.pool.base import Pool
from routerr1.report.sweep import compare_swept, swept_name, write_swept
from routerr1.stages.train import training_context
from routerr1.train.checkpoint import read_manifest, save_policy
from routerr1.train.grpo import train as train_grpo
from routerr1.train.process_lock import only_trainer
from routerr1.workspace import Workspace

RESULTS = Path("data/sweep")
POLICIES = Path("models/sweep")


def sweep(params: Params, cost_weights: Sequence[float], steps: int, *, restart: bool) -> None:
    """Train and play one policy for each weight and training seed, lowest weight first.

    Results lie beside the evaluation's in `RESULTS`. Of these git keeps sweep.json, which the
    report stage draws: a later commit of dvc.lock includes it. A weight whose policy is there,
    made from the same start with the same parameters and data, is not trained again.

    Args:
        restart: go on from the policy of the weight before, not from the warm start.

    Raises: DataError if there is no evaluation to compare with; this is seen before anything is
        trained.
    """
    others, compared = read_rows(PATHS.rows), digest(PATHS.rows)
    workspace = Workspace(params)
    fingerprint = workspace.fingerprint("evaluate")
    calls = PATHS.calls / f"sweep-{fingerprint}.jsonl"
    pool = workspace.open_pool(workspace.cards)
    # Training asks again: its calls are those of the bare pool.
    kept = workspace.keep_calls(pool, calls)
    rows: list[Row] = []
    stores: list[RowStore] = []
    try:
        for seed in params.seeds:
            trained = workspace.policy_folder(seed)
            start = trained if restart else workspace.warmstart_folder(seed)
            for weight in sorted(set(cost_weights)):
                folder = POLICIES / f"seed-{seed}" / swept_name(weight)
                _train(Workspace(_with_weight(params, weight, steps)), pool, start, seed, folder)
                stores.append(_store(fingerprint, folder, params.max_rejected))
                played = asyncio.run(_play(workspace, kept, seed, folder, stores[-1]))
                rows += [replace(row, router=swept_name(weight)) for row in played]
                start = folder if restart else start
    finally:
        asyncio.run(kept.aclose())
    found = compare_swept(
        rows, others, params.evaluate, steps=steps, restart=restart, evaluation=compared
    )
    write_swept(RESULTS, rows, found)
    for store in stores:
        store.discard()
    calls.unlink(missing_ok=True)


def _store(fingerprint: str, policy: Path, max_rejected: float) -> RowStore:
    """Rows of one policy; a policy that is trained again has rows of its own."""
    name = f"{policy.parent.name}-{policy.name}-rows.jsonl"
    path = PATHS.runs / "sweep" / name
    return RowStore(path, hash_of([fingerprint, digest(policy)]), max_rejected)


def _with_weight(params: Params, weight: float, steps: int) -> Params:
    """`params` for a training of `steps` steps with this weight of cost."""
    every = min(steps, params.train.checkpoint_every)
    return params.replace(
        reward=params.reward.replace(cost_weight=weight),
        train=params.train.replace(steps=steps, checkpoint_every=every),
    )


def _train(workspace: Workspace, pool: Pool, start: Path, seed: int, folder: Path) -> None:
    """Train from `start` and save the policy in `folder`, unless the same one lies there already."""
    weight, steps = workspace.params.reward.cost_weight, workspace.params.train.steps
    inputs = {**workspace.inputs("train", seed), "start": digest(start), "cost_weight": weight}
    try:
        known = read_manifest(folder)
    except CheckpointError:
        known = {}
    if known.items() >= inputs.items():
        return
    grader = workspace.grader()
    context = training_context(workspace, pool, seed, grader)
    working = PATHS.runs / "sweep" / f"{hash_of(inputs)}-seed-{seed}-{swept_name(weight)}"
    with only_trainer(PATHS.runs), track(f"train, {swept_name(weight)}, seed {seed}", steps) as bar:
        trained = train_grpo(
            start,
            context,
            working,
            progress=lambda row: bar.update(int(row["step"]), note=f"reward {row['reward']:.2f}"),
        )
    asyncio.run(grader.aclose())
    scale, best = trained.cost_scale.state(), trained.best_step
    save_policy(trained.folder, folder, {**inputs, "cost_scale": scale, "best_step": best})
    shutil.rmtree(working, ignore_errors=True)


async def _play(
    workspace: Workspace, pool: Pool, seed: int, folder: Path, store: RowStore
) -> list[Row]:
    section = workspace.params.evaluate
    questions = choose_questions(
        workspace.questions(section.split), section.max_questions, section.seed
    )
    (policy,) = policies_of({seed: workspace.load(folder)}, workspace.renderer, workspace.params)
    router = policy_router(policy, pool, TRAINING_POOL, section.seed)
    jobs = [(router, question) for question in questions]
    rejected = Rejected("sweep", workspace.params.max_rejected)
    async with aclosing(workspace.grader()) as grader:
        return await play_all(
            jobs, concurrency=section.concurrency, store=store, rejected=rejected, grade=grader
        )
