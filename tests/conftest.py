"""What several tests need: a small world, and a small policy made in seconds."""

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Models here are too small to gain from threads, and threads that wait for each other crawl on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from collections.abc import Sequence
from pathlib import Path

import pytest

from routerr1.config import Params, load_params
from routerr1.data.embedded import World, build_world, questions
from routerr1.pool.simulated import SimulatedPool, default_candidates, known_facts
from routerr1.types import Card, Question

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """The ci profile."""
    folder = tmp_path_factory.mktemp("params")
    (folder / "profiles").symlink_to(ROOT / "profiles")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(text.replace("profile: embedded", "profile: ci", 1))
    return load_params(folder / "params.yaml")


@pytest.fixture(scope="session")
def world(params: Params) -> World:
    return build_world(params.dataset.embedded)


@pytest.fixture(scope="session")
def rows(world: World, params: Params) -> list[Question]:
    return questions(world, params.dataset.embedded, params.dataset.seed)


@pytest.fixture
def pool(world: World) -> SimulatedPool:
    return SimulatedPool(default_candidates(), known_facts(world), seed=7)


@pytest.fixture(scope="session")
def small_policy(
    params: Params, world: World, rows: list[Question], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint whose warm start was cut short: it writes tags, and little sense between them."""
    return warm_started(tmp_path_factory.mktemp("policy") / "checkpoint", params, world, rows)


@pytest.fixture(scope="session")
def asking_policy(
    params: Params, world: World, rows: list[Question], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that has begun to call candidates, and still writes much that is malformed."""
    folder = tmp_path_factory.mktemp("asking") / "checkpoint"
    return warm_started(folder, warm_started_for(params, 60), world, rows)


@pytest.fixture(scope="session")
def calling_policy(
    params: Params, world: World, rows: list[Question], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that calls a candidate for every question."""
    folder = tmp_path_factory.mktemp("calling") / "checkpoint"
    return warm_started(folder, warm_started_for(params, 120), world, rows)


def warm_started_for(params: Params, steps: int) -> Params:
    """Quick steps: a policy first learns to call candidates by the names that it meets."""
    quick = {"steps": steps, "learning_rate": 2e-2, "warmup_steps": 5}
    return params.model_copy(update={"warmstart": params.warmstart.model_copy(update=quick)})


def warm_started(
    folder: Path,
    params: Params,
    world: World,
    rows: list[Question],
    cards: Sequence[Card] | None = None,
) -> Path:
    from routerr1.train.warmstart import warm_start

    shown = cards or SimulatedPool(default_candidates(), known_facts(world), seed=7).cards
    warm_start(rows, world, shown, params, 1, folder)
    return folder


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables made once: making them costs two seconds."""
    from routerr1 import tracking

    folder = tmp_path_factory.mktemp("mlflow")
    before = Path.cwd()
    os.chdir(folder)
    try:
        tracking.open_client()
    finally:
        os.chdir(before)
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_store(mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own working folder, with an empty MLflow store in it; gives the folder."""
    # MLflow sets the variable itself; set first, so that its removal is undone too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(tmp_path)
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture(scope="session")
def chain_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of `tests/chain.py`, made once."""
    from tests.chain import make_chain

    folder = tmp_path_factory.mktemp("chain") / "repository"
    folder.mkdir()
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_chain(folder)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def chain(
    chain_template: Path,
    mlflow_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Params:
    """The test's own copy of that repository, as working folder, with an empty MLflow store."""
    folder = tmp_path / "repository"
    shutil.copytree(chain_template, folder, symlinks=True)
    shutil.copy(mlflow_template, folder / "mlflow.db")
    # MLflow sets the variable itself; set first, so that its removal is undone too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(folder)
    return load_params()
