"""The registry on a real MLflow server whose store is PostgreSQL, as a team would run it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.registry import promotion, versions
from routerr1.registry.lock import registry_lock
from routerr1.tracking.store import open_client
from tests.chain import commit_nothing, make_outputs
from tests.forked import ended, fork, promote_elsewhere
from tests.servers import mlflow_server, postgresql

pytestmark = pytest.mark.slow


@pytest.fixture
def server(
    chain: Params,  # noqa: ARG001 - it sets the working folder
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with postgresql(folder) as backend, mlflow_server(folder, backend) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        Path("mlflow.db").unlink()  # so that no command uses it by mistake
        yield address


def test_the_whole_life_of_versions_on_a_server(chain: Params, server: str, tmp_path: Path) -> None:
    assert versions.register(chain).number == 1
    assert versions.register(chain).number == 1
    assert promotion.promote(chain).record is not None
    make_outputs(right=0.1)
    assert versions.register(chain).number == 2
    assert promotion.promote(chain).result.decision.refused_by == ("em_difference",)
    make_outputs(right=0.7)
    versions.register(chain)
    for _ in range(7):
        commit_nothing()
        versions.register(chain)
    machines = [fork(promote_elsewhere, n, tmp_path / f"machine-{n}") for n in range(3, 11)]
    assert [ended(machine, 500) for machine in machines] == [0] * 8
    client = open_client()
    record = promotion.promotion_log(client, "routerr1")
    assert [move.seq for move in record] == list(range(1, 10))
    assert sorted(move.after for move in record[1:]) == list(range(3, 11))
    assert {move.state for move in record} == {"done"}
    assert [move.before for move in record] == [None, *(move.after for move in record[:-1])]
    assert [move.when for move in record] == sorted(move.when for move in record)
    assert versions.get_version(client, "routerr1", "champion").number == record[-1].after
    assert promotion.rollback(chain, why="test").after == record[-2].after
    with registry_lock(client, "routerr1", timeout_s=5):
        names = {found.name for found in client.search_registered_models()}
    assert names == {"routerr1", "routerr1.lock"}
    assert not Path("mlflow.db").exists()
    assert server.startswith("http://127.0.0.1:")
