"""A key is in no file, log line, error or record, whatever goes wrong."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from routerr1.config import BudgetParams, PoolParams
from routerr1.errors import PoolError
from routerr1.pool.build import environment, open_http_pool
from routerr1.pool.faults import Faults
from routerr1.pool.profile import profile, write_profile
from routerr1.pool.server import build_app, serving
from routerr1.pool.simulated import SimulatedPool
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.rollout.record import to_row
from routerr1.types import Question

KEY = "sk-MARKED-7f3a9c52e8d14b60"


class Telltale(SimulatedPool):
    """A server that sends the key it was given back in every reply."""

    def say(self, name: str, query: str) -> str:
        return f"{super().say(name, query)} You called with {KEY}."


async def test_a_marked_key_is_in_nothing_that_is_written(
    simulated: SimulatedPool,
    asked: list[Question],
    pool_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"MARKED_POOL_KEY={KEY}\n")
    faults = Faults(
        rate_limit=0.1,
        server_error=0.1,
        cut=0.1,
        broken_json=0.1,
        empty_choice=0.1,
        retry_after_s=0,
    )
    telltale = Telltale(simulated.candidates, simulated._known, seed=3)
    errors: list[str] = []
    with serving(build_app(telltale, faults=faults, seed=1, time_scale=0, key=KEY)) as url:
        path = pool_file(url, endpoint={"key_env": "MARKED_POOL_KEY", "backoff_s": 0.001})
        params = PoolParams(
            kind="http", file=path, seed=1, max_reply_tokens=100, max_concurrency=16,
            calls="record", store=tmp_path / "calls.jsonl", budget=BudgetParams(run_usd=5.0),
        )  # fmt: skip
        pool = open_http_pool(params, environ=environment())
        found = await profile(asked[:20], pool, store=tmp_path / "probes.jsonl")
        write_profile(tmp_path / "pool", found)
        script = ["<search>Mint: what?</search>", "<answer>that</answer>"]
        from routerr1.config import RolloutParams

        limits = RolloutParams(max_rounds=2, max_new_tokens=50, temperature=1.0)
        played = await rollout(
            asked[0], ScriptedGenerator(script), pool, render=lambda *_: "", params=limits, seed=1
        )
        (tmp_path / "trajectory.txt").write_text(repr(to_row(played)) + repr(pool))
        await pool.aclose()
        try:
            await pool.ask("Mint", "x")
        except RuntimeError:
            errors.append(traceback.format_exc())
    # A wrong key, a server that is gone, a pool file that is broken: errors and notes of every kind.
    wrong = open_http_pool(
        params.model_copy(update={"calls": "live"}), environ={"MARKED_POOL_KEY": KEY}
    )
    errors.append(repr(await wrong.ask("Mint", "x")))
    await wrong.aclose()
    path.write_text(path.read_text().replace("endpoint: here", "endpoint: there"))
    with pytest.raises(PoolError) as caught:
        open_http_pool(params, environ=environment())
    errors.append("".join(traceback.format_exception(caught.value)))
    assert found.summary["Mint"]["overall"]["probes"] == 20
    assert any("[key]" in row["answer"] for row in found.rows)
    assert KEY not in caplog.text
    assert KEY not in "".join(errors)
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != ".env"]
    assert {file.name for file in written} >= {
        "calls.jsonl",
        "probes.jsonl",
        "matrix.parquet",
        "budget.sqlite",
    }
    for file in written:
        assert KEY.encode() not in file.read_bytes(), file


def test_git_ignores_the_file_keys_may_stand_in():
    lines = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert ".env" in lines


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text("FIRST_POOL_KEY=file\nSECOND_POOL_KEY=file\nEMPTY_POOL_KEY\n")
    monkeypatch.setenv("SECOND_POOL_KEY", "environment")
    found = environment(tmp_path / ".env")
    assert (found["FIRST_POOL_KEY"], found["SECOND_POOL_KEY"]) == ("file", "environment")
    assert "EMPTY_POOL_KEY" not in found
    assert "FIRST_POOL_KEY" not in environment(tmp_path / "none")


async def test_requests_and_errors_of_the_sdk_are_logged_without_the_key(
    simulated: SimulatedPool, pool_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    with serving(build_app(simulated, time_scale=0, key="another-key")) as url:
        path = pool_file(url, endpoint={"key_env": "MARKED_POOL_KEY"})
        params = PoolParams(kind="http", file=path, seed=1, max_reply_tokens=10, max_concurrency=2)
        pool = open_http_pool(params, environ={"MARKED_POOL_KEY": KEY})
        replies = await asyncio.gather(*(pool.ask("Mint", str(n)) for n in range(3)))
        await pool.aclose()
    assert {reply.note for reply in replies} == {"Mint: status 401"}
    assert caplog.records
    assert KEY not in caplog.text
