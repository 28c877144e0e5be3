"""`pool up` and `pool down` on real processes, with a GGUF of random weights."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli.app import app
from routerr1.errors import PoolError
from routerr1.files import sha256
from routerr1.laptop.servers import ServerState, down, up
from routerr1.pool.base import Call
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import PoolFile, read_pool_file
from tests.laptop.tiny_gguf import write_tiny_gguf
from tests.servers import listening

pytestmark = pytest.mark.slow

TEXT = """
prices: {{as_of: 2026-11-29, source: test}}
endpoints:
  tiny: {{base_url: "http://127.0.0.1:{tiny}/v1", backoff_s: 0.1}}
  desks: {{base_url: "http://127.0.0.1:{desks}/v1", backoff_s: 0.1}}
servers:
  models:
    tiny: {{hub: someone/tiny, file: tiny.gguf, sha256: {digest}, license: none, threads: 1}}
  desks:
    desks:
      facts: facts.jsonl
      desks:
        plain: {{model: tiny}}
        noted: {{model: tiny, book: {{topics: [geography], share: 1, least_score: 0.1}}}}
candidates:
  - {{name: Plain, endpoint: desks, model: plain, context_window: 512, max_reply_tokens: 4,
     prompt_usd_per_mtok: 1, completion_usd_per_mtok: 1}}
  - {{name: Noted, endpoint: desks, model: noted, context_window: 512, max_reply_tokens: 4,
     prompt_usd_per_mtok: 1, completion_usd_per_mtok: 1}}
"""


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


@pytest.fixture
def file(tmp_path: Path) -> PoolFile:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "facts.jsonl").write_text('{"topic": "geography", "text": "Lima is in Peru."}\n')
    tiny, desks = free_ports(2)
    path = tmp_path / "pool.yaml"
    path.write_text(TEXT.format(tiny=tiny, desks=desks, digest=sha256(tmp_path / "tiny.gguf")))
    return read_pool_file(path)


@pytest.fixture
def state(tmp_path: Path, file: PoolFile) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    down(file, state=folder)


async def say(file: PoolFile, name: str) -> tuple[str | None, str]:
    pool = HttpPool(file, file.keys({}), max_concurrency=4)
    try:
        reply = await pool.ask(Call(name, "Where is Lima?" if name == "Noted" else "Hello"))
    finally:
        await pool.aclose()
    return reply.failure, reply.text


def did(states: list[ServerState]) -> dict[str, str]:
    return {each.name: each.did for each in states}


def test_a_missing_file_says_where_to_get_it(file: PoolFile, tmp_path: Path) -> None:
    with pytest.raises(PoolError) as error:
        up(file, tmp_path / "elsewhere", state=tmp_path / "state")
    assert "tiny.gguf: cannot be read (No such file or directory)" in str(error.value)
    assert "get tiny.gguf from the hub repository someone/tiny into" in str(error.value)
    assert "\n" not in str(error.value)


def test_another_file_is_refused(file: PoolFile, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    with (tmp_path / "tiny.gguf").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(PoolError, match=r"its sha256 begins with .* get tiny\.gguf from the hub"):
        up(file, tmp_path, state=tmp_path / "state")
    assert not list((tmp_path / "state" / "pool").glob("*.json"))


def test_a_server_that_the_file_does_not_have_is_named(file: PoolFile, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="no server 'tinny'; servers: tiny, desks"):
        up(file, tmp_path, only=["tinny"], state=tmp_path / "state")


def test_a_pool_file_without_servers_has_nothing_to_start() -> None:
    with pytest.raises(PoolError, match="no `servers` section"):
        down(read_pool_file(Path("pools/paper.yaml")))


def test_a_port_in_use_is_told_before_anything_starts_on_it(
    file: PoolFile, tmp_path: Path, state: Path
) -> None:
    pytest.importorskip("xllamacpp")
    up(file, tmp_path, only=["tiny"], state=state)
    with pytest.raises(PoolError, match="another process answers at http"):
        up(file, tmp_path, only=["tiny"], state=tmp_path / "other")


async def test_servers_come_up_answer_are_healed_and_end(
    file: PoolFile, tmp_path: Path, state: Path
) -> None:
    pytest.importorskip("xllamacpp")
    states = up(file, tmp_path, state=state)
    assert did(states) == {"tiny": "started", "desks": "started"}
    assert all(each.memory_mb and each.memory_mb > 1 for each in states)
    failure, first = await say(file, "Plain")
    assert failure is None
    assert await say(file, "Noted") == await say(file, "Noted")

    model = next(each.pid for each in states if each.name == "tiny")
    assert model is not None
    os.kill(model, signal.SIGKILL)
    assert (await say(file, "Plain"))[0] == "unavailable"

    assert did(up(file, tmp_path, state=state)) == {"tiny": "started", "desks": "was up"}
    assert await say(file, "Plain") == (None, first)

    assert did(down(file, state=state)) == {"desks": "ended", "tiny": "ended"}
    assert did(down(file, state=state)) == {"desks": "was down", "tiny": "was down"}
    assert (await say(file, "Plain"))[0] == "unavailable"


async def test_a_server_killed_under_load_fails_its_own_calls_alone_and_is_healed(
    file: PoolFile, tmp_path: Path, state: Path
) -> None:
    """As in `ask` and `evaluate`: calls to the dead model fail with the reason, and other calls do not."""
    pytest.importorskip("xllamacpp")
    states = up(file, tmp_path, state=state)
    model = next(each.pid for each in states if each.name == "tiny")
    assert model is not None
    pool = HttpPool(file, file.keys({}), max_concurrency=4)
    # The desk refuses this without its model.
    replies = [Call("Noted", "zzz"), *(Call("Plain", f"Say {number}.") for number in range(12))]
    try:
        playing = [asyncio.create_task(pool.ask(call)) for call in replies]
        first = await next(asyncio.as_completed(playing))
        assert first.failure is None
        os.kill(model, signal.SIGKILL)
        played = await asyncio.wait_for(asyncio.gather(*playing), 120)
        late = await pool.ask(Call("Plain", "Say late."))
        assert (await pool.ask(Call("Noted", "zzzz"))).text == "Not in my notes."
    finally:
        await pool.aclose()
    assert {reply.failure for reply in played} <= {None, "unavailable"}
    assert late.failure == "unavailable"
    assert "the model's server does not answer" in (late.note or "")

    assert did(up(file, tmp_path, state=state)) == {"tiny": "started", "desks": "was up"}
    assert (await say(file, "Plain"))[0] is None


class Elsewhere(BaseHTTPRequestHandler):
    """A server as Ollama and vLLM are: a request must name the model that is served."""

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "qwen2.5-coder:0.5b"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("model") != "qwen2.5-coder:0.5b":
            self._answer(404, {"error": {"message": f"model {body.get('model')!r} not found"}})
            return
        if self.path == "/v1/completions":
            choice = {"text": " " + body["prompt"].splitlines()[-2], "finish_reason": "stop"}
        else:
            said = body["messages"][-1]["content"]
            choice = {"message": {"content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
        self._answer(200, {"choices": [choice], "usage": usage})

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


async def test_desks_ask_a_server_that_was_started_by_other_means(
    file: PoolFile, state: Path
) -> None:
    text = file.path.read_text()
    begin, end = text.index("  models:"), text.index("  desks:\n    desks:")
    text = text[:begin] + "  elsewhere: {tiny: 'qwen2.5-coder:0.5b'}\n" + text[end:]
    text = text.replace(
        "plain: {model: tiny}", "plain: {model: tiny, form: complete, examples: 'Question: 1?'}"
    )
    with listening(Elsewhere) as port:
        address = file.endpoints["tiny"].base_url
        file.path.write_text(text.replace(address, f"http://127.0.0.1:{port}/v1"))
        moved = read_pool_file(file.path)
        assert did(up(moved, None, state=state)) == {"desks": "started"}
        assert await say(moved, "Plain") == (None, "Question: Hello")
        noted = "Notes:\n- Lima is in Peru.\nQuestion: Where is Lima?"
        assert await say(moved, "Noted") == (None, noted)
        assert did(down(moved, state=state)) == {"desks": "ended"}
    with pytest.raises(
        PoolError, match=r"'tiny' is elsewhere and does not answer .*start it first"
    ):
        up(moved, None, state=state)


def test_a_model_server_needs_the_folder_of_its_file(file: PoolFile, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    with pytest.raises(PoolError, match="--models: name the folder"):
        up(file, None, state=tmp_path / "state")


def test_a_server_that_cannot_start_names_its_log(
    tmp_path: Path, file: PoolFile, state: Path
) -> None:
    (tmp_path / "facts.jsonl").write_text("damaged\n")
    started = time.monotonic()
    with pytest.raises(PoolError, match=r"'desks' ended while it started; its log is .*desks\.log"):
        up(file, tmp_path, only=["desks"], state=state)
    assert time.monotonic() - started < 60
    assert "facts.jsonl, line 1" in (state / "pool" / "desks.log").read_text()


def test_the_command_tells_a_missing_file_in_one_line(file: PoolFile, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    result = CliRunner().invoke(
        app, ["pool", "up", str(file.path), "--models", str(tmp_path / "no")]
    )
    assert isinstance(result.exception, PoolError)
    assert "hub repository someone/tiny" in str(result.exception)
