"""What the flow costs over plain `dvc repro` on a chain of eight unchanged stages, with a server running.

Prints JSON: seconds of both (medians), and their difference. Uses a chain of its own in a temporary folder;
run it in the repository's root: `python benchmarks/flow.py [--repeats 3]`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.servers import free_port, running, until_answers

STAGES = 8
DRIVER = "from flows.pipeline import stage_task, only_one; from flows.stages import stages\n" + (
    "from prefect import flow\n"
    "@flow(name='overhead', persist_result=False)\n"
    "def overhead():\n"
    "    with only_one(60):\n"
    "        for stage in stages():\n"
    "            stage_task.with_options(task_run_name=stage)(stage)\n"
    "overhead()\n"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.chdir(make_chain(folder / "chain"))
        port, log = free_port(), folder / "prefect.log"
        address = f"http://127.0.0.1:{port}"
        os.environ |= {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "true",
        }
        (folder / "prefect").mkdir()
        server = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        with running(server, log):
            until_answers(f"{address}/api/health", log)
            os.environ["PREFECT_API_URL"] = f"{address}/api"
            flow = [timed([sys.executable, "-c", DRIVER]) for _ in range(repeats)]
        plain = [timed([sys.executable, "-m", "dvc", "repro", "-q"]) for _ in range(repeats)]
    print(json.dumps(report(plain, flow), indent=2))


def make_chain(folder: Path) -> Path:
    """A repository with stages in a row, all run once."""
    folder.mkdir()
    stages = ["stages:"]
    for number in range(STAGES):
        dep = f"deps: [out{number - 1}], " if number else ""
        stages.append(
            f"  stage{number}: {{cmd: echo {number} > out{number}, {dep}outs: [out{number}]}}"
        )
    (folder / "dvc.yaml").write_text("\n".join(stages) + "\n")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def timed(command: list[str]) -> float:
    """Seconds of one run that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def report(plain: list[float], flow: list[float]) -> dict[str, object]:
    """Medians, and what the flow adds."""
    return {
        "stages": STAGES,
        "dvc_repro_s": round(statistics.median(plain), 2),
        "flow_s": round(statistics.median(flow), 2),
        "overhead_s": round(statistics.median(flow) - statistics.median(plain), 2),
        "target_s": 15.0,
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
