"""A whole run over a real and faulty HTTP server, recorded: it replays to the byte, and holds no key."""

import asyncio
import json
import logging
import shutil
import socket
import sqlite3
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.errors import PoolError
from routerr1.evaluate.rows import read_rows
from routerr1.pool.base import Call
from routerr1.pool.records import read_records
from routerr1.rollout.record import from_row
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.faults import Faults
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.stages.dataset import dataset
from routerr1.stages.evaluate import evaluate
from routerr1.stages.profile import profile
from routerr1.stages.report import report
from routerr1.stages.train import train
from routerr1.workspace import Workspace
from tests.folder import make_folder

pytestmark = pytest.mark.slow

KEY = "sk-MARKED-7f3a9c52e8d14b60"
STORE = Path("runs/calls.jsonl")
POOL_FILE = Path("pools/pool.yaml")
FAULTS = Faults(
    rate_limit=0.05, server_error=0.05, cut=0.05, broken_json=0.03, empty_choice=0.03, tags=0.05,
    retry_after_s=0.01,
)  # fmt: skip


class Telltale(SimulatedPool):
    """Sends the key it was called with back in every reply."""

    def say(self, name: str, query: str) -> str:
        return f"{super().say(name, query)} You called with {KEY}."


@dataclass(frozen=True)
class Recorded:
    """The folder of the run, and every error message it met."""

    folder: Path
    errors: str


def set_up(folder: Path, policy: Path, mlflow_db: Path, **pool: Any) -> Params:
    """A working folder with an HTTP pool."""
    changes = {
        "pool": {"kind": "http", "file": str(POOL_FILE), "store": str(STORE), **pool},
        "profile_pool": {"probes": 6},
        "evaluate": {"max_questions": 4},
        "baselines": {"include": []},
    }
    return make_folder(folder, policy, mlflow_db, changes)


def pool_file(url: str) -> str:
    rows = [
        {
            "name": each.name, "model": each.name, "endpoint": "here", "context_window": 4096,
            "prompt_usd_per_mtok": each.prompt_usd_per_mtok,
            "completion_usd_per_mtok": each.completion_usd_per_mtok,
        }
        for each in default_candidates()
    ]  # fmt: skip
    here = {"base_url": f"{url}/v1", "key_env": "MARKED_POOL_KEY", "backoff_s": 0.005}
    prices = {"as_of": "2026-11-01", "source": "made up"}
    return yaml.safe_dump({"prices": prices, "endpoints": {"here": here}, "candidates": rows})


def failures(params: Params, url: str) -> Iterator[str]:
    """Messages for a missing server, a closed pool, a broken pool file and a refused key."""
    params = params.model_copy(update={"pool": params.pool.model_copy(update={"calls": "live"})})

    async def ask() -> str:
        pool = Workspace(params).open_pool()
        reply = await pool.ask(Call("Mint", "x"))
        await pool.aclose()
        try:
            await pool.ask(Call("Mint", "x"))
        except RuntimeError:
            return repr((pool, reply)) + traceback.format_exc()
        raise AssertionError("a closed pool was asked")

    yield asyncio.run(ask())
    with serving(
        build_app(SimulatedPool(default_candidates(), {}, seed=1), key="another")
    ) as other:
        POOL_FILE.write_text(pool_file(other))
        yield asyncio.run(ask())
    POOL_FILE.write_text(pool_file(url).replace("endpoint: here", "endpoint: there"))
    try:
        Workspace(params).open_pool()
    except PoolError:
        yield traceback.format_exc()
    POOL_FILE.write_text(pool_file(url))


@pytest.fixture(scope="module")
def recorded(
    calling_policy: Path,
    mlflow_template: Path,
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Recorded]:
    """dataset, profile, train, evaluate, traces and report, with all output in debug.log."""
    from routerr1.tracking.store import experiment_id, open_client
    from routerr1.tracking.traces import log_traces

    folder = tmp_path_factory.mktemp("recorded")
    params = set_up(
        folder, calling_policy, mlflow_template, calls="record", budget={"run_usd": 5.0}
    )  # fmt: skip
    (folder / ".env").write_text(f"MARKED_POOL_KEY={KEY}\n")
    handler = logging.FileHandler(folder / "debug.log")
    root, level = logging.getLogger(), logging.getLogger().level
    telltale = Telltale(default_candidates(), known_facts(world), seed=7)
    served = build_app(telltale, faults=FAULTS, seed=1, time_scale=0.03, key=KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.chdir(folder)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            with serving(served) as url:
                POOL_FILE.parent.mkdir()
                POOL_FILE.write_text(pool_file(url))
                dataset(params)
                profile(params)
                train(params)
                evaluate(params)
                report(params)
            rows = [
                from_row(json.loads(row.trajectory))
                for row in read_rows(Path("data/eval/rows.parquet"))
            ]
            log_traces(rows[:8], experiment_id(open_client(), "routerr1"))
            errors = list(failures(params, url))
            yield Recorded(folder, "\n".join(errors))
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
            handler.close()


def test_the_run_replays_to_the_byte_with_no_network_and_no_key(
    recorded: Recorded,
    calling_policy: Path,
    mlflow_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies = [record.reply for record in read_records(recorded.folder / STORE)]
    assert sum(reply.failure is None for reply in replies) > 100
    assert any(reply.failure == "unavailable" for reply in replies)
    assert any(reply.retries for reply in replies)

    def refuse(*_: object) -> None:
        raise AssertionError("a replay used the network")

    again = tmp_path / "again"
    params = set_up(again, calling_policy, mlflow_template, calls="replay")
    for name in ("data/questions", "data/pool"):
        shutil.copytree(recorded.folder / name, again / name)
    for name in (str(POOL_FILE), str(STORE)):
        (again / name).parent.mkdir(exist_ok=True)
        shutil.copy(recorded.folder / name, again / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(again)
    train(params)
    for name in (
        "data/train/log.csv",
        "data/train/seeds.csv",
        "data/train/metrics.json",
        "models/policy/model.safetensors",
        str(STORE),
    ):
        assert Path(name).read_bytes() == (recorded.folder / name).read_bytes(), name
    assert (
        Path("models/policy/model.safetensors").read_bytes()
        != (calling_policy / "model.safetensors").read_bytes()
    )


def test_a_marked_key_is_in_nothing_that_the_run_wrote_or_said(recorded: Recorded) -> None:
    written = {
        str(path.relative_to(recorded.folder)): path
        for path in recorded.folder.rglob("*")
        if path.is_file() and path.name != ".env"
    }
    assert written.keys() >= {
        "debug.log", "mlflow.db", "runs/budget.sqlite", str(STORE), "data/pool/matrix.parquet",
        "data/train/log.csv", "data/eval/rows.parquet", "data/report/index.html",
        "models/policy/routerr1.json",
    }  # fmt: skip
    for name, path in written.items():
        assert KEY.encode() not in path.read_bytes(), name
    assert KEY not in recorded.errors
    # Parquet is compressed, and SQLite may split a long value: both are read as what they hold, too.
    rows = read_rows(recorded.folder / "data/eval/rows.parquet")
    assert KEY not in repr(rows)
    database = sqlite3.connect(recorded.folder / "mlflow.db")
    dump = "\n".join(database.iterdump())
    database.close()
    assert KEY not in dump
    # What was looked at is what the replies, errors and spans went into.
    assert "[key]" in repr(rows)
    assert "[key]" in (recorded.folder / "data/report/index.html").read_text()
    assert "[key]" in (recorded.folder / STORE).read_text()
    assert "You called with" in dump
    assert "pool.file" in dump
    assert "status 429" in (recorded.folder / "debug.log").read_text()
    for said in ("the connection failed", "status 401", "closed", "is not among those of the file"):
        assert said in recorded.errors
