"""The stage warmstart."""

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from routerr1.config import Params
from routerr1.errors import CheckpointError, ConfigError
from routerr1.files import atomic_directory, digest, write_json
from routerr1.fingerprints import code, hash_of, sections
from routerr1.stages.parts import all_questions, prompt_hash, read_cards, world_of
from routerr1.stages.places import POOL, QUESTIONS, RUNS, WARM_STARTED, WARMSTART

_FORMED_ENOUGH = 0.95
_log = logging.getLogger(__name__)


def warmstart(params: Params) -> None:
    """Supervised warm start for every seed; models/warmstart and its metrics."""
    from routerr1.train.checkpoint import read_manifest
    from routerr1.train.process_lock import die_with_pipeline, only_trainer
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
    metrics = warm_start(all_questions(), world_of(params), read_cards(), params, seed, folder)
    _log.info("warm start, seed %d: %.0f s", seed, time.perf_counter() - began)
    if metrics["format_valid"] < _FORMED_ENOUGH:
        _log.warning(
            "warm start, seed %d: %.0f%% of the trajectories it samples keep the format; under %.0f%%, "
            "reinforcement learning first learns to be short: raise warmstart.steps",
            seed, 100 * metrics["format_valid"], 100 * _FORMED_ENOUGH,
        )  # fmt: skip
    return folder


def _warmstart_parts(params: Params) -> dict[str, Any]:
    """What a warm start depends on, beside its seed."""
    return {
        "params": sections(params, "dataset", "pool", "prompt", "rollout", "model", "warmstart"),
        "data": digest(QUESTIONS),
        "cards": digest(POOL / "cards.json"),
        "prompt": prompt_hash(params),
        "code": code(),
    }
