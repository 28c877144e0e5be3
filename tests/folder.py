"""A folder in which stages run that need a warm start and no more."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from routerr1.config import Params, load_params

ROOT = Path(__file__).parents[1]


def make_folder(
    folder: Path, policy: Path, mlflow_db: Path, changes: Mapping[str, Mapping[str, Any]]
) -> Params:
    """Put `policy` into `folder` as its warm start, an MLflow store, and parameters; gives these.

    Args:
        changes: by section, of the ci preset.
    """
    small: dict[str, Any] = yaml.safe_load((ROOT / "presets/ci.yaml").read_text())
    for section, values in changes.items():
        small[section] = {**small.get(section, {}), **values}
    (folder / "presets").mkdir(parents=True)
    (folder / "presets/tiny.yaml").write_text(yaml.safe_dump(small))
    text = (ROOT / "params.yaml").read_text().replace("preset: embedded", "preset: tiny", 1)
    (folder / "params.yaml").write_text(text)
    shutil.copytree(policy, folder / "models/warmstart/seed-1")
    shutil.copy(mlflow_db, folder / "mlflow.db")
    return load_params(folder / "params.yaml")
