"""Overhead of `retrain` over plain `dvc repro` if nothing has changed, with a Prefect server running.

The chain is the repository's own, eight stages, in a clone with the ci preset that ran once before.
Then neither has work to do. `dvc repro` checks the stages. The flow also checks the parameters, the
cool-down, its limit and its lock, finds the registered version, and asks the gate. Prints JSON:
median seconds of both, their difference, every run, and the processor time of each, which does not
depend on other load. In the repository's root:

    python -m benchmarks.flow [--repeats 3] [--out FILE]
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import shared
from tests.clone import environment, make_clone
from tests.servers import free_port, running, until_answers

STAGES = 8
TARGET_S = 15.0
# As an event starts it: a run by hand is not asked for its cool-down, of which the ci preset has none.
RETRAIN = "from routerr1.flows.pipeline import retrain; retrain(trigger='routerr1.data.changed')"
FLOW = [sys.executable, "-c", RETRAIN]
PLAIN = [sys.executable, "-m", "dvc", "repro"]


def main() -> None:
    """Measure and print."""
    parser = shared.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clone = make_clone(folder / "clone")
        port, log = free_port(), folder / "prefect.log"
        address = f"http://127.0.0.1:{port}"
        (folder / "prefect").mkdir()
        os.environ |= {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "true",
            "MLFLOW_TRACKING_URI": "",
        }
        server = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        with running(server, log):
            until_answers(f"{address}/api/health", log)
            os.environ["PREFECT_API_URL"] = f"{address}/api"
            timed(FLOW, clone)
            plain: list[Taken] = []
            flow: list[Taken] = []
            for _ in range(asked.repeats):  # in turn: what else the machine does meets both
                plain.append(timed(PLAIN, clone, "didn't change, skipping"))
                flow.append(timed(FLOW, clone, ": unchanged"))
    shared.report(figures(plain, flow), asked.out)


@dataclass(frozen=True)
class Taken:
    """Seconds of one run: by the clock, and of processors."""

    wall_s: float
    cpu_s: float


def timed(command: list[str], clone: Path, unchanged: str | None = None) -> Taken:
    """One run in the clone, which must succeed and, if so told, say `unchanged` of every stage."""
    began, used = time.perf_counter(), cpu_s()
    done = subprocess.run(
        command, cwd=clone, env=environment(clone), check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    taken = Taken(time.perf_counter() - began, cpu_s() - used)
    if done.returncode or (unchanged and done.stdout.count(unchanged) != STAGES):
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return taken


def cpu_s() -> float:
    """Processor time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def figures(plain: list[Taken], flow: list[Taken]) -> dict[str, object]:
    """Medians, and what the flow adds."""
    plain_s, flow_s = (statistics.median(run.wall_s for run in runs) for runs in (plain, flow))
    return {
        "stages": STAGES,
        "dvc_repro_s": round(plain_s, 2),
        "flow_s": round(flow_s, 2),
        "overhead_s": round(flow_s - plain_s, 2),
        "target_s": TARGET_S,
        "runs": {
            name: {
                "wall_s": [round(run.wall_s, 2) for run in runs],
                "cpu_s": [round(run.cpu_s, 2) for run in runs],
            }
            for name, runs in (("dvc_repro", plain), ("flow", flow))
        },
        "machine": shared.machine(),
    }


if __name__ == "__main__":
    main()
