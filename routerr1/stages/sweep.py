"""`routerr1 sweep`: policies for other weights of cost, and all of them on one plot with every other router.

By default each weight goes on from the policy of the one before, the first from the trained policy: that
takes far fewer steps than a run of its own, since neighbouring weights want almost the same policy. What
is given up: a policy that has stopped calling a model explores it little again. So it can also start every
weight from the warm start, which costs a whole training run each.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from routerr1 import stages
from routerr1.config import Params
from routerr1.errors import CheckpointError
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.rows import Row, read_rows
from routerr1.evaluate.run import TRAINING_POOL, choose_questions, play_all, policies_of
from routerr1.evaluate.store import RowStore
from routerr1.files import digest
from routerr1.fingerprints import hash_of
from routerr1.pool.interface import Pool
from routerr1.progress import track
from routerr1.report.sweep import compare_swept, swept_name, write_swept

RESULTS = Path("data/sweep")
POLICIES = Path("models/sweep")


def sweep(params: Params, cost_weights: Sequence[float], steps: int, *, restart: bool) -> None:
    """Train and play one policy for each weight and training seed, lowest weight first.

    Results lie beside the evaluation's in `RESULTS`. Of these git keeps sweep.json, which the report stage
    draws: whoever commits dvc.lock after that commits it too. A weight whose policy is there,
    made from the same start with the same parameters and data, is not trained again.

    Args:
        restart: go on from the policy of the weight before, not from the warm start.

    Raises: DataError if there is no evaluation to compare with; this is seen before anything is trained.
    """
    rows_file = stages.EVALUATION / "rows.parquet"
    others, compared = read_rows(rows_file), digest(rows_file)
    mark = stages.evaluation_fingerprint(params, "evaluate")
    calls = stages.CALLS / f"sweep-{mark}.jsonl"
    pool = stages.open_pool(params, stages.read_cards())
    # Training asks anew: its calls are the bare pool's.
    kept = stages.keep_calls(pool, params, calls)
    rows: list[Row] = []
    stores: list[RowStore] = []
    try:
        for place, seed in enumerate(params.seeds):
            trained = stages.POLICY if place == 0 else stages.OTHER_SEEDS / f"seed-{seed}"
            start = trained if restart else stages.WARMSTART / f"seed-{seed}"
            for weight in sorted(set(cost_weights)):
                folder = POLICIES / f"seed-{seed}" / swept_name(weight)
                _train(params, pool, start, weight, steps, seed, folder)
                stores.append(_store(mark, folder))
                played = asyncio.run(_play(params, kept, seed, folder, stores[-1]))
                rows += [replace(row, router=swept_name(weight)) for row in played]
                start = folder if restart else start
    finally:
        asyncio.run(kept.aclose())
    found = compare_swept(rows, others, params.evaluate)
    found["steps"], found["restart"] = steps, restart
    found["evaluation"] = compared
    write_swept(RESULTS, rows, found)
    for store in stores:
        store.discard()
    calls.unlink(missing_ok=True)


def _store(mark: str, policy: Path) -> RowStore:
    """Rows of one policy; one that is trained anew has rows of its own."""
    name = f"{policy.parent.name}-{policy.name}-rows.jsonl"
    return RowStore(stages.RUNS / "sweep" / name, hash_of([mark, digest(policy)]))


def _train(
    params: Params, pool: Pool, start: Path, weight: float, steps: int, seed: int, folder: Path
) -> None:
    from routerr1.train.checkpoint import read_manifest, save_policy
    from routerr1.train.grpo import train
    from routerr1.train.process_lock import only_trainer

    changed = params.model_copy(
        update={
            "reward": params.reward.model_copy(update={"cost_weight": weight}),
            "train": params.train.model_copy(
                update={
                    "steps": steps,
                    "checkpoint_every": min(steps, params.train.checkpoint_every),
                }
            ),
        }
    )
    about: dict[str, Any] = {
        **stages.fingerprint_parts(changed, seed), "start": digest(start), "cost_weight": weight,
    }  # fmt: skip
    try:
        known = read_manifest(folder)
    except CheckpointError:
        known = {}
    if known.items() >= about.items():
        return
    setting = stages.train_setting(changed, pool, seed)
    working = stages.RUNS / "sweep" / f"{hash_of(about)}-seed-{seed}-{swept_name(weight)}"
    with (
        only_trainer(stages.RUNS),
        track(f"train, {swept_name(weight)}, seed {seed}", steps) as bar,
    ):
        trained = train(
            start,
            setting,
            working,
            progress=lambda row: bar.update(int(row["step"]), note=f"reward {row['reward']:.2f}"),
        )
    scale, best = trained.cost_scale.state(), trained.best_step
    save_policy(trained.folder, folder, {**about, "cost_scale": scale, "best_step": best})
    shutil.rmtree(working, ignore_errors=True)


async def _play(params: Params, pool: Pool, seed: int, folder: Path, store: RowStore) -> list[Row]:
    section = params.evaluate
    questions = choose_questions(
        stages.questions_of(section.split), section.max_questions, section.seed
    )
    (policy,) = policies_of(
        {seed: stages.load_policy(folder, params)},
        render=stages.renderer(params), rollout=params.rollout, params=section,
    )  # fmt: skip
    router = policy_router(policy, pool, TRAINING_POOL, section.seed)
    jobs = [(router, question) for question in questions]
    return await play_all(jobs, concurrency=section.concurrency, store=store)
