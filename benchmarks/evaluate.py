"""An evaluation's time against the shortest possible one, and a check that no call is paid twice.

Sets up the ci chain in its own folder, with a slightly longer warm start, so that the policy calls
candidates. Then it writes one JSON object to --out:
- `schedule`: every router of the evaluate stage on the simulated pool, with real waiting and the
  stage's concurrency. Three bounds hold for every schedule: the longest single trajectory, all
  waiting divided by the concurrency, and the computing time on the one core of a process. The
  largest is the critical path. Baselines are fitted before. `scripted` is the same with a policy
  that computes nothing, and controls alone. Waiting for a core on a busy machine is measured
  separately;
- `kill`: the stage (`routerr1 evaluate`) with the candidates behind a loopback server and
  `calls: live`, killed with SIGKILL half-way and started again. The server counts calls. Calls that
  were open at the kill are counted separately, because this benchmark cannot know whether they are
  billed.

    python -m benchmarks.evaluate [--questions 24] [--out docs/results/evaluate.json]
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import shared
from routerr1.config import Params, load_params
from routerr1.data.splits import read_questions
from routerr1.evaluate import controls
from routerr1.evaluate.controls import Job
from routerr1.evaluate.rows import read_rows
from routerr1.evaluate.run import learn, play_all
from routerr1.lineage import PATHS
from routerr1.pool.base import Call
from routerr1.pool.cards import read_cards
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.stages.dataset import dataset
from routerr1.stages.evaluate import jobs_of
from routerr1.stages.profile import profile
from routerr1.stages.warmstart import warmstart
from routerr1.tracking.runs import new_run
from routerr1.train.checkpoint import save_policy
from routerr1.types import Question, Reply
from routerr1.workspace import Workspace
from tests.servers import write_pool_file

Calls = Counter[tuple[str, str]]
ROOT = Path(__file__).parents[1]
_SLOWER = 3.0  # calls of the killed evaluation wait so many times their latency, so that many are under way


class Billed(SimulatedPool):
    """Knows which calls it has answered, and which are under way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.answered: Calls = Counter()
        self.under_way: Calls = Counter()

    async def ask(self, call: Call) -> Reply:
        """Ask, wait, and count."""
        self.under_way[call.candidate, call.query] += 1
        reply = await super().ask(call)
        await asyncio.sleep(_SLOWER * reply.latency_s)
        self.under_way[call.candidate, call.query] -= 1
        self.answered[call.candidate, call.query] += 1
        return reply


def set_up(num_questions: int, pool_file: Path) -> Params:
    """The chain up to the policy, in the working folder."""
    shutil.copytree(ROOT / "presets", "presets")
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(values | {"preset": "ci"}))
    overlay = yaml.safe_load(Path("presets/ci.yaml").read_text())
    overlay["warmstart"] |= {"steps": 120, "learning_rate": 2.0e-2, "warmup_steps": 5}
    overlay["evaluate"]["max_questions"] = num_questions
    overlay["pool"] = {"kind": "http", "file": str(pool_file)}
    Path("presets/ci.yaml").write_text(yaml.safe_dump(overlay))
    params = load_params()
    dataset(params)
    profile(params)
    warmstart(params)
    save_policy(PATHS.warmstart / "seed-1", PATHS.policy, {"seed": 1})
    PATHS.other_policies.mkdir()
    with new_run(params.registry, PATHS.run, "benchmark"):
        pass
    return params


def scripted_jobs(params: Params, pool: SimulatedPool) -> list[Job]:
    """A policy that reads its questions perfectly, with all controls."""
    test = read_questions(PATHS.questions, "test")[: params.evaluate.max_questions]
    policy = controls.Policy(
        1, scripted(test, pool.cards[0].name), Workspace(params).renderer, params.rollout, 0.0
    )
    routers = [controls.policy_router(policy, pool, "training", 5)]
    routers += controls.control_routers(policy, pool, "training", 5)
    return [(router, question) for router in routers for question in test]


def scripted(rows: Sequence[Question], model: str) -> ScriptedGenerator:
    """Asks `model` each sub-question in turn; answers with the last word of the last reply."""
    steps = {row.question: row.metadata["steps"] for row in rows}

    def say(prompt: str, inserted: Sequence[str]) -> str:
        asked = steps[prompt.rsplit("Question: ", 1)[1].strip()]
        words = re.findall(r"\w+(?=\W*</information>)", inserted[-1]) if inserted else [""]
        if len(inserted) < len(asked):
            return f"<think> t</think><search> {model}: {asked[len(inserted)].format(words[0])}</search>"
        return f"<think> t</think><answer> {words[0]}</answer>"

    return ScriptedGenerator(say)


def timed(work: Sequence[Job], concurrency: int) -> dict[str, float]:
    """One evaluation with real waiting."""
    computed = time.process_time()
    learn(router for router, _ in work)
    learning_s, computed = time.process_time() - computed, time.process_time()
    began, queued = time.perf_counter(), _queued_s()
    rows = asyncio.run(play_all(work, concurrency=concurrency))
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - computed
    starved_s = _queued_s() - queued
    waits = [row.latency_s for row in rows]
    limit_s = max(max(waits), sum(waits) / concurrency, cpu_s)
    return {
        "routers": len({(row.pool, row.router) for row in rows}),
        "trajectories": len(rows),
        "calls": sum(row.calls for row in rows),
        "concurrency": concurrency,
        "wall_s": round(wall_s, 2),
        "longest_trajectory_waits_s": round(max(waits), 2),
        "all_waiting_shared_s": round(sum(waits) / concurrency, 2),
        "cpu_s": round(cpu_s, 2),
        "learning_before_cpu_s": round(learning_s, 2),
        "ratio": round(wall_s / limit_s, 3),
        "waited_for_a_core_s": round(starved_s, 2),
        "ratio_without_that": round((wall_s - starved_s) / limit_s, 3),
        "one_after_another_s": round(sum(waits) + cpu_s, 1),
    }


def _queued_s() -> float:
    """Seconds that this thread was ready to run while others had the cores."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def schedules(params: Params) -> dict[str, dict[str, float]]:
    """With the policy of the chain and all routers, and with a script."""
    known = Workspace(params).facts
    cards = read_cards(PATHS.cards)
    pool = SimulatedPool(default_candidates(), known, seed=7, sleep=True, cards=cards)
    concurrency = params.evaluate.concurrency
    return {
        "scripted": timed(scripted_jobs(params, pool), concurrency),
        "schedule": timed(jobs_of(Workspace(params), pool, {}), concurrency),
    }


def killed(params: Params, served: Billed) -> dict[str, object]:
    """Kill the stage half-way, start it again, and look at what was paid."""
    served.answered.clear()
    total = len(jobs_of(Workspace(params), served, {}))
    command = [sys.executable, "-m", "routerr1.cli", "evaluate"]
    before, lost = _strike(command, PATHS.runs / "eval.jsonl", total // 2, served)
    kept = _rows(PATHS.runs / "eval.jsonl")
    subprocess.run(command, check=True)
    answered, again = served.answered.copy(), _written()
    subprocess.run(command, check=True)  # once more, left alone
    alone = _written()
    twice = {call: count - 1 for call, count in answered.items() if count > 1}
    sure = sum(count for call, count in twice.items() if call in before)
    return {
        "trajectories": total,
        "rows_kept_at_the_kill": kept,
        "calls_paid_before_the_kill": before.total(),
        "calls_under_way_at_the_kill": lost.total(),
        "different_calls": len(answered),
        "paid_twice": sure,
        "asked_again_of_those_under_way": sum(twice.values()) - sure,
        "same_rows_as_without_a_kill": again == alone,
    }


def _strike(command: Sequence[str], path: Path, wanted: int, served: Billed) -> tuple[Calls, Calls]:
    """Start the command, and kill it once `path` has so many rows; which calls were answered and under way."""
    process = subprocess.Popen(command, start_new_session=True)
    while _rows(path) < wanted:
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(command)}: ended before it could be killed")
        time.sleep(0.02)
    found = served.answered.copy(), +served.under_way  # before: what ends later reaches nobody
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return found


def _rows(path: Path) -> int:
    """Without the line at the head."""
    return max(0, path.read_bytes().count(b"\n") - 1) if path.is_file() else 0


def _written() -> list[tuple[object, ...]]:
    """The stage's rows, without the seconds that a server took."""
    return [
        (row.router, row.seed, row.dataset, row.question_id, row.answer, row.em, row.cost_usd)
        for row in read_rows(PATHS.rows)
    ]


def main() -> None:
    """Parse, run, write."""
    parser = shared.parser(__doc__)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    out = chosen.out and chosen.out.resolve()
    found: dict[str, object] = {"machine": shared.machine(), "questions": chosen.questions}
    world = Workspace(load_params(ROOT / "params.yaml")).world
    served = Billed(default_candidates(), known_facts(world), seed=7)
    with tempfile.TemporaryDirectory() as folder, serving(build_app(served, time_scale=0)) as url:
        os.chdir(folder)
        params = set_up(
            chosen.questions,
            write_pool_file(Path("pools/pool.yaml"), url, default_candidates()),
        )
        found |= schedules(params)
        found["kill"] = killed(params, served)
        os.chdir(ROOT)
    shared.report(found, out)


if __name__ == "__main__":
    main()
