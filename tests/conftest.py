"""Fixtures that several folders of tests share."""

import os
import shutil
from pathlib import Path

import pytest


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
