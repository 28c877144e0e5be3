"""Limits hold against a server that does not play fair: bytes, headers, time, redirects, streams, memory."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psutil
import pytest

from routerr1.pool.base import Call
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import CandidateRow, Endpoint, PoolFile, Prices
from routerr1.types import Reply
from tests.pool.unfair import unfair

TOTAL_S = 2.0
# 64 bodies of at most 1 MB, each held once more while its parts are joined, and one at a time parsed.
MOST_BYTES = 64 * 2e6 + 40e6


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with unfair() as url:
        yield url


def pool_of(*urls: str, **options: object) -> HttpPool:
    """One candidate, named One, Two and so on, for each address."""
    endpoint = {"max_tries": 1, "total_s": TOTAL_S, "max_concurrency": 64, "breaker_failures": 1000}
    endpoints = {
        url: Endpoint.model_validate({"base_url": url, **endpoint, **options}) for url in urls
    }
    rows = tuple(
        CandidateRow(
            name=url.rpartition("/")[2],
            endpoint=url,
            model="m",
            prompt_usd_per_mtok=1.0,
            completion_usd_per_mtok=2.0,
            context_window=4096,
        )
        for url in urls
    )
    prices = Prices(as_of=date(2026, 11, 1), source="made up")
    file = PoolFile(Path("pools/x.yaml"), prices, endpoints, rows, 600)
    return HttpPool(file, dict.fromkeys(endpoints, "sk-MARKED-0123456789"), max_concurrency=64)


async def asked(url: str, **options: object) -> tuple[Reply, float]:
    pool = pool_of(url, **options)
    started = time.perf_counter()
    reply = await pool.ask(Call(url.rpartition("/")[2], "What is the capital of France?"))
    took = time.perf_counter() - started
    await pool.aclose()
    return reply, took


@pytest.mark.parametrize("kind", ["fair", "gzip", "parts", "deflate", "away"])
async def test_what_is_odd_but_fair_is_read(server: str, kind: str):
    reply, _ = await asked(f"{server}/{kind}")
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("Paris.", 12, 2)
    assert reply.note is None


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("bomb", "the reply is too large"),
        ("huge", "the reply is too large"),
        ("br", "the reply is compressed as 'br', which was not asked for"),
        ("damaged", "the reply is compressed and damaged"),
        ("headers", "the connection failed"),
        ("informed", f"no whole reply within {TOTAL_S:g} s"),
        ("drip", f"no whole reply within {TOTAL_S:g} s"),
        ("circle", "status 307, a redirect to "),
        ("found", "status 302, a redirect to "),
        ("stream", "the reply is too large"),
        ("comments", f"no whole reply within {TOTAL_S:g} s"),
        ("nested", "the body is no chat completion"),
        ("many", "the reply is empty"),
    ],
)
async def test_what_is_not_fair_ends_soon_and_says_why(server: str, kind: str, why: str):
    reply, took = await asked(f"{server}/{kind}")
    assert reply.failure == "unavailable"
    assert reply.note is not None
    assert why in reply.note
    assert took < 30  # the body alone takes two minutes, or for ever


async def test_a_key_does_not_follow_a_redirect_to_another_server(server: str):
    reply, _ = await asked(f"{server}/elsewhere")
    port = server.rpartition(":")[2]
    assert reply.note == (
        f"elsewhere: status 307, a redirect to http://localhost:{port}/moved/chat/completions; "
        "set base_url to its beginning"
    )


class Peak:
    """The most memory that this process holds while the block runs, in bytes."""

    def __enter__(self) -> "Peak":
        self._process = psutil.Process()
        self.most = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


@pytest.mark.slow
async def test_sixty_four_unfair_calls_at_once_take_little_memory(server: str):
    kinds = ("bomb", "huge", "headers", "stream", "drip", "nested", "many", "circle")
    pool = pool_of(*(f"{server}/{kind}" for kind in kinds))
    await asyncio.gather(*(pool.ask(Call(kind, "warm up")) for kind in kinds))
    idle = psutil.Process().memory_info().rss
    with Peak() as peak:
        replies = await asyncio.gather(
            *(pool.ask(Call(kind, f"{kind} {number}")) for number in range(8) for kind in kinds)
        )
    await pool.aclose()
    assert {reply.failure for reply in replies} == {"unavailable"}
    assert peak.most - idle < MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bomb", "huge", "stream", "many"])
async def test_sixty_four_calls_of_the_worst_kind_take_little_memory(server: str, kind: str):
    pool = pool_of(f"{server}/{kind}")
    await pool.ask(Call(kind, "warm up"))
    idle = psutil.Process().memory_info().rss
    with Peak() as peak:
        await asyncio.gather(*(pool.ask(Call(kind, str(number))) for number in range(64)))
    await pool.aclose()
    assert peak.most - idle < MOST_BYTES
