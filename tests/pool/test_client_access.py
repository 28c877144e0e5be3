"""Candidates that want other parameters, sit behind a proxy, or show a certificate of their own."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from routerr1.errors import PoolError
from routerr1.pool.base import Call
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.profile import profile
from routerr1.types import Question
from tests.pool.unfair import REPLY
from tests.servers import write_certificate

KEY = "sk-MARKED-7f3a9c52e8d14b60"
QUESTIONS = [Question(f"q{n}", "d", f"Question {n}?", ("Paris",), "train") for n in range(3)]


class Stub(BaseHTTPRequestHandler):
    """Answers by what `server.reply` makes of (path, headers, body)."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, content = self.server.reply(self.path, headers, body)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


Seen = list[tuple[str, dict[str, str], bytes]]


@contextmanager
def stub(
    reply: Callable[[bytes], tuple[int, bytes]] = lambda _: (200, REPLY),
    context: ssl.SSLContext | None = None,
) -> Iterator[tuple[str, Seen]]:
    """Its address without a scheme, and the requests that came."""
    seen: Seen = []

    def answered(path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        seen.append((path, headers, body))
        return reply(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.reply = answered  # type: ignore[attr-defined]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def open_pool(
    folder: Path, url: str, *, row: Any = (), environ: Any = (), **endpoint: Any
) -> HttpPool:
    content = {
        "prices": {"as_of": "2026-11-01", "source": "made up"},
        "endpoints": {"here": {"base_url": url, "max_tries": 1, "key_env": "THE_KEY", **endpoint}},
        "candidates": [{
            "name": "One", "endpoint": "here", "model": "m", "context_window": 4096,
            "prompt_usd_per_mtok": 1.0, "completion_usd_per_mtok": 2.0, **dict(row),
        }],
    }  # fmt: skip
    path = folder / "pool.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    file, environ = read_pool_file(path), {"THE_KEY": KEY, **dict(environ)}
    return HttpPool(file, file.keys(environ), max_concurrency=4, environ=environ)


def newer_model(body: bytes) -> tuple[int, bytes]:
    if b"max_tokens" in body:
        said = (
            b"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens', not " + KEY.encode()
        )
        return 400, b'{"error": {"message": "' + said + b'"}}'
    return 200, REPLY


async def test_a_model_that_refuses_max_tokens_says_so_and_can_be_asked_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with stub(newer_model) as (address, seen):
        pool = open_pool(tmp_path, f"http://{address}/v1")
        with pytest.raises(PoolError) as caught:
            await profile(QUESTIONS, pool, store=None)
        await pool.aclose()
        told = "status 400 \"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens', not [key]\""
        assert str(caught.value) == (
            f"profile: candidate 'One' answered none of 3 probes (3 times {told}); "
            "check its endpoint, key and parameters"
        )
        assert caplog.messages == [f"{tmp_path}/pool.yaml: 3 of 3 calls to One failed: {told}"]
        parameters = {"max_tokens": None, "max_completion_tokens": 600, "temperature": None}
        pool = open_pool(tmp_path, f"http://{address}/v1", row={"parameters": parameters})
        found = await profile(QUESTIONS, pool, store=None)
        await pool.aclose()
    assert found.summary["One"]["overall"]["accuracy"] == 1.0
    assert b'"max_completion_tokens":600' in seen[-1][2].replace(b": ", b":")
    assert b"temperature" not in seen[-1][2]


async def test_headers_are_sent_and_their_secrets_never_shown(tmp_path: Path):
    def echo(_: bytes) -> tuple[int, bytes]:
        return 403, b'{"error": "the api-key azure-secret-1 is not good enough"}'

    with stub(echo) as (address, seen):
        pool = open_pool(
            tmp_path,
            f"http://{address}/v1",
            headers={"X-Title": "routerr1", "api-key": "$AZURE"},
            environ={"AZURE": "azure-secret-1"},
        )
        reply = await pool.ask(Call("One", "why?"))
        await pool.aclose()
    (_, headers, _) = seen[0]
    assert (headers["x-title"], headers["api-key"]) == ("routerr1", "azure-secret-1")
    assert headers["authorization"] == f"Bearer {KEY}"
    assert reply.note == 'One: status 403 "the api-key [key] is not good enough"'


async def test_parameters_of_the_address_are_sent_and_their_secrets_never_shown(tmp_path: Path):
    def echo(_: bytes) -> tuple[int, bytes]:
        return 403, b'{"error": "key azure-secret-1 of a&b is not good enough"}'

    with stub(echo) as (address, seen):
        pool = open_pool(
            tmp_path,
            f"http://{address}/openai/deployments/gpt",
            query={"api-version": date(2024, 10, 21), "key": "$AZURE", "of": "a&b é"},
            environ={"AZURE": "azure-secret-1"},
        )
        reply = await pool.ask(Call("One", "why?"))
        await pool.forward(Call("One", "why?"), {"messages": []})
        await pool.aclose()
    path = "/openai/deployments/gpt/chat/completions"
    behind = "api-version=2024-10-21&key=azure-secret-1&of=a%26b+%C3%A9"
    assert [each[0].replace("%20", "+") for each in seen] == [f"{path}?{behind}"] * 2
    assert reply.note == 'One: status 403 "key [key] of a&b is not good enough"'


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


FAR = "http://models.example.invalid/v1"


@pytest.mark.parametrize("way", ["environment", "file", "variable"])
async def test_a_proxy_is_gone_through(tmp_path: Path, no_proxies: pytest.MonkeyPatch, way: str):
    with stub() as (address, seen):
        options: dict[str, Any] = {}
        if way == "environment":
            no_proxies.setenv("HTTP_PROXY", f"http://me:proxy-secret@{address}")
        else:
            options = {"proxy": "$MY_PROXY" if way == "variable" else f"http://{address}"}
        environ = {"MY_PROXY": f"http://me:proxy-secret@{address}"}
        pool = open_pool(tmp_path, FAR, environ=environ, **options)
        reply = await pool.ask(Call("One", "why?"))
        await pool.aclose()
    assert reply.text == "Paris."
    (path, headers, _) = seen[0]
    assert path == f"{FAR}/chat/completions"
    assert ("proxy-authorization" in headers) == (way != "file")


async def test_proxies_of_the_environment_can_be_turned_off(
    tmp_path: Path, no_proxies: pytest.MonkeyPatch
):
    no_proxies.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with stub() as (address, _):
        direct = open_pool(tmp_path, f"http://{address}/v1", trust_env=False)
        assert (await direct.ask(Call("One", "why?"))).text == "Paris."
        await direct.aclose()
        through = open_pool(tmp_path, f"http://{address}/v1")
        reply = await through.ask(Call("One", "why?"))
        await through.aclose()
    assert reply.failure == "unavailable"
    assert reply.note is not None
    assert "the connection failed" in reply.note
    assert reply.cost_usd == 0


async def test_a_proxy_that_refuses_says_so_without_its_password(
    tmp_path: Path, no_proxies: pytest.MonkeyPatch
):
    no_proxies.setenv("ALL_PROXY", "http://me:proxy-secret@127.0.0.1:9")
    pool = open_pool(tmp_path, FAR)
    reply = await pool.ask(Call("One", "why?"))
    await pool.aclose()
    assert "proxy-secret" not in repr(reply)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.mark.usefixtures("no_proxies")
async def test_a_certificate_is_trusted_if_the_file_says_so_and_named_if_not(
    tmp_path: Path, certificate: Path
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with stub(context=context) as (address, _):
        trusting = open_pool(tmp_path, f"https://{address}/v1", verify=str(certificate))
        careful = open_pool(tmp_path, f"https://{address}/v1")
        replies = await asyncio.gather(
            trusting.ask(Call("One", "why?")), careful.ask(Call("One", "why?"))
        )
        await trusting.aclose()
        await careful.aclose()
    assert replies[0].text == "Paris."
    assert replies[1].note == (
        "One: the server's certificate is not trusted (self-signed certificate); "
        "set verify to the file of its CA"
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://{}/v1", "the server does not speak TLS at this address; does base_url begin with http://?"),
        ("http://127.0.0.1:9/v1", "the connection failed (Connection refused)"),
        ("http://models.example.invalid/v1", "the connection failed ("),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_proxies")
async def test_a_connection_that_fails_says_why(tmp_path: Path, url: str, why: str):
    with stub() as (address, _):
        pool = open_pool(tmp_path, url.format(address))
        reply = await pool.ask(Call("One", "why?"))
        await pool.aclose()
    assert reply.note is not None
    assert why in reply.note
    assert "ConnectError" not in reply.note
