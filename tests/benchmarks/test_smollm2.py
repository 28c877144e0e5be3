"""The one command for a GPU, tried on a CPU: every stage, and what it leaves."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_gpu_script_runs_through_with_a_tiny_model(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "benchmarks.smollm2",
        "--try",
        "--set",
        "train.kl_weight=0.02",
        "--work",
        str(work),
        "--out",
        str(out),
    ]
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "MLFLOW_TRACKING_URI": "",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    told = (out / "README.md").read_text()
    assert "on CPU, torch " in told
    assert (
        "seed 1, 2 steps of 4 rollouts. Weights: the preset's. Differs from the preset in: train.kl_weight=0.02."
        in told
    )
    assert yaml.safe_load((work / "presets/smollm2.yaml").read_text())["train"]["kl_weight"] == 0.02
    # The figures are those of the files beside them.
    with (out / "train-log.csv").open() as stream:
        tokens = sum(4 * float(row["policy_tokens"]) for row in csv.DictReader(stream))
    with (work / "runs/train/seconds.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    playing = sum(float(row["generation_s"]) for row in rows)
    learning = sum(float(row["training_s"]) for row in rows)
    found = re.search(
        r"training: (\d+); (\d+) per second of generation.*?, (\d+) per second of", told
    )
    assert found is not None
    wanted = (tokens, tokens / playing, tokens / (playing + learning))
    assert [int(figure) for figure in found.groups()] == [round(each) for each in wanted]
    assert (out / "eval-table.md").stat().st_size > 0
    assert "report took" in (out / "log.txt").read_text()
    again = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-4000:]
    assert "begins" not in again.stderr  # what is done is not done again


@pytest.mark.slow
def test_it_trains_on_recorded_replies_and_spend_levels(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    command = [
        sys.executable, "-m", "benchmarks.smollm2", "--try", "--pool", "laptop",
        "--work", str(work), "--out", str(out),
    ]  # fmt: skip
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "MLFLOW_TRACKING_URI": "",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "and recorded replies" in (out / "README.md").read_text()
    overlay = yaml.safe_load((work / "presets/smollm2.yaml").read_text())
    assert (overlay["pool"]["kind"], overlay["pool"]["redraw"]) == ("recorded", 0.8)
    assert overlay["train"]["spend_levels"] == [0, 5, 10]
    cards = {card["name"] for card in json.loads((work / "data/pool/cards.json").read_text())}
    assert cards >= {"Qwen-1.5B", "Pocket-135M"}
    assert not cards & {"Lab-270M", "Gazette-135M", "Atlas-0.5B"}  # kept from training
