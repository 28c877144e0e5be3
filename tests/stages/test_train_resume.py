"""The train stage and `kill -9`: what resumes, what starts over, and what waits."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from routerr1.stages.dataset import dataset
from routerr1.stages.profile import profile
from tests.folder import make_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def set_up(folder: Path, policy: Path, mlflow_db: Path) -> None:
    """A working folder in which training can start, for six steps with a checkpoint every two."""
    small = {
        "train": {"steps": 6, "validation_questions": 4},
        "rollout": {"max_new_tokens": 24},
        "profile_pool": {"probes": 6},
    }
    params = make_folder(folder, policy, mlflow_db, small)
    dataset(params)
    profile(params)


def test_training_killed_twice_ends_as_if_it_had_not_been(
    small_policy: Path, mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "broken", "seeds"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        set_up(tmp_path / name, small_policy, mlflow_template)
    shutil.copytree(small_policy, tmp_path / "seeds/models/warmstart/seed-2")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.stages.killed", str(tmp_path)], cwd=ROOT, check=True,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "whole": {"code": 0, "played": [0, 1, 2, 3, 4, 5]},
        "second trainer": {"code": 7, "played": []},
        "killed while playing": {"code": -signal.SIGKILL, "played": [0, 1, 2, 3]},
        "other parameter": {"code": -signal.SIGKILL, "played": [0]},
        "other data": {"code": -signal.SIGKILL, "played": [0]},
        "killed while saving": {"code": -signal.SIGKILL, "played": [2, 3]},
        "resumed": {"code": 0, "played": [2, 3, 4, 5]},
        "second seed killed": {"code": -signal.SIGKILL, "played": [0, 0]},
        "second seed resumed": {"code": 0, "played": [0]},
    }
    for name in (
        "data/train/log.csv",
        "data/train/metrics.json",
        "models/policy/model.safetensors",
        "models/policy/routerr1.json",
    ):
        whole, broken = ((tmp_path / each / name).read_bytes() for each in ("whole", "broken"))
        assert whole == broken, name
    for folder in ("whole", "broken", "seeds"):
        # A simulated pool is asked again each time; training removes its working files at the end.
        assert not (tmp_path / folder / "runs/profile").exists()
    assert [path.name for path in (tmp_path / "seeds/runs/train").iterdir()] == ["seconds.csv"]
