"""`kill -9` of each process of a retrain, at three moments each, and the state that it leaves.

Real parts: Prefect server and worker, MLflow server, DVC, git, and the ci preset's stages up to
`train`. One small stage makes up an evaluation after them, because no process is killed there. A
row is one retrain that is started, disturbed, and followed by another. Four things must hold. After
the kill no process is left and the champion is unchanged. The next run succeeds and its version
becomes champion. No version or logged model is partial. There are never two trainers. After a kill
of the worker, a retrain is started by hand beside the orphan, and the next run belongs to a new
worker. Writes JSON and a table; run it in the repository's root:

    python -m benchmarks.kills --out docs/results/kill-matrix.json [--victims dvc trainer] [--folder DIR]
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil

from benchmarks import shared
from tests.clone import commit, environment, is_stage, make_clone, processes_in, replace
from tests.servers import free_port, mlflow_server, running, until_answers

AFTER_TRAINING = '''
"""Rows of an evaluation, made up but of the right form, after `seconds`."""
import time
from pathlib import Path
import yaml
from routerr1.evaluate.rows import Row, write_rows

time.sleep(yaml.safe_load(Path("made.yaml").read_text())["seconds"])
for name, pool in (("eval", "training"), ("generalize", "drawn")):
    write_rows(Path(f"data/{name}/rows.parquet"), [
        Row(pool=pool, router="policy", seed=1, question_id=f"q{i}", dataset="d", question=f"{i}?",
            group=f"g{i}", hops=1, topic="t", answer="x", em=float(i % 2), f1=0.5, format_valid=True,
            cost_usd=0.001, calls=1, failures=0, prompt_tokens=1, completion_tokens=1, policy_tokens=1,
            latency_s=0.1, called=["Atlas"], best_calls=1, judged_calls=1,
            trajectory='{"question": {"golden_answers": ["x"]}}')
        for i in range(8)
    ])
'''
BY_HAND = "import sys; from routerr1.flows.pipeline import main; sys.exit(main({'promote': False, 'wait_s': 600}))"


@dataclass
class Row:
    """One kill and what came of it."""

    victim: str
    moment: str
    champion_kept: bool
    next_run: str
    promoted: bool
    partial_versions: int
    partial_models: int
    processes_left: list[str]
    trainers_at_once: int
    trainers_seen: list[str]
    gone_after_s: float
    next_run_s: float

    @property
    def holds(self) -> bool:
        """Whether everything is as it must be."""
        return (
            self.next_run == "COMPLETED"
            and self.champion_kept
            and self.promoted
            and not (self.partial_versions or self.partial_models or self.processes_left)
            and self.trainers_at_once <= 1
        )


@dataclass
class Bench:
    """A clone with its servers.

    Attributes:
        store: the MLflow server's database.
        files: where that server keeps artifacts.
    """

    clone: Path
    store: Path
    files: Path
    logs: Path
    number: int = 0
    worker: ExitStack = field(default_factory=ExitStack)

    def start_worker(self) -> None:
        """A worker, in the place of one that was killed."""
        self.worker.close()
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "routerr1"]
        log = self.logs / f"worker-{time.time():.0f}.log"
        self.worker.enter_context(
            running(command, log, env=environment(self.clone), cwd=self.clone)
        )

    def change(self, *, train: bool) -> None:
        """Another reward, so that the chain has to train again, or another evaluation only."""
        if train:
            text = (self.clone / "params.yaml").read_text()
            weight = f"  cost_weight: {0.1 + self.number / 100:.2f} "
            (self.clone / "params.yaml").write_text(re.sub("  cost_weight: [0-9.]+ ", weight, text))
        self.number += 1
        (self.clone / "made.yaml").write_text(f"{{seconds: 3, number: {self.number}}}\n")
        commit(self.clone, f"change {self.number}")

    def left(self) -> list[psutil.Process]:
        """Processes of runs: all that work in the clone but the worker."""
        return processes_in(self.clone, lambda words: "worker" not in words)

    def trainers(self) -> list[psutil.Process]:
        """Processes of the train stage; a child shows its parent's command line until it runs its own."""
        found = processes_in(self.clone, is_stage("train"))
        ids = {process.pid for process in found}
        mothers = []
        for process in found:
            with suppress(psutil.Error):
                if process.ppid() not in ids:
                    mothers.append(process)
        return mothers

    def query(self, text: str) -> list[Any]:
        """Rows of the MLflow store, read past its server."""
        with sqlite3.connect(f"file:{self.store}?mode=ro", uri=True) as connection:
            return connection.execute(text).fetchall()

    def evaluating(self) -> list[psutil.Process]:
        """Processes of the stage after training."""
        return processes_in(self.clone, lambda words: words[-1:] == ["after_training.py"])


Moment = Callable[[Bench], psutil.Process | None]


def flow_process(bench: Bench) -> psutil.Process | None:
    """The process in which the worker runs the flow."""
    engines = [p for p in bench.left() if any(w.startswith("prefect.") for w in p.cmdline())]
    return engines[0] if engines else None


def worker_process(bench: Bench) -> psutil.Process | None:
    """The worker itself."""
    found = processes_in(bench.clone, lambda words: "worker" in words and "start" in words)
    return found[0] if found else None


def dvc_process(bench: Bench) -> psutil.Process | None:
    """`dvc repro` of the stage that runs."""
    found = processes_in(bench.clone, lambda words: words[1:4] == ["-m", "dvc", "repro"])
    return found[0] if found else None


def trainer_process(bench: Bench) -> psutil.Process | None:
    """The train stage."""
    found = bench.trainers()
    return found[0] if found else None


def checkpoints(bench: Bench) -> bool:
    """Is a training under way past its first checkpoint?"""
    return bool(list(bench.clone.glob("runs/train/*/checkpoint-*/router_state.json")))


def when(condition: Callable[[Bench], object], victim: Moment) -> Moment:
    """The victim, once the condition holds."""
    return lambda bench: victim(bench) if condition(bench) else None


def training(bench: Bench) -> bool:
    """Has the trainer made its folder, and no checkpoint yet?"""
    return bool(list(bench.clone.glob("runs/train/*"))) and not checkpoints(bench)


def saving(bench: Bench) -> bool:
    """Is the trained policy there, and the trainer still?"""
    return bool(bench.trainers()) and (bench.clone / "models/policy").exists()


def evaluated(bench: Bench) -> bool:
    """Has the last stage written its outputs, and DVC not yet taken them in?"""
    made, rows = bench.clone / "made.yaml", bench.clone / "data/generalize/rows.parquet"
    with suppress(FileNotFoundError):  # DVC removes what the run before left
        return rows.stat().st_mtime > made.stat().st_mtime and not bench.evaluating()
    return False


def pending(bench: Bench) -> bool:
    """Was a logged model begun?"""
    return bool(bench.query("SELECT 1 FROM logged_models WHERE status = 1"))


def half_logged(bench: Bench) -> bool:
    """Has a logged model begun to receive its files, and is not finished?"""
    names = [row[0] for row in bench.query("SELECT model_id FROM logged_models WHERE status = 1")]
    return any(list(bench.files.rglob(f"{name}/artifacts/*")) for name in names)


def unregistered(bench: Bench) -> bool:
    """Is there a finished logged model without a version?"""
    return bool(
        bench.query(
            "SELECT 1 FROM logged_models WHERE status = 2 AND lifecycle_stage = 'active' AND model_id "
            "NOT IN (SELECT value FROM model_version_tags WHERE key = 'routerr1.model_id')"
        )
    )


MATRIX: dict[str, list[tuple[str, Moment]]] = {
    "dvc": [
        ("before its stage starts", when(lambda bench: not bench.evaluating(), dvc_process)),
        ("after the trainer's first checkpoint", when(checkpoints, dvc_process)),
        ("after its stage, before dvc.lock", when(evaluated, dvc_process)),
    ],
    "trainer": [
        ("before its first checkpoint", when(training, trainer_process)),
        ("after its first checkpoint", when(checkpoints, trainer_process)),
        ("with the policy just saved", when(saving, trainer_process)),
    ],
    "flow": [
        ("before the first stage", flow_process),
        ("after the trainer's first checkpoint", when(checkpoints, flow_process)),
        ("while a later stage runs", when(Bench.evaluating, flow_process)),
    ],
    "worker": [
        ("as the flow starts", when(flow_process, worker_process)),
        ("after the trainer's first checkpoint", when(checkpoints, worker_process)),
        ("during log_model", when(pending, worker_process)),
    ],
    "log_model (flow)": [
        ("the logged model just begun", when(pending, flow_process)),
        ("some of its files there", when(half_logged, flow_process)),
        ("READY, and no version yet", when(unregistered, flow_process)),
    ],
}


class Watcher:
    """Looks all the time how many trainers there are."""

    def __init__(self, bench: Bench) -> None:
        self.most = 0
        self.seen: list[str] = []  # where there were most
        self._bench = bench
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            found = self._bench.trainers()
            if len(found) > self.most:
                self.most = len(found)
                self.seen = [line for line in map(told, found) if line]

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def told(process: psutil.Process) -> str:
    """Id and command line; empty if it is gone."""
    with suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    return ""


def disturb(bench: Bench, victim: str, moment: str, chosen: Moment) -> Row:
    """One row of the matrix."""
    # A flow that a killed worker had only begun to start keeps it for the grace period in prefect.yaml.
    until(slot_is_free, "the deployment's slot is free", 400, 1.0)
    champion = champion_number()
    bench.change(train=victim == "trainer" or "checkpoint" in moment)
    with Watcher(bench) as watcher:
        # An orphan of a killed worker goes on to its end; it must not be the one to move the champion.
        started = start_run(promote=victim != "worker")
        process = until(lambda: chosen(bench), f"{victim}, {moment}", every_s=0.005)
        process.kill()
        killed = time.monotonic()
        beside = by_hand(bench) if victim == "worker" else "COMPLETED"
        with suppress(TimeoutError):
            until(lambda: not bench.left(), "nothing left of the killed run", 120)
        gone_s = time.monotonic() - killed
        left = [line for line in map(told, bench.left()) if line]
        kept = champion_number() == champion
        if victim == "worker":
            bench.start_worker()
            until(slot_is_free, "the deployment's slot is free", 400, 1.0)
        else:
            until(lambda: is_over(started), "Prefect knows that the run is over", 120)
        began = time.monotonic()
        state = finished(start_run(promote=True))
        next_s = time.monotonic() - began
    versions, models = partial()
    return Row(
        victim, moment, kept, state if beside == "COMPLETED" else f"by hand: {beside}",
        champion_number() == newest_number(), versions, models, left, watcher.most, watcher.seen,
        round(gone_s, 1), round(next_s, 1),
    )  # fmt: skip


def until(found: Callable[[], Any], what: str, seconds: float = 300, every_s: float = 0.2) -> Any:
    """The first true value.

    Raises: TimeoutError.
    """
    deadline = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain: {what}")
        time.sleep(every_s)
    return value


def start_run(*, promote: bool) -> str:
    """Start the deployment; the flow run's id."""
    from prefect.deployments import run_deployment

    started = run_deployment("retrain/retrain", parameters={"promote": promote}, timeout=0)
    return str(started.id)  # type: ignore[union-attr]  # a coroutine only inside a loop


def slot_is_free() -> bool:
    """May the deployment start another run?"""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        limit = client.read_deployment_by_name("retrain/retrain").global_concurrency_limit
        return limit is None or limit.active_slots == 0


def state_of(run: str) -> Any:
    """The flow run's state as the server has it."""
    from uuid import UUID

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run)).state


def is_over(run: str) -> bool:
    """Is the flow run's state final?"""
    return bool(state_of(run).is_final())


def finished(run: str) -> str:
    """Wait for the end; the state's type."""
    until(lambda: is_over(run), "the next run", 900, 1.0)
    return str(state_of(run).type.value)


def by_hand(bench: Bench) -> str:
    """The flow started by a person in the folder; COMPLETED if it ends well."""
    done = subprocess.run(
        [sys.executable, "-c", BY_HAND],
        cwd=bench.clone, env=environment(bench.clone), capture_output=True, text=True, check=False,
    )  # fmt: skip
    (bench.logs / "by-hand.log").write_text(done.stdout + done.stderr)
    return "COMPLETED" if done.returncode == 0 else f"status {done.returncode}"


def champion_number() -> int:
    """The version with the alias champion."""
    from routerr1.registry import versions
    from routerr1.tracking.store import open_client

    return versions.get_version(open_client(), "routerr1", "champion").number


def newest_number() -> int:
    """The version made last."""
    from routerr1.registry import versions
    from routerr1.tracking.store import open_client

    return max(each.number for each in versions.list_versions(open_client(), "routerr1"))


def partial() -> tuple[int, int]:
    """How many versions are not whole, and how many logged models are neither READY nor a version's."""
    from routerr1.errors import RegistryError
    from routerr1.registry import versions
    from routerr1.tracking.store import experiment_id, open_client

    client = open_client()
    listed = versions.list_versions(client, "routerr1")
    broken = 0
    for version in listed:
        try:
            versions.verify(client, version.model_id)
        except RegistryError:
            broken += 1
    kept = {version.model_id for version in listed}
    experiment = experiment_id(client, "routerr1")
    logged = client.search_logged_models([experiment])
    return broken, sum(str(m.status) != "READY" or m.model_id not in kept for m in logged)


@contextmanager
def made_bench(folder: Path) -> Iterator[Bench]:
    """Clone, servers, deployments without schedules, a worker, and a first champion."""
    port, log = free_port(), folder / "prefect.log"
    address = f"http://127.0.0.1:{port}"
    (folder / "prefect").mkdir(parents=True)
    os.environ |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    clone = make_clone(folder / "clone")
    # The real trainer, with windows that a kill can hit.
    replace(clone / "presets/ci.yaml", "train: {steps: 4,", "train: {steps: 8,")
    replace_evaluation(clone)
    commit(clone, "bench")
    os.chdir(folder)
    server = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    store = folder / "mlflow.db"
    with (
        mlflow_server(folder, f"sqlite:///{store}") as mlflow,
        running([*server, "--host", "127.0.0.1"], log),
    ):
        until_answers(f"{address}/api/health", log)
        os.environ["MLFLOW_TRACKING_URI"] = mlflow
        # Schedules would start runs of their own between the rows.
        text = (clone / "prefect.yaml").read_text()
        (clone / "prefect.yaml").write_text(
            text.replace("timezone: UTC", "timezone: UTC\n        active: false")
        )
        commit(clone, "no schedules")
        command = [sys.executable, "-m", "routerr1.cli", "ops", "install"]
        subprocess.run(command, cwd=clone, env=environment(clone), check=True)
        bench = Bench(clone, store, folder / "artifacts", folder)
        with bench.worker:
            bench.start_worker()
            if finished(start_run(promote=True)) != "COMPLETED":
                raise RuntimeError(f"the first run failed; see the logs in {folder}")
            yield bench


def replace_evaluation(clone: Path) -> None:
    """Put one small stage in the place of all that come after training."""
    import yaml

    chain = yaml.safe_load((clone / "dvc.yaml").read_text())
    stages = chain["stages"]
    chain["stages"] = {
        name: stages[name] for name in list(stages)[: list(stages).index("train") + 1]
    }
    chain["stages"]["evaluate"] = {
        "cmd": f"{sys.executable} after_training.py",
        "deps": ["after_training.py", "models/policy"],
        "params": [{"made.yaml": None}],
        "outs": ["data/eval", "data/generalize"],
    }
    del chain["metrics"], chain["plots"]
    (clone / "dvc.yaml").write_text(yaml.safe_dump(chain, sort_keys=False))
    (clone / "after_training.py").write_text(AFTER_TRAINING)
    (clone / "made.yaml").write_text("{seconds: 3, number: 0}\n")


def to_markdown(rows: list[Row]) -> str:
    """The table."""
    lines = [
        "# Kills",
        "",
        "A real retrain is killed with `kill -9`, one process at a time: Prefect server and worker, MLflow server,",
        "DVC, and the stages of the ci preset up to the trainer (8 steps). A last stage makes an evaluation up.",
        "",
        "- *Gone* is the time until no process of the disturbed run is left. Then the champion is checked, and",
        "  another retrain starts through the deployment. Its version has to become champion.",
        "- Where the worker is killed, a retrain starts by hand at once, beside the orphan that the worker left.",
        "  Both end within *gone*, and the next run belongs to a new worker.",
        "- *Trainers* is the highest number of training processes seen at once, ten looks a second. It is 0 where",
        "  only the later stage has to run.",
        "",
        "Command: `python -m benchmarks.kills --out docs/results/kill-matrix.json`.",
        "",
        "| killed | when | champion kept | processes left | trainers | next run | its version champion "
        "| partial versions | partial logged models | gone (s) | next run (s) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.victim} | {row.moment} | {_yes(row.champion_kept)} | {len(row.processes_left)} "
            f"| {row.trainers_at_once} | {row.next_run.lower()} | {_yes(row.promoted)} "
            f"| {row.partial_versions} | {row.partial_models} | {row.gone_after_s} | {row.next_run_s} |"
        )
    good = sum(row.holds for row in rows)
    lines += ["", f"{good} of {len(rows)} rows hold."]
    done = {(row.victim, row.moment) for row in rows}
    every = [(victim, moment) for victim, moments in MATRIX.items() for moment, _ in moments]
    missing = [f"{victim} {moment}" for victim, moment in every if (victim, moment) not in done]
    lines += [f"Not run yet: {'; '.join(missing)}."] if missing else []
    return "\n".join([*lines, ""])


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def earlier_rows(file: Path) -> list[Row]:
    """What is there already; rows of another form were measured otherwise and are left out."""
    stored = json.loads(file.read_text())["rows"] if file.is_file() else []
    measured = {each.name for each in fields(Row)}
    return [Row(**row) for row in stored if row.keys() == measured]


def main() -> int:
    """Run the rows asked for; others already in the file stay. Status 1 if a row does not hold."""
    parser = shared.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--victims", nargs="*", default=list(MATRIX), choices=list(MATRIX))
    parser.add_argument("--folder", type=Path, help="kept, with its logs; must not exist")
    options = parser.parse_args()
    out = options.out.resolve()
    rows = {(row.victim, row.moment): row for row in earlier_rows(out)}
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=options.folder is None)
        bench = stack.enter_context(made_bench(folder.resolve()))
        for victim in options.victims:
            for moment, chosen in MATRIX[victim]:
                row = disturb(bench, victim, moment, chosen)
                rows[victim, moment] = row
                sys.stderr.write(f"{row}\n")
                order = [(v, m) for v, moments in MATRIX.items() for m, _ in moments]
                found = [rows[key] for key in order if key in rows]
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps({"rows": [asdict(r) for r in found]}, indent=2) + "\n")
                out.with_suffix(".md").write_text(to_markdown(found))
    return 0 if all(row.holds for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
