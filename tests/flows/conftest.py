"""One Prefect database for all tests of flows."""

from collections.abc import Iterator

import pytest


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
