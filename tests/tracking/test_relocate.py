"""The folder of artifacts follows the store, whatever the folder is named."""

import shutil
from pathlib import Path

import pytest

from routerr1.config import RegistryParams
from routerr1.errors import RegistryError
from routerr1.tracking.runs import new_run
from routerr1.tracking.store import check_store, open_client

PARAMS = RegistryParams(model="m", experiment="tests")
ODD = "ö a #b%20 日本 é"


def kept(run: str) -> str:
    """The file `note` of a run, as MLflow finds it by the store of the working folder."""
    client = open_client()
    assert [file.path for file in client.list_artifacts(run)] == ["note"]
    return Path(client.download_artifacts(run, "note")).read_text()


def test_artifacts_lie_beside_the_store_in_a_folder_of_any_name(
    mlflow_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    here = tmp_path / ODD / "project"
    here.mkdir(parents=True)
    shutil.copy(mlflow_template, here / "mlflow.db")
    monkeypatch.chdir(here)
    (here / "note").write_text("first")
    with new_run(PARAMS, Path("run.json"), "t1") as run:
        run.log_artifact(Path("note"))
    assert kept(run.id) == "first"
    assert caplog.messages == []
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    moved = tmp_path / "50 % #1 é"
    here.rename(moved)
    monkeypatch.chdir(moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow itself sets it to the first folder
    assert kept(run.id) == "first"
    assert [message.split(": ")[0] for message in caplog.messages] == [str(moved / "mlflow.db")]
    caplog.clear()
    assert kept(run.id) == "first"
    assert caplog.messages == []


def test_a_folder_that_no_store_can_lie_in_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    here = tmp_path / "what?"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(
        RegistryError, match=r"what\?: a folder with a \? in its name .*; rename the"
    ):
        check_store()
    assert list(tmp_path.rglob("*")) == [here]
