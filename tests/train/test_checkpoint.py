"""What was written is taken up again only if it is what was written."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import Params
from routerr1.simulation.pool import SimulatedPool
from routerr1.train import grpo
from routerr1.train.checkpoint import last_complete
from routerr1.train.context import TrainingContext
from routerr1.train.grpo import Trained
from routerr1.types import Question
from tests.train.contexts import context_of

pytestmark = pytest.mark.slow


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_text("{}")


def better(path: Path) -> None:
    state: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "best_reward": 1.0}))


@pytest.fixture(scope="module")
def context(params: Params, world: Any, rows: list[Question]) -> TrainingContext:
    from routerr1.simulation.candidates import default_candidates
    from routerr1.simulation.facts import known_facts

    return context_of(params, SimulatedPool(default_candidates(), known_facts(world), seed=7), rows)


@pytest.fixture(scope="module")
def whole(
    small_policy: Path, context: TrainingContext, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Trained]:
    """Four steps, with checkpoints of the second and the fourth."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, grpo.train(small_policy, context, folder, progress=lambda _: None)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("optimizer.pt", truncate, "optimizer.pt: is corrupt"),
        ("model.safetensors", truncate, "model.safetensors: is corrupt"),
        ("best/model.safetensors", flip, "best/model.safetensors: is corrupt"),
        ("rng_state.pth", Path.unlink, "rng_state.pth: is missing"),
        ("router_state.json", empty, "router_state.json: is corrupt"),
        ("router_state.json", better, "router_state.json: is corrupt"),
        ("router_state.json", truncate, "router_state.json, line .* is not JSON"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    whole: tuple[Path, Trained],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
    told: str,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    assert last_complete(folder) == folder / "checkpoint-4"
    damage(folder / "checkpoint-4" / name)
    with caplog.at_level(logging.WARNING):
        assert last_complete(folder) == folder / "checkpoint-2"
    (record,) = caplog.records
    assert re.search(f"checkpoint-4/{told}.*not resuming from step 4", record.getMessage())
    (folder / "checkpoint-2/router_state.json").unlink()
    assert last_complete(folder) is None


@pytest.mark.parametrize("damaged", [("checkpoint-4",), ("checkpoint-4", "checkpoint-2")])
def test_training_ends_as_ever_whichever_checkpoints_are_damaged(
    whole: tuple[Path, Trained],
    small_policy: Path,
    context: TrainingContext,
    tmp_path: Path,
    damaged: tuple[str, ...],
) -> None:
    folder, seen = tmp_path / "run", []
    shutil.copytree(whole[0], folder)
    for name in damaged:
        truncate(folder / name / "optimizer.pt")
    again = grpo.train(
        small_policy, context, folder, progress=lambda row: seen.append(int(row["step"]))
    )
    assert seen == ([3, 4] if len(damaged) == 1 else [1, 2, 3, 4])
    assert again.rows == whole[1].rows
    weights = "model.safetensors"
    assert (again.folder / weights).read_bytes() == (whole[0] / "best" / weights).read_bytes()
    assert last_complete(folder) == folder / "checkpoint-4"
