"""Two processes of `accelerate launch` learn what one learns from the same batch, and one of them writes."""

import csv
import json
import pickle
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from routerr1.config import Params
from routerr1.simulation.pool import SimulatedPool
from routerr1.stages.dataset import dataset
from routerr1.stages.profile import profile
from routerr1.train import grpo
from routerr1.train.checkpoint import read_manifest
from routerr1.types import Question
from tests.folder import make_folder
from tests.servers import free_port, running
from tests.train.contexts import context_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, pickle, sys
from pathlib import Path
from routerr1.train import grpo

start, context, folder = pickle.loads(Path(sys.argv[1]).read_bytes())
rows = []
trained = grpo.train(start, context, folder, progress=rows.append)
name = f"rows-{len(list(folder.glob('rows-*')))}.json"
if rows:
    (folder / name).write_text(json.dumps(rows))
"""


def test_two_processes_have_the_learning_curve_of_one(
    asking_policy: Path, params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path
) -> None:
    train = params.train.model_copy(
        update={"steps": 3, "checkpoint_every": 3, "validate_every": 3, "learning_rate": 1e-3}
    )
    context = context_of(params, pool, rows, held=5, train=train)
    (tmp_path / "two").mkdir()
    pickled, program = tmp_path / "context", tmp_path / "program.py"
    pickled.write_bytes(pickle.dumps((asking_policy, context, tmp_path / "two")))
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(ROOT / "launch" / "ddp-cpu.yaml")]
    command += ["--main_process_port", str(free_port()), str(program), str(pickled)]
    log = tmp_path / "log"
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with running(command, log, env=env) as process:
        one = grpo.train(asking_policy, context, tmp_path / "one", progress=lambda _: None)
        assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    (written,) = (tmp_path / "two").glob("rows-*.json")
    two = json.loads(written.read_text())
    assert [row["step"] for row in two] == [1, 2, 3]
    assert any(row["grad_norm"] > 0 for row in two)
    # Equal samples give equal figures; sums over processes round otherwise.
    for ours, theirs in zip(one.rows, two, strict=True):
        assert theirs == pytest.approx(ours, rel=2e-3, abs=2e-5)
    state = json.loads((tmp_path / "two/checkpoint-3/router_state.json").read_text())
    assert state["cost_scale"] == one.cost_scale.state()
    assert (tmp_path / "two/best/model.safetensors").is_file()


def test_the_launched_train_stage_writes_what_the_plain_one_does(
    asking_policy: Path, mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch ... -m routerr1.cli train`, as docs/how-to/train.md has it, beside `routerr1 train`."""
    changes = {
        "train": {"steps": 3, "validation_questions": 5, "learning_rate": 1e-3},
        "rollout": {"max_new_tokens": 24},
        "profile_pool": {"probes": 6},
    }
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        params = make_folder(tmp_path / name, asking_policy, mlflow_template, changes)
        dataset(params)
        profile(params)
    plain = [sys.executable, "-m", "routerr1.cli", "train"]
    launched = [sys.executable, "-m", "accelerate.commands.launch"]
    launched += ["--config_file", str(ROOT / "launch" / "ddp-cpu.yaml")]
    launched += ["--main_process_port", str(free_port()), "-m", "routerr1.cli", "train"]
    env = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "MLFLOW_TRACKING_URI": "",
    }
    started = {}
    with ExitStack() as stack:
        for name, command in (("one", plain), ("two", launched)):
            log = tmp_path / f"{name}.log"
            process = stack.enter_context(running(command, log, env=env, cwd=tmp_path / name))
            started[name] = process, log
        for process, log in started.values():
            assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    one, two = (read_log(tmp_path / name / "data/train/log.csv") for name in ("one", "two"))
    assert [row["step"] for row in two] == [1, 2, 3]
    assert any(row["grad_norm"] > 0 for row in two)
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=2e-3, abs=2e-5)
    assert read_manifest(tmp_path / "two/models/policy")["best_step"] == int(
        json.loads((tmp_path / "one/data/train/results.json").read_text())["seed_1"]["best_step"]
    )
    # One process alone writes: one run in MLflow, one line a step.
    assert "3 of 3" in (tmp_path / "two.log").read_text()
    assert [path.name for path in (tmp_path / "two/runs/train").iterdir()] == ["seconds.csv"]


def read_log(path: Path) -> list[dict[str, float]]:
    with path.open() as stream:
        return [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(stream)
        ]


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "launch").glob("*.yaml")))
def test_launch_files_are_what_accelerate_reads(name: str) -> None:
    found = load_config_from_file(str(ROOT / "launch" / name))
    assert found.num_processes % found.num_machines == 0
    options = vars(launch_command_parser().parse_args(["train.py"]))
    assert found.fsdp_config.keys() <= options.keys()
    assert (found.fsdp_config != {}) == name.startswith("fsdp")
