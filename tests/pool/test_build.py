"""Where keys come from, and that the SDK does not log them; what a whole run writes is in test_recorded_run.py."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from routerr1.config import BudgetParams, PoolParams
from routerr1.errors import PoolError
from routerr1.pool.base import Call
from routerr1.pool.build import environment, open_http_pool, store_file
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving

KEY = "sk-MARKED-7f3a9c52e8d14b60"


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_keys_is_read_as_editors_and_shells_write_it(tmp_path: Path, encoding: str):
    (tmp_path / ".env").write_text("# clé\nFIRST_POOL_KEY=file\n", encoding=encoding)
    assert environment(tmp_path / ".env")["FIRST_POOL_KEY"] == "file"


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"A=1\n# cl\xe9\n", ", line 2"), ("A=1\n".encode("utf-16-le"), ""), (b"\xff\xfeA", ", line 1")],
)  # fmt: skip
def test_a_file_of_keys_that_is_no_text_is_one_line(tmp_path: Path, content: bytes, line: str):
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(PoolError) as caught:
        environment(tmp_path / ".env")
    assert str(caught.value) == f"{tmp_path / '.env'}{line}: is not UTF-8; save the file as UTF-8"


async def test_requests_and_errors_of_the_sdk_are_logged_without_the_key(
    simulated: SimulatedPool,
    pool_file: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    with serving(build_app(simulated, time_scale=0, key="another-key")) as url:
        path = pool_file(url, endpoint={"key_env": "MARKED_POOL_KEY"}).relative_to(tmp_path)
        params = PoolParams(kind="http", file=path, seed=1, max_reply_tokens=10, max_concurrency=2)
        pool = open_http_pool(params, environ={"MARKED_POOL_KEY": KEY})
        replies = await asyncio.gather(*(pool.ask(Call("Mint", str(n))) for n in range(3)))
        await pool.aclose()
    assert {reply.note for reply in replies} == {'Mint: status 401 "wrong or missing key"'}
    assert caplog.records
    assert KEY not in caplog.text


def test_a_temporary_copy_of_a_project_records_into_the_store_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / ".dvc/tmp/exps/tmpabc"
    copy.mkdir(parents=True)
    record = PoolParams(
        kind="http", file=Path("pools/paper.yaml"), seed=1, max_reply_tokens=9, max_concurrency=1,
        candidates="specialists", redraw=0.0, calls="record", store=Path("store/calls.jsonl"),
        budget=BudgetParams(question_usd=None, run_usd=None, month_usd=None),
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert store_file(record) == Path("store/calls.jsonl")
    monkeypatch.chdir(copy)
    assert store_file(record) == tmp_path / "store/calls.jsonl"
    replay = record.replace(calls="replay")
    assert store_file(replay) == tmp_path / "store/calls.jsonl"
    Path("store").mkdir()
    Path("store/calls.jsonl").touch()  # committed, so DVC copied it
    assert store_file(replay) == Path("store/calls.jsonl")
    assert store_file(record) == tmp_path / "store/calls.jsonl"
