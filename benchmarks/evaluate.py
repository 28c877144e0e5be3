"""How close does an evaluation come to the shortest time it can take, and is anything paid twice?

Plays a scripted policy with all controls (forced models, random, oracle, no call) on embedded questions and
the simulated pool, whose calls really wait for their latency. Prints one JSON object:
- wall seconds, and the critical path: no schedule ends before the longest single trajectory, nor before all
  waiting divided by the trajectories that may be under way at once;
- with --kill, the same evaluation is killed (SIGKILL) half-way and started again; every call that reached
  the pool is counted, and the rows are compared with those of a run that was left alone.

    python benchmarks/evaluate.py [--questions 100] [--concurrency 4096] [--kill]
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from routerr1.config import load_params
from routerr1.data.embedded import build_world
from routerr1.data.embedded import questions as embedded_questions
from routerr1.evaluate import controls
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import Job, play_all
from routerr1.evaluate.store import RowStore
from routerr1.pool.recording import Recorder
from routerr1.pool.records import RecordStore
from routerr1.pool.simulated import SimulatedPool, default_candidates, known_facts
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.types import Question, Reply

ROOT = Path(__file__).parents[1]


class Counted:
    """A pool that writes every call that is paid to a file, at once."""

    def __init__(self, pool: SimulatedPool, path: Path) -> None:
        self._pool, self._path = pool, path

    @property
    def cards(self):
        """The pool's."""
        return self._pool.cards

    async def ask(self, name: str, query: str) -> Reply:
        """Ask, then count."""
        reply = await self._pool.ask(name, query)
        with self._path.open("a") as stream:
            stream.write(json.dumps([name, query]) + "\n")
        return reply

    async def aclose(self) -> None:
        """Nothing of its own."""


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


def jobs(num_questions: int, *, sleep: bool, folder: Path | None) -> list[Job]:
    """The policy and its controls; with a folder, calls are recorded and counted there."""
    params = load_params(ROOT / "params.yaml")
    world = build_world(params.dataset.embedded)
    rows = embedded_questions(world, params.dataset.embedded, params.dataset.seed)
    test = [row for row in rows if row.split == "test"][:num_questions]
    simulated = SimulatedPool(default_candidates(), known_facts(world), seed=7, sleep=sleep)
    pool = simulated
    if folder is not None:
        pool = Recorder(
            Counted(simulated, folder / "paid.jsonl"), RecordStore(folder / "calls.jsonl")
        )
    policy = controls.Policy(
        1, scripted(test, simulated.cards[0].name), renderer("compact", 4), params.rollout, 0.0
    )
    routers = [controls.policy_router(policy, pool, "training", 5)]
    routers += controls.control_routers(policy, pool, "training", 5)
    return [(router, question) for router in routers for question in test]


def critical_path_s(rows: Sequence[Row], concurrency: int) -> float:
    """Seconds below which no schedule can be."""
    waits = [row.latency_s for row in rows]
    return max(max(waits), sum(waits) / concurrency)


def timed(num_questions: int, concurrency: int) -> dict[str, float]:
    """One evaluation with real waiting."""
    work = jobs(num_questions, sleep=True, folder=None)
    began = time.perf_counter()
    rows = asyncio.run(play_all(work, concurrency=concurrency))
    wall_s = time.perf_counter() - began
    limit_s = critical_path_s(rows, concurrency)
    return {
        "routers": len({row.router for row in rows}),
        "trajectories": len(rows),
        "concurrency": concurrency,
        "wall_s": round(wall_s, 3),
        "critical_path_s": round(limit_s, 3),
        "ratio": round(wall_s / limit_s, 3),
        "one_after_another_s": round(sum(row.latency_s for row in rows), 1),
    }


def child(num_questions: int, folder: Path) -> None:
    """The evaluation that may be killed: rows and calls survive in `folder`."""
    work = jobs(num_questions, sleep=True, folder=folder)
    store = RowStore(folder / "rows.jsonl", "benchmark")
    rows = asyncio.run(play_all(work, concurrency=64, store=store))
    text = "\n".join(json.dumps(asdict(row), sort_keys=True) for row in rows)
    (folder / "digest").write_text(hashlib.sha256(text.encode()).hexdigest())


def killed(num_questions: int) -> dict[str, object]:
    """Kill an evaluation half-way, start it again, and look at what was paid."""
    with tempfile.TemporaryDirectory() as name:
        struck, alone = Path(name, "struck"), Path(name, "alone")
        for folder in (struck, alone):
            folder.mkdir()
        command = [sys.executable, __file__, "--questions", str(num_questions), "--child"]
        first = subprocess.Popen([*command, str(struck)])
        total = len(jobs(num_questions, sleep=False, folder=None))
        while _lines(struck / "rows.jsonl") < total // 2:
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        kept = _lines(struck / "rows.jsonl") - 1
        for folder in (struck, alone):
            subprocess.run([*command, str(folder)], check=True)
        paid = Counter((struck / "paid.jsonl").read_text().splitlines())
        return {
            "trajectories": total,
            "rows_kept_at_the_kill": kept,
            "calls_paid": sum(paid.values()),
            "calls_paid_twice": sum(count - 1 for count in paid.values()),
            "calls_paid_without_a_kill": _lines(alone / "paid.jsonl"),
            "same_rows": (struck / "digest").read_text() == (alone / "digest").read_text(),
        }


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=4096)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.questions, chosen.child)
        return
    found: dict[str, object] = {"schedule": timed(chosen.questions, chosen.concurrency)}
    if chosen.kill:
        found["kill"] = killed(chosen.questions)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
