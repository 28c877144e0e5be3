"""Two processes of `accelerate launch` learn what one learns from the same batch, and one of them writes."""

import json
import pickle
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from routerr1.config import Params
from routerr1.pool.simulated import SimulatedPool
from routerr1.train import grpo
from routerr1.types import Question
from tests.servers import free_port, running
from tests.train.settings import setting_of

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, pickle, sys
from pathlib import Path
from routerr1.train import grpo

start, setting, folder = pickle.loads(Path(sys.argv[1]).read_bytes())
rows = []
trained = grpo.train(start, setting, folder, progress=rows.append)
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
    setting = setting_of(params, pool, rows, held=5, train=train)
    (tmp_path / "two").mkdir()
    pickled, program = tmp_path / "setting", tmp_path / "program.py"
    pickled.write_bytes(pickle.dumps((asking_policy, setting, tmp_path / "two")))
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(ROOT / "launch" / "ddp-cpu.yaml")]
    command += ["--main_process_port", str(free_port()), str(program), str(pickled)]
    log = tmp_path / "log"
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with running(command, log, env=env) as process:
        one = grpo.train(asking_policy, setting, tmp_path / "one", progress=lambda _: None)
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


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "launch").glob("*.yaml")))
def test_launch_files_are_what_accelerate_reads(name: str) -> None:
    found = load_config_from_file(str(ROOT / "launch" / name))
    assert found.num_processes % found.num_machines == 0
    options = vars(launch_command_parser().parse_args(["train.py"]))
    assert found.fsdp_config.keys() <= options.keys()
    assert (found.fsdp_config != {}) == name.startswith("fsdp")
