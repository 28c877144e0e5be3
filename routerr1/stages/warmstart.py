"""The stage warmstart: a policy that knows the protocol, for every training seed."""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from routerr1.config import Params
from routerr1.errors import CheckpointError, DataError
from routerr1.files import atomic_directory, write_json
from routerr1.lineage import PATHS
from routerr1.metrics import mean_over_seeds
from routerr1.pool.base import Pool
from routerr1.pool.drawn import (
    PROBED_OUTAGES,
    DrawnPools,
    profiled_probes,
    with_outages,
)
from routerr1.pool.names import TRAINING_NAMES
from routerr1.pool.probed import ProbedPool, UnreachablePool
from routerr1.pool.profile import ProbeRow
from routerr1.simulation.candidates import candidates_of, measured_candidates
from routerr1.simulation.demonstrations import ScriptedDemonstrations
from routerr1.simulation.pool import SimulatedPool
from routerr1.train.checkpoint import read_manifest
from routerr1.train.demonstrations import Demonstrations
from routerr1.train.probed import ProbedDemonstrations, refusals_of
from routerr1.train.process_lock import exit_with_parent, only_trainer
from routerr1.train.warmstart import use_pretrained, warm_start
from routerr1.types import Question
from routerr1.workspace import Workspace

_MIN_FORMAT_VALIDITY = 0.95
_PROBES_JUDGED = 100
_log = logging.getLogger(__name__)


def warmstart(params: Params) -> None:
    """Train a policy on demonstrations, or take a pretrained one; write models/warmstart and its metrics.

    Without a policy a note takes its place.
    """
    exit_with_parent()
    if not params.has_policy:
        write_none(PATHS.warmstart)
        write_json(PATHS.warmstart_metrics, {})
        return
    params.require_demonstrations()
    with only_trainer(PATHS.runs):
        with atomic_directory(PATHS.warmstart) as target:
            for seed in params.seeds:
                if not params.needs_demonstrations:
                    use_pretrained(params.model.init, target / f"seed-{seed}")
                else:
                    shutil.copytree(_warm_started(Workspace(params), seed), target / f"seed-{seed}")
        metrics = {
            f"seed_{seed}": read_manifest(PATHS.warmstart / f"seed-{seed}")["metrics"]
            for seed in params.seeds
        }
        write_json(PATHS.warmstart_metrics.with_name("results.json"), metrics)
        headline = mean_over_seeds(metrics, {"em": "em", "format_valid": "format_valid"})
        write_json(PATHS.warmstart_metrics, headline)
        shutil.rmtree(PATHS.warmstarted, ignore_errors=True)


def write_none(folder: Path) -> None:
    """Put a note in the place of a policy that the parameters do not ask for: DVC warns of empty folders."""
    with atomic_directory(folder) as aside:
        write_json(aside / "none.json", {"model.init": "none"})


def _warm_started(workspace: Workspace, seed: int) -> Path:
    """The warm start of one seed, under runs/; a finished one is reused, so a kill costs no other seed."""
    folder = PATHS.warmstarted / f"{workspace.fingerprint('warmstart')}-seed-{seed}"
    with suppress(CheckpointError):
        read_manifest(folder)
        _log.info("warm start, seed %d: was done before", seed)
        return folder
    began = time.perf_counter()
    held, pool = validation(workspace)
    grader = workspace.grader(probed=workspace.params.looks_up_questions)
    try:
        metrics = warm_start(
            demonstrations(workspace), held, pool, workspace.params, seed, folder,
            render=workspace.renderer, grade=grader,
        )  # fmt: skip
    finally:
        asyncio.run(grader.aclose())
    _log.info("warm start, seed %d: %.0f s", seed, time.perf_counter() - began)
    if metrics["format_valid"] < _MIN_FORMAT_VALIDITY:
        _log.warning(
            "warm start, seed %d: %.0f%% of the sampled trajectories keep the format; below %.0f%%, "
            "reinforcement learning first learns to be short: raise warmstart.steps",
            seed, 100 * metrics["format_valid"], 100 * _MIN_FORMAT_VALIDITY,
        )  # fmt: skip
    return folder


def demonstrations(workspace: Workspace) -> Demonstrations:
    """What warm starts imitate, and what training rehearses."""
    params = workspace.params
    if params.looks_up_questions:
        return _on_probes(workspace)
    return ScriptedDemonstrations(
        questions=workspace.all_questions(),
        world=workspace.world,
        known=workspace.facts,
        render=workspace.renderer,
        rollout=params.rollout,
        stop_probability=params.warmstart.stop_probability,
    )


def _on_probes(workspace: Workspace) -> ProbedDemonstrations:
    params, rows = workspace.params, workspace.probes
    return ProbedDemonstrations(
        questions=_asked(workspace),
        others=workspace.all_questions(),
        draw_pool=probed_pools(_recorded(workspace), rows),
        refusals=refusals_of(rows),
        render=workspace.renderer,
        rollout=params.rollout,
        stop_probability=params.warmstart.stop_probability,
    )


def probed_pools(pool: Pool, rows: Sequence[ProbeRow]) -> Callable[[int], Pool]:
    """Seed -> a pool of some candidates of `pool`, with other names and prices, and often with some that are down."""
    drawn = DrawnPools(pool, profiled_probes(rows))
    return lambda seed: with_outages(drawn.draw(TRAINING_NAMES, seed), seed, PROBED_OUTAGES)


def _asked(workspace: Workspace) -> list[Question]:
    """The training questions that were probes.

    Raises: DataError if there are none.
    """
    found = workspace.probed(workspace.questions("train"))
    if not found:
        raise DataError(
            f"{PATHS.matrix}: holds no training question, of which demonstrations are made; set "
            "profile_pool.split to train and run the profile stage again"
        )
    return found


def _recorded(workspace: Workspace) -> ProbedPool:
    """What the candidates said in profiling; nothing is asked."""
    return ProbedPool(UnreachablePool(workspace.cards), workspace.probes)


def validation(workspace: Workspace) -> tuple[list[Question], Pool]:
    """What a warm start is judged on without cost: questions, and simulated candidates or what real ones said.

    Of the probes, some that it may have imitated.
    """
    if workspace.params.looks_up_questions:
        return _asked(workspace)[:_PROBES_JUDGED], _recorded(workspace)
    return workspace.questions("validation"), _simulated(workspace)


def _simulated(workspace: Workspace) -> SimulatedPool:
    """Simulated candidates, or simulated stand-ins for real ones."""
    section, cards = workspace.params.pool, workspace.cards
    candidates = (
        candidates_of(section.candidates)
        if section.kind == "simulated"
        else measured_candidates(cards)
    )
    return SimulatedPool(candidates, workspace.facts, seed=section.seed, cards=cards)
