"""What several tests need: a small world, and a small policy made in seconds."""

import contextlib
import gc
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Models here are too small to gain from threads, and threads that wait for each other crawl on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import dvc  # noqa: F401  # its log keeps the stream of its first import, which a CliRunner would close
import pytest
from filelock import FileLock

from routerr1.config import Params, load_params
from routerr1.data.embedded import World, build_world, questions
from routerr1.prompt import renderer
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Question

if TYPE_CHECKING:
    from tests.evaluation import Stage

gc.set_threshold(10_000)  # as the command line does

ROOT = Path(__file__).parents[1]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes more than there are cores: many a test waits for a server or a clock.

    One more for the fast tests: each process imports torch, mlflow and the like, which takes as long as a
    fifth of these tests.
    """
    return (os.cpu_count() or 1) + (1 if config.getoption("markexpr") == "not slow" else 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that may take longest first, so that none of them is what all others wait for in the end."""
    longest: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        slow = 1.0 if item.get_closest_marker("slow") else 0.0
        seconds = float(limit.args[0]) if limit else slow
        longest[item.path] = max(longest.get(item.path, 0.0), seconds)
    items.sort(key=lambda item: -longest[item.path])


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, by the first of all test processes that needs it; it is only read."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "shared" / name
    with FileLock(shared / f"{name}.lock"):
        if not folder.exists():
            aside = factory.mktemp(name) / name
            aside.mkdir()
            make(aside)
            folder.parent.mkdir(exist_ok=True)
            aside.rename(folder)
    return folder


@pytest.fixture(scope="session")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """The ci preset."""
    folder = tmp_path_factory.mktemp("params")
    (folder / "presets").symlink_to(ROOT / "presets")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(text.replace("preset: embedded", "preset: ci", 1))
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
    return made_once(tmp_path_factory, "small", lambda at: warm_started(at, params, world, rows))


@pytest.fixture(scope="session")
def asking_policy(
    params: Params, world: World, rows: list[Question], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that has begun to call candidates, and still writes much that is malformed."""
    quick = warm_started_for(params, steps=60, batch_size=16, learning_rate=2e-2)
    return made_once(tmp_path_factory, "asking", lambda at: warm_started(at, quick, world, rows))


@pytest.fixture(scope="session")
def calling_policy(
    params: Params, world: World, rows: list[Question], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that calls a candidate for every question."""
    quick = warm_started_for(params, steps=300, batch_size=8, learning_rate=1e-2)
    return made_once(tmp_path_factory, "calling", lambda at: warm_started(at, quick, world, rows))


def warm_started_for(params: Params, **quick: float) -> Params:
    """Quick steps: a policy first learns to call candidates by the names that it meets."""
    section = params.warmstart.model_copy(update={**quick, "warmup_steps": 5})
    return params.model_copy(update={"warmstart": section})


def warm_started(folder: Path, params: Params, world: World, rows: list[Question]) -> None:
    from routerr1.simulation.demonstrations import ScriptedDemonstrations
    from routerr1.train.warmstart import warm_start

    pool = SimulatedPool(default_candidates(), known_facts(world), seed=7)
    demonstrations = ScriptedDemonstrations(
        questions=rows, world=world, known=known_facts(world),
        render=renderer(params.prompt.template, params.rollout.max_rounds, params.prompt.file),
        rollout=params.rollout, stop_probability=params.warmstart.stop_probability,
    )  # fmt: skip
    held = [row for row in rows if row.split == "validation"]
    warm_start(demonstrations, held, pool, params, 1, folder, render=demonstrations.render)


@pytest.fixture(scope="session")
def stage() -> "Stage":
    """A small evaluation with a scripted policy."""
    from tests.evaluation import make_stage

    return make_stage()


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables made once: making them costs two seconds."""
    from routerr1.tracking.store import open_client

    def make(folder: Path) -> None:
        with contextlib.chdir(folder):
            open_client()

    return made_once(tmp_path_factory, "mlflow", make) / "mlflow.db"


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

    def make(folder: Path) -> None:
        with contextlib.chdir(folder):
            make_chain(folder)

    return made_once(tmp_path_factory, "chain", make)


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
