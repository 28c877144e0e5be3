"""What unfinished work and finished stages depend on is one and the same."""

from pathlib import Path

import yaml

from routerr1.fingerprints import TRAINING_CODE, code

ROOT = Path(__file__).parents[1]


def test_the_train_stage_depends_on_the_code_that_a_resumed_training_asks_for() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]
    of_dvc = {dep.removeprefix("routerr1/") for dep in stage["deps"] if dep.startswith("routerr1/")}
    assert of_dvc == set(TRAINING_CODE)


def test_a_digest_of_code_takes_files_and_folders() -> None:
    everything, some = code(), code("train", "reward.py")
    assert len({everything, some, code("train"), code("reward.py")}) == 4
    assert some == code("reward.py", "train")
