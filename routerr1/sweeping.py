"""`routerr1 sweep`: train on from the policy with other weights of cost, each from the one before.

A warm restart needs far fewer steps than a run from the warm start, and neighbouring weights want almost
the same policy. What is given up: a policy that has stopped calling a model explores it little again.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routerr1 import stages
from routerr1.config import Params
from routerr1.errors import CheckpointError
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.rows import Row, read_rows
from routerr1.evaluate.run import TRAINING_POOL, choose_questions, play_all, policies_of
from routerr1.evaluate.sweep import compare_swept, swept_name, write_swept
from routerr1.files import digest
from routerr1.pool.interface import Pool
from routerr1.progress import track


def sweep(params: Params, cost_weights: Sequence[float], steps: int, out: Path) -> None:
    """Train and play one policy for each weight, lowest first; results beside the evaluation's into `out`.

    A weight whose policy is there, made from the same start, is not trained again.
    """
    from dataclasses import replace

    pool = stages.open_pool(params, stages.read_cards())
    rows: list[Row] = []
    start = stages.POLICY
    for weight in sorted(set(cost_weights)):
        folder = out / "policies" / swept_name(weight)
        _train(params, pool, start, weight, steps, folder)
        played = asyncio.run(_play(params, pool, folder))
        rows += [replace(row, router=swept_name(weight)) for row in played]
        start = folder
    others = read_rows(stages.EVALUATION / "rows.parquet")
    mine = [row for row in others if row.seed == params.seeds[0]]
    write_swept(out, rows, compare_swept(rows, mine, params.evaluate))
    asyncio.run(pool.aclose())


def _train(
    params: Params, pool: Pool, start: Path, weight: float, steps: int, folder: Path
) -> None:
    from routerr1.train.checkpoint import read_manifest, save_policy
    from routerr1.train.grpo import train
    from routerr1.train.guard import only_trainer

    about: dict[str, Any] = {"cost_weight": weight, "steps": steps, "start": digest(start)}
    try:
        known = read_manifest(folder)
    except CheckpointError:
        known = {}
    if known.items() >= about.items():
        return
    changed = params.model_copy(
        update={
            "reward": params.reward.model_copy(update={"cost_weight": weight}),
            "train": params.train.model_copy(
                update={"steps": steps, "validate_every": steps, "checkpoint_every": steps}
            ),
        }
    )
    setting = stages.train_setting(changed, pool, params.seeds[0])
    working = stages.RUNS / "sweep" / f"{swept_name(weight)}-{about['start'][:16]}"
    with only_trainer(stages.RUNS), track(f"train, {swept_name(weight)}", steps) as bar:
        trained = train(
            start,
            setting,
            working,
            progress=lambda row: bar.update(int(row["step"]), note=f"reward {row['reward']:.2f}"),
        )
    save_policy(trained.folder, folder, about)


async def _play(params: Params, pool: Pool, folder: Path) -> list[Row]:
    section, seed = params.evaluate, params.seeds[0]
    questions = choose_questions(
        stages._questions(section.split), section.max_questions, section.seed
    )
    (policy,) = policies_of(
        {seed: stages.load_policy(folder)},
        render=stages.renderer(params), rollout=params.rollout, params=section,
    )  # fmt: skip
    router = policy_router(policy, pool, TRAINING_POOL, section.seed)
    jobs = [(router, question) for question in questions]
    return await play_all(jobs, concurrency=section.concurrency)
