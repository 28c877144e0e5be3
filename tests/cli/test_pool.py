"""`routerr1 pool ...` as one types it."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli.pool import app
from routerr1.config import BudgetParams
from routerr1.errors import PoolError
from routerr1.pool.build import open_budget
from routerr1.pool.cards import write_cards
from routerr1.simulation.server import listen
from routerr1.types import Card

ROOT = Path(__file__).parents[2]


def run(*args: str) -> str:
    result = CliRunner().invoke(app, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def routerr1(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from routerr1.cli import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_show_tells_prices_performance_and_spending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown = run("show", "--file", str(ROOT / "pools" / "paper.yaml"))
    assert "Mixtral-8x22B-Instruct" in shown
    assert "prices as of 2025-06-10" in shown
    assert "spent in" not in shown
    monkeypatch.chdir(tmp_path)
    budget = open_budget(BudgetParams(run_usd=1.0), {"ROUTERR1_RUN": "sweep"})
    assert budget is not None
    with budget.reserve(0.5) as reservation:
        reservation.cost_usd = 0.25
    budget.close()
    cards = [
        Card("Atlas", completion_usd_per_mtok=0.6, latency_s=0.41, performance={"a": 0.1, "b": 0.9})
    ]
    write_cards(tmp_path / "cards.json", cards)
    shown = run("show", "--cards", "cards.json")
    assert "b 90%, a 10%" in " ".join(shown.split())
    assert "run sweep 0.250000" in " ".join(shown.split())


def test_import_tells_what_it_did(tmp_path: Path):
    row = {"query_id": "1", "query": "q", "model": "google/gemma-2-27b-it", "response": "a"}
    (tmp_path / "log.jsonl").write_text(json.dumps(row))
    args = (
        "import", str(tmp_path / "log.jsonl"), str(tmp_path / "calls.jsonl"),
        "--file", str(ROOT / "pools" / "paper.yaml"), "--params", str(ROOT / "params.yaml"),
    )  # fmt: skip
    assert "1 calls added, 0 were there already" in " ".join(run(*args).split())
    again = " ".join(run(*args).split())
    assert "0 calls added, 1 were there already, 0 rows hold no text, 0 rows put aside" in again


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("show", "--file", "pools/none.yaml"), "pools/none.yaml: cannot be read"),
        (("show", "--cards", "none.json"), "none.json: cannot be read"),
        (("serve", "--faults", "hang=2"), "fault hang: rate is 2.0, must be from 0 to 1"),
        (("reprice", "none.yaml"), "none.yaml: cannot be read"),
        (("import", "none.jsonl", "/tmp/none.store"), "none.jsonl: not found"),
    ],
)
def test_what_cannot_be_used_is_an_error_of_ours(args: tuple[str, ...], problem: str):
    with pytest.raises(PoolError, match=re.escape(problem)):
        CliRunner().invoke(app, args, catch_exceptions=False)


@pytest.mark.slow
def test_an_error_is_one_line_and_status_2():
    done = routerr1("pool", "show", "--file", "pools/none.yaml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pools/none.yaml: cannot be read (No such file or directory)" in done.stderr


@pytest.mark.slow
def test_serve_answers_over_http_until_it_is_stopped():
    command = [
        sys.executable, "-c", "from routerr1.cli import main; main()", "pool", "serve",
        "--port", "0", "--faults", "rate_limit=1,retry_after_s=7", "--time-scale", "0",
    ]  # fmt: skip
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stderr is not None
        said = server.stderr.readline()
        url = said.split()[3].removesuffix("/v1")
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            assert {"Atlas", "Penny"} <= {model["id"] for model in json.load(answer)["data"]}
        body = {"model": "Atlas", "messages": [{"role": "user", "content": "x"}]}
        request = urllib.request.Request(
            f"{url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert (refused.value.code, refused.value.headers["retry-after"]) == (429, "7")
        refused.value.close()
    finally:
        began = time.monotonic()
        server.terminate()
        server.communicate()
    assert time.monotonic() - began < 5


def test_a_taken_port_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PoolError, match=rf"127\.0\.0\.1:{port} .* is it taken\?"):
            listen("127.0.0.1", port)
