"""What stages, commands, flows and serving are built from: questions, cards, pools, policies, fingerprints."""

from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from routerr1 import prompt
from routerr1.config import Params
from routerr1.errors import ConfigError, PoolError
from routerr1.files import digest
from routerr1.fingerprints import TRAINING_CODE, code, fingerprint, hash_of, sections
from routerr1.pool.interface import Pool
from routerr1.stages.places import OTHER_SEEDS, POLICY, POOL, PROFILED, QUESTIONS, WARMSTART
from routerr1.types import Card, Question, Split

if TYPE_CHECKING:
    from routerr1.data.embedded import World
    from routerr1.rollout.generate import Generator
    from routerr1.rollout.local import LocalGenerator

Result = TypeVar("Result")


def questions_of(split: Split) -> list[Question]:
    """The questions of one split of data/questions."""
    from routerr1.data.splits import read_questions

    return read_questions(QUESTIONS, split)


def all_questions() -> list[Question]:
    return questions_of("train") + questions_of("validation") + questions_of("test")


def world_of(params: Params) -> "World":
    from routerr1.data.embedded import build_world

    return build_world(params.dataset.embedded)


def read_cards() -> list[Card]:
    """The profiled cards of data/pool."""
    from routerr1.pool.cards import read_cards as read

    return read(POOL / "cards.json")


def renderer(params: Params) -> prompt.Renderer:
    """The prompt's renderer."""
    section = params.prompt
    return prompt.renderer(section.template, params.rollout.max_rounds, section.file)


def prompt_hash(params: Params) -> str:
    section = params.prompt
    return prompt.prompt_hash(section.template, params.rollout.max_rounds, section.file)


def open_pool(
    params: Params, cards: Sequence[Card] | None = None, *, run: str | None = None
) -> Pool:
    """The pool that params name; `cards` (from profiling) instead of its own.

    Args:
        run: whose budget of a run it uses where the environment names none.
    """
    from routerr1.pool.build import ONE_RUN, guard, open_http_pool
    from routerr1.simulation.pool import SimulatedPool, candidates_of, known_facts

    if params.pool.kind == "simulated":
        if params.dataset.source != "embedded":
            raise ConfigError("params.yaml: pool.kind: simulated answers embedded questions only")
        known = known_facts(world_of(params))
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


def profile_store(params: Params, *names: str) -> Path | None:
    """Where probes' replies wait for the stage to be run again; they hang on the sections `names`, and on the
    pool files of these: a recorded call tells neither which endpoint answered nor what it charges by now.

    A simulated pool needs none: it costs nothing, and what it says changes with the code.
    """
    if params.pool.kind == "simulated":
        return None
    pools = {"pool": params.pool.file, "generalize": params.generalize.file}
    read = [digest(file) for name in names if (file := pools.get(name)) is not None]
    return PROFILED / f"{hash_of([fingerprint(params, *names), *read])}.jsonl"


async def closing(pool: Pool, work: Awaitable[Result]) -> Result:
    try:
        return await work
    finally:
        await pool.aclose()


def load_policies(params: Params) -> dict[int, "Generator"]:
    """The trained policy of every seed, loaded (see `load_policy`) when it is first played."""
    from routerr1.rollout.lazy import LazyGenerator

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
    from routerr1.policy.load import load_options
    from routerr1.rollout.local import LocalGenerator

    return LocalGenerator.load(name, load_options(params))


def fingerprint_parts(params: Params, seed: int) -> dict[str, Any]:
    """What a trained policy depends on; stored with it, and the name of its working folder."""
    return {
        "seed": seed,
        "params": sections(params, "prompt", "rollout", "model", "reward", "train", "pool"),
        "data": digest(QUESTIONS),
        "cards": digest(POOL / "cards.json"),
        "prompt": prompt_hash(params),
        "warmstart": digest(WARMSTART / f"seed-{seed}"),
        "code": code(*TRAINING_CODE),
    }


def evaluation_fingerprint(params: Params, section: str) -> str:
    """Of everything that the rows and calls of an evaluation with these `params` depend on."""
    return hash_of(
        {
            "code": code(),
            "params": fingerprint(
                params, "rollout", "prompt", "model", "pool", "evaluate", "baselines", section
            ),
            "prompt": prompt_hash(params),
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
