"""The stages dataset, checks and profile: what all that is learnt and judged rests on."""

import asyncio

from routerr1.config import Params
from routerr1.progress import track
from routerr1.stages.parts import closing, open_pool, profile_store, questions_of, renderer
from routerr1.stages.places import CHECKS, DATA_DOCS, POOL, QUESTIONS


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
        run_checks(
            QUESTIONS, params.dataset, params.checks, CHECKS, docs=DATA_DOCS, progress=bar.update
        )


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
    store = profile_store(params, "pool", "profile_pool")
    with track("profile", len(probes) * len(pool.cards)) as bar:
        found = asyncio.run(
            closing(pool, profile_pool(probes, pool, store=store, progress=bar.update))
        )
    write_profile(POOL, found)
