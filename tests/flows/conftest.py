"""One Prefect database for all tests of flows, and a champion that can be played."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from routerr1.config import Params, load_params
from routerr1.data.embedded import World
from routerr1.data.splits import write_questions
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.rows import write_rows
from routerr1.evaluate.run import TRAINING_POOL, play_all, policies_of
from routerr1.files import write_json
from routerr1.flows.params import set_values
from routerr1.lineage import PATHS
from routerr1.notation import with_spend
from routerr1.policy.load import load_options
from routerr1.pool.profile import profile, sample_probes, write_profile
from routerr1.registry import promotion, versions
from routerr1.registry.versions import Version
from routerr1.rollout.local import LocalGenerator
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import open_client
from routerr1.train.checkpoint import save_policy
from routerr1.types import Question
from routerr1.workspace import Workspace
from tests.chain import make_outputs
from tests.conftest import made_once


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An ephemeral API with a database of its own; starting it takes some seconds."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_LOCAL_STORAGE_PATH", str(home / "storage"))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.setenv("PREFECT_MEMO_STORE_PATH", str(home / "memo.toml"))
        # No automation fires here, and on SQLite the service that would fire them can freeze the server while
        # one is made (docs/how-to/operate.md).
        patch.setenv("PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED", "false")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=300):
            yield


@pytest.fixture
def artifacts(prefect: None) -> "Artifacts":  # noqa: ARG001
    """Looks up what flows left for people to read."""
    return Artifacts()


class Artifacts:
    """Markdown artifacts by key, the latest of each."""

    def __getitem__(self, key: str) -> str:
        from prefect.artifacts import Artifact

        found = Artifact.get(key)
        assert found is not None, f"no artifact {key!r}"
        return str(found.data)  # type: ignore[union-attr]


MAKE = """
import shutil
shutil.copytree("prepared", ".", dirs_exist_ok=True)
"""


@pytest.fixture(scope="session")
def prepared(
    calling_policy: Path,
    params: Params,
    rows: list[Question],
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What the stages leave, of a policy that plays: it was judged by what it does."""

    def make(folder: Path) -> None:
        prepare(folder, calling_policy, params, rows, world)

    return made_once(tmp_path_factory, "prepared", make)


def prepare(folder: Path, policy: Path, params: Params, rows: list[Question], world: World) -> None:
    pool = SimulatedPool(default_candidates(), known_facts(world), seed=params.pool.seed)
    probes = sample_probes([row for row in rows if row.split == "train"], 24, seed=1)
    found = asyncio.run(profile(probes, pool, store=None))
    write_questions(folder / PATHS.questions, rows)
    write_profile(folder / PATHS.pool, found)
    save_policy(policy, folder / PATHS.policy, {"seed": 1})
    shown = SimulatedPool(
        default_candidates(), known_facts(world), seed=params.pool.seed, cards=found.cards
    )
    generator = LocalGenerator.load(policy, load_options(params))
    [own] = policies_of({1: generator}, Workspace(params).renderer, params)
    router = policy_router(own, shown, TRAINING_POOL, params.evaluate.seed)
    test = [with_spend(row, params.evaluate.spend) for row in rows if row.split == "test"]
    played = asyncio.run(play_all([(router, row) for row in test[:12]], concurrency=1))
    assert sum(row.cost_usd > 0 for row in played) >= 10  # a quick policy may not always ask
    for name, kind in (("eval", TRAINING_POOL), ("generalize", "drawn")):
        (folder / "data" / name).mkdir()
        write_rows(
            folder / "data" / name / "rows.parquet", [replace(row, pool=kind) for row in played]
        )
    write_json(folder / "data/train/results.json", {"train_cost_usd": 0.5})
    write_json(folder / "data/train/run.json", {"training": "0" * 16})


@pytest.fixture
def champion(prefect: None, chain: Params, prepared: Path) -> Version:  # noqa: ARG001
    """The first version of such a policy, champion of the chain in the working folder."""
    shutil.copytree(prepared, "prepared")
    Path("make.py").write_text(MAKE)
    set_values(Path("params.yaml"), {"preset": "ci"})
    make_outputs()
    params = load_params()
    versions.register(params)
    promotion.promote(params)
    return versions.get_version(open_client(), params.registry.model, "champion")


class Told:
    """Events of this test, which the server shows once it has stored them."""

    def __init__(self) -> None:
        self._since = datetime.now(UTC)

    def __call__(self, event: str, count: int) -> list[str]:
        """Why each was sent, the last first, when there are `count`; fails if there are not, or more."""
        from prefect.client.orchestration import get_client
        from prefect.events.filters import EventFilter

        occurred = {"since": self._since, "until": self._since + timedelta(hours=1)}
        wanted = EventFilter.model_validate({"event": {"name": [event]}, "occurred": occurred})
        found: list[str] = []
        with get_client(sync_client=True) as client:
            for _ in range(100):
                found = [
                    each.payload["why"] for each in client.read_events(wanted, limit=50).events
                ]
                if len(found) >= count:
                    break
                time.sleep(0.1)
        assert len(found) == count, found
        return found


@pytest.fixture
def told() -> Told:
    return Told()
