"""The stage profile: what each candidate is good at, measured on probe questions."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from routerr1.config import Params
from routerr1.jobs.progress import track
from routerr1.pool.base import Pool
from routerr1.pool.grading import require_graders
from routerr1.pool.profile import Profile, sample_probes, write_profile
from routerr1.pool.profile import profile as profile_pool
from routerr1.pool.recorded import answerable
from routerr1.types import Question
from routerr1.workspace import Workspace


def profile(params: Params) -> None:
    """Send probe questions to every candidate; write cards and answer matrix to data/pool.

    Raises: ConfigError if a later stage could not use them: see `Params.require_demonstrations`.
    """
    params.require_demonstrations()
    workspace = Workspace(params)
    section = params.profile_pool
    pool = workspace.open_pool()
    questions = answerable(workspace.questions(section.split), pool)
    probes = sample_probes(questions, section.probes, section.seed)
    for probe in probes[:1]:  # an unusable prompt is found before anything is paid
        workspace.renderer(probe, pool.cards)
    require_graders(workspace.all_questions(), params.verify)
    store = workspace.probe_store("pool", "profile_pool")
    write_profile(workspace.paths.pool, asyncio.run(_profile(workspace, probes, pool, store)))


async def _profile(
    workspace: Workspace, probes: Sequence[Question], pool: Pool, store: Path | None
) -> Profile:
    async with aclosing(pool), aclosing(workspace.grader()) as grader:
        with track("profile", len(probes) * len(pool.cards)) as bar:
            return await profile_pool(
                probes, pool, store=store, max_rejected=workspace.params.max_rejected,
                progress=bar.update, grade=grader,
            )  # fmt: skip
