"""Where the replies of `routerr1 ask` come from, and what it says of them."""

import json
import os
from pathlib import Path

import psutil
import pytest

from routerr1.cli.sources import (
    SIMULATED,
    chosen_source,
    chosen_source_of_version,
    source_line,
)
from routerr1.config import Params
from routerr1.errors import ConfigError, PoolError
from routerr1.pool.provenance import provenance_file, read_provenance

DIGEST = "0" * 64
POOL = """
prices: {as_of: 2026-11-29, source: test}
endpoints: {tiny: {base_url: "http://127.0.0.1:9/v1"}, other: {base_url: "http://127.0.0.1:10/v1"}}
servers:
  models:
    tiny: {hub: a/b, file: c.gguf, sha256: "{DIGEST}", license: none}
    other: {hub: a/b, file: c.gguf, sha256: "{DIGEST}", license: none}
candidates:
  - {name: Plain, endpoint: tiny, model: plain, context_window: 700,
     prompt_usd_per_mtok: 1, completion_usd_per_mtok: 1}
""".replace("{DIGEST}", DIGEST)


@pytest.fixture
def recorded(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A recorded pool in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pools").mkdir()
    (tmp_path / "pools/mine.yaml").write_text(POOL)
    pool = params.pool.replace(
        kind="recorded", file=Path("pools/mine.yaml"), store=Path("pools/replies.jsonl.gz")
    )
    return params.replace(pool=pool)


def put_up(name: str, started: float | None = None) -> None:
    """Let this process be a server that `pool up` started."""
    folder = Path("runs/servers/mine")
    folder.mkdir(parents=True, exist_ok=True)
    process = psutil.Process(os.getpid())
    row = {"pid": process.pid, "started": process.create_time() if started is None else started}
    (folder / f"{name}.json").write_text(json.dumps(row))


def test_a_recorded_pool_is_asked_live_while_a_server_runs(recorded: Params) -> None:
    assert chosen_source(recorded, None).pool.kind == "recorded"
    put_up("tiny", started=1.0)  # killed, and its id is another process's now
    assert chosen_source(recorded, None).pool.kind == "recorded"
    put_up("other")
    assert chosen_source(recorded, None).pool.kind == "http"
    assert chosen_source(recorded, False).pool.kind == "recorded"


def test_live_can_be_asked_for_without_a_server_of_ours(recorded: Params) -> None:
    chosen = chosen_source(recorded, True).pool
    assert (chosen.kind, chosen.store, chosen.redraw) == ("http", None, 0.0)
    simulated = recorded.pool.replace(kind="simulated", file=None, store=None)
    with pytest.raises(ConfigError, match="there is no model to ask"):
        chosen_source(recorded.replace(pool=simulated), True)


def test_a_version_is_asked_live_if_its_pool_has_the_addresses_that_are_up(
    recorded: Params, tmp_path: Path
) -> None:
    put_up("tiny")
    same, moved = tmp_path / "same.yaml", tmp_path / "moved.yaml"
    same.write_text(POOL)
    moved.write_text(POOL.replace("127.0.0.1:9/", "127.0.0.1:11/"))
    kinds = {
        file.stem: chosen_source_of_version(
            recorded.replace(pool=recorded.pool.replace(file=file)), recorded, None
        ).pool.kind
        for file in (same, moved)
    }
    assert kinds == {"same": "http", "moved": "recorded"}


def test_the_committed_store_names_its_models_and_its_day(params: Params) -> None:
    pool = params.pool.replace(
        kind="recorded",
        file=Path("pools/laptop.yaml"),
        store=Path("pools/laptop/replies.jsonl.gz"),
    )
    assert source_line(pool, pool) == (
        "The replies are real: gemma-3-270m-Q4_K_M, Qwen2.5-Coder-0.5B-Instruct, "
        "Qwen2.5-Coder-1.5B-Instruct and SmolLM2-135M-Instruct gave them, recorded on 2026-11-29. "
        "While `routerr1 pool up` runs, they are asked live."
    )


def test_each_source_is_named(recorded: Params) -> None:
    pool = recorded.pool
    assert source_line(pool, pool) == (
        "The replies were recorded earlier (pools/replies.jsonl.gz)."
    )
    live = chosen_source(recorded, True).pool
    assert source_line(live, pool) == (
        "The replies are live: the servers of pools/mine.yaml gave them now."
    )
    assert source_line(live, live) is None
    simulated = pool.replace(kind="simulated", file=None, store=None)
    assert source_line(simulated, simulated) == SIMULATED


def test_a_damaged_provenance_is_named(tmp_path: Path) -> None:
    store = tmp_path / "replies.jsonl.gz"
    assert read_provenance(store) is None
    provenance_file(store).write_text('{"forms": "x"}')
    with pytest.raises(PoolError, match=r"replies\.provenance\.json: server: Field required"):
        read_provenance(store)
    provenance_file(store).write_text("{")
    with pytest.raises(PoolError, match=r"replies\.provenance\.json, line 1: is not JSON"):
        read_provenance(store)
