"""A new champion takes over while requests are under way."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx2
import pytest

from routerr1.config import CanaryParams, Params, ServeParams, ShadowParams
from routerr1.errors import ConfigError, LockHeld, NoSuchVersion, RegistryError, StoreUnreachable
from routerr1.files import write_json
from routerr1.pool.base import Call, Pool
from routerr1.pool.budget import Budget, Limits
from routerr1.prompt import renderer
from routerr1.registry import promotion, versions
from routerr1.registry.announce import HEADER, SECRET, announce, is_signed, signature
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.serve.beside import CanarySeat, ShadowSeat, fill
from routerr1.serve.build import Choices, policy_route, version_engine
from routerr1.serve.canary import RETURNED
from routerr1.serve.champion import Named, Seat, Watch, find_version
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.gateway import Gateway
from routerr1.serve.server import Server, listen
from routerr1.serve.store import Store
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import open_client
from routerr1.types import Reply
from tests.chain import commit_nothing, put_policy
from tests.serve.conftest import FRANCE, Start, calls_atlas
from tests.serve.test_metrics import page
from tests.serve.test_openai_client import ASK, asynchronous, until


class Gated(Pool):
    """A pool whose calls wait until they may end."""

    def __init__(self, inner: Pool, text: str) -> None:
        self.cards = inner.cards
        self.may_end = threading.Event()
        self.asked = 0
        self.closed = False
        self._text = text

    async def ask(self, call: Call) -> Reply:
        self.asked += 1
        while not self.may_end.is_set():
            await asyncio.sleep(0.01)
        return Reply(call.candidate, self._text, 1, 1, 1e-6)

    async def aclose(self) -> None:
        self.closed = True


async def test_requests_under_way_end_with_the_version_that_took_them(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    old, new = Gated(pool, "by the old"), Gated(pool, "by the new")
    new.may_end.set()
    running = start(asked=old)
    route = policy_route(ScriptedGenerator(calls_atlas), renderer("compact", 4), params)
    budget = Budget(tmp_path / "new.sqlite", Limits(), run="new")
    engine = Engine(Identity("routerr1", "8", "policy", "simulated"), route, new, budget)
    async with asynchronous(running) as client:
        waiting = [asyncio.ensure_future(client.chat.completions.create(**ASK)) for _ in range(20)]
        await until(lambda: old.asked == 20)
        before = running.gateway.engine
        running.server.call(partial(running.gateway.take_over, engine))
        await until(lambda: running.gateway.engine is engine)
        fresh = await client.chat.completions.create(**ASK)
        assert (fresh.choices[0].message.content, fresh.system_fingerprint) == (
            "by the new", "routerr1@8",
        )  # fmt: skip
        assert not old.closed
        old.may_end.set()
        found = [await each for each in waiting]
    assert {(each.choices[0].message.content, each.system_fingerprint) for each in found} == {
        ("by the old", "routerr1@7")
    }
    await until(lambda: old.closed)
    assert before.under_way == 0


async def test_an_end_is_seen_by_load_balancers_while_a_request_is_under_way(
    start: Start, pool: SimulatedPool
) -> None:
    slow = Gated(pool, "late")
    running = start(asked=slow, drain_s=8)
    async with asynchronous(running) as openai_client:
        waiting = asyncio.ensure_future(openai_client.chat.completions.create(**ASK))
        await until(lambda: slow.asked == 1)
        running.server.call(lambda: running.server.handle_exit(signal.SIGTERM, None))
        await until(lambda: running.server.should_exit)
        await asyncio.sleep(0.5)  # uvicorn looks every 0.1 s
        async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as http:
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            refused = await http.post("/v1/chat/completions", json=ASK)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert refused.headers["x-should-retry"] == "true"
        slow.may_end.set()
        assert (await waiting).choices[0].message.content == "late"
    await until(lambda: slow.closed)


def test_a_message_is_believed_only_if_it_is_signed_and_fresh() -> None:
    body, now = b'{"version": 3}', 1_000_000
    good = signature("s3cret", body, now)
    assert is_signed("s3cret", body, good, now + 200)
    assert not is_signed("s3cret", body, good, now + 400)
    assert not is_signed("s3cret", body + b" ", good, now)
    assert not is_signed("other", body, good, now)
    for forged in ("", "t=1", f"t={now},v1=", f"t={now},v1=é", f"t={'9' * 400},v1=x", good[:-1]):
        assert not is_signed("s3cret", body, forged, now)


def test_an_unsigned_message_changes_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start()
    monkeypatch.setenv(SECRET, "s3cret")
    for header in ("", "t=1,v1=00", signature("other", b"{}", int(time.time()))):
        found = httpx2.post(
            f"{running.url}/hooks/champion", content=b"{}", headers={HEADER: header}
        )
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_signature")


class Seated:
    """A seat that holds a version until the watch takes it away."""

    version: str | None = "2"

    def refusal(self, _: versions.Version) -> str | None:
        return None

    def take(self, engine: Engine) -> None:
        raise AssertionError(engine)

    def leave(self) -> None:
        self.version = None


async def test_only_an_alias_that_names_no_version_empties_a_seat(start: Start) -> None:
    gateway, seat, found, gone = start().gateway, Seated(), 0, False
    passing: list[Exception] = [
        LockHeld("held by another gateway"),
        RegistryError("the file is locked"),
        StoreUnreachable("no answer"),
        ValueError("a bug of a library"),
    ]

    def find(_: Named) -> versions.Version:
        nonlocal found
        found += 1
        raise NoSuchVersion("no such alias") if gone else passing[found % len(passing)]

    def build(_: versions.Version) -> Engine:
        raise AssertionError

    named = Named("routerr1", "challenger", moves=True)
    watch = Watch(gateway, named, build, every_s=0.01, seat=seat, find=find)
    running = asyncio.ensure_future(watch.run())
    try:
        await until(lambda: found > len(passing))
        assert (seat.version, running.done()) == ("2", False)
        gone = True
        await until(lambda: seat.version is None)
    finally:
        running.cancel()


class Moving:
    """An alias that a test moves, and versions whose loading it may hold up.

    Attributes:
        loading: numbers of the versions whose loading has begun, in order.
        hold: versions that load only once they may.
    """

    def __init__(self, params: Params, pool: Pool, folder: Path) -> None:
        self.number = 7
        self.loading: list[int] = []
        self.hold: dict[int, threading.Event] = {}
        self._params, self._pool, self._folder = params, pool, folder

    def find(self, named: Named) -> versions.Version:
        return versions.Version(named.name, self.number, ("champion",), None, "m")

    def build(self, version: versions.Version) -> Engine:
        self.loading.append(version.number)
        if (may := self.hold.get(version.number)) is not None:
            assert may.wait(30)
        route = policy_route(ScriptedGenerator(calls_atlas), renderer("compact", 4), self._params)
        identity = Identity("routerr1", str(version.number), "policy", "simulated")
        budget = Budget(self._folder / f"{version.number}.sqlite", Limits(), run="r")
        return Engine(identity, route, self._pool, budget)


@pytest.mark.parametrize(("then", "loaded"), [(9, [8, 9]), (7, [8])])
async def test_of_two_moves_in_quick_succession_the_last_one_counts(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path, then: int, loaded: list[int]
) -> None:
    running = start()
    alias = Moving(params, pool, tmp_path)
    may = alias.hold[8] = threading.Event()
    watch = Watch(
        running.gateway, Named("routerr1", "champion", moves=True), alias.build, every_s=60, find=alias.find
    )  # fmt: skip
    await until(lambda: running.gateway.loop is not None)
    assert running.gateway.loop is not None
    watching = asyncio.run_coroutine_threadsafe(watch.run(), running.gateway.loop)
    try:
        alias.number = 8
        running.server.call(watch.look_now)
        await until(lambda: alias.loading == [8])
        alias.number = then  # while version 8 loads
        running.server.call(watch.look_now)
        may.set()
        await until(lambda: alias.loading == loaded)
        await until(lambda: running.gateway.engine.identity.version == str(then))
        async with asynchronous(running) as client:
            found = await client.chat.completions.create(**ASK)
        assert found.system_fingerprint == f"routerr1@{then}"
        assert 'routerr1_serving{version="routerr1@8"}' not in page(running.url)  # not for a moment
    finally:
        watching.cancel()


async def test_a_clock_that_jumps_neither_stops_the_watch_nor_tries_a_failing_version_again(
    start: Start,
    pool: SimulatedPool,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = start().gateway
    alias = Moving(params, pool, tmp_path)
    alias.number = 8
    looks, real = 0, time.time

    def jumping() -> float:  # a day ahead, then a day back, and so on
        return real() + (86_400 if looks % 2 else -86_400)

    def find(named: Named) -> versions.Version:
        nonlocal looks
        looks += 1
        return alias.find(named)

    def broken(version: versions.Version) -> Engine:
        alias.loading.append(version.number)
        raise RegistryError("its files were changed")

    monkeypatch.setattr(time, "time", jumping)
    named = Named("routerr1", "champion", moves=True)
    watch = Watch(gateway, named, broken, every_s=0.01, find=find)
    running = asyncio.ensure_future(watch.run())
    try:
        await until(lambda: looks > 20)
        assert alias.loading == [8]
        assert watch.refused is not None
        assert gateway.engine.identity.version == "7"
    finally:
        running.cancel()


def test_a_registry_that_answers_names_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite://")
    with pytest.raises(RegistryError, match="names no file") as unusable:
        find_version(Named("routerr1", "challenger", moves=True))
    assert not isinstance(unusable.value, NoSuchVersion)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(NoSuchVersion, match="there are: none"):
        find_version(Named("routerr1", "challenger", moves=True))


class Registry:
    """Versions of a small policy, and a gateway that watches the champion."""

    def __init__(self, chain: Params, policy: Path) -> None:
        self.params = chain
        put_policy(policy, price=0.1)

    def register(self) -> int:
        commit_nothing()
        return versions.register(self.params).number

    def promote(self, number: int) -> None:
        assert promotion.promote(self.params, number, why="test").record is not None


@pytest.mark.slow
def test_champions_come_go_and_are_put_back_without_a_lost_request(
    chain: Params, small_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(chain, small_policy)
    first = registry.register()
    registry.promote(first)
    second = registry.register()
    third = registry.register()
    client, name = open_client(), chain.registry.model
    champion = Named(name, "champion", moves=True)
    with pytest.raises(ConfigError, match="the candidates are simulated"):
        version_engine(find_version(champion), Choices())
    build: Callable[..., Engine] = partial(version_engine, choices=Choices(demo=True))
    gateway = Gateway(
        build(find_version(champion)), ServeParams(drain_s=1), Store("sqlite:///s.sqlite")
    )
    watch = Watch(gateway, champion, build, every_s=60)
    monkeypatch.setenv(SECRET, "s3cret")

    listening = listen("127.0.0.1", 0)
    server = Server(gateway, [watch])
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    told = chain.replace(promote=chain.promote.replace(gateways=(url,)))
    asking = Asking(url)
    try:
        assert ready(url)["version"] == str(first)
        assert promotion.promote(told, second, why="test").record is not None
        wait(lambda: ready(url)["version"] == str(second))
        client.set_registered_model_alias(name, "champion", str(third))  # as MLflow's button does
        announce([url], name, third)
        wait(lambda: promotion.is_on_record(client, name))
        assert versions.get_version(client, name, "champion").number == second
        broken = versions.get_version(client, name, third)
        damage(client.get_logged_model(broken.model_id).artifact_location)
        client.set_registered_model_alias(name, "candidate", str(third))
        watch._named = Named(name, "candidate", moves=True)
        announce([url], name, third)
        wait(lambda: ready(url)["refused"] is not None)
        assert ready(url)["refused"].startswith(f"version {third}: ")
        assert ready(url)["version"] == str(second)
        watch._named = champion
        promotion.rollback(told, why="test")
        wait(lambda: ready(url)["version"] == str(first))
    finally:
        found = asking.end()
        server.should_exit = True
        thread.join(30)
        listening.close()
    assert not thread.is_alive()
    assert {status for status, _ in found} <= {200, 502}  # a policy of few steps may not answer
    assert {version for _, version in found} == {str(first), str(second)}


@pytest.mark.slow
def test_shadow_and_canary_follow_their_alias(chain: Params, small_policy: Path) -> None:
    registry = Registry(chain, small_policy)
    registry.promote(registry.register())
    name = chain.registry.model
    build: Callable[..., Engine] = partial(version_engine, choices=Choices(demo=True))
    champion = Named(name, "champion", moves=True)
    gateway = Gateway(
        build(find_version(champion)), ServeParams(drain_s=1), Store("sqlite:///s.sqlite")
    )
    challenger = Named(name, "challenger", moves=True)
    shadow = ShadowSeat(gateway, ShadowParams(version="challenger", share=1.0, budget_usd=1.0))
    canary = CanarySeat(gateway, CanaryParams(version="challenger", share=0.5))
    seats: list[Seat] = [shadow, canary]
    for seat in seats:
        fill(seat, challenger, build)  # the champion was the only version: nothing to seat yet
        assert seat.version is None
    with pytest.raises(RegistryError, match="has no version 9"):
        fill(shadow, Named(name, "9", moves=False), build)
    watches = [Watch(gateway, champion, build, every_s=60)] + [
        Watch(gateway, challenger, build, every_s=60, seat=seat) for seat in seats
    ]
    listening = listen("127.0.0.1", 0)
    server = Server(gateway, watches)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()

    def look() -> None:
        for watch in watches:
            server.call(watch.look_now)

    try:
        wait(lambda: gateway.loop is not None)
        second = str(registry.register())
        look()
        wait(lambda: (shadow.version, canary.version) == (second, second))
        assert [engine.identity.version for engine in gateway.beside] == [second] * 2
        third = str(registry.register())
        write_json(RETURNED / f"{name}@{third}.json", {"why": "it was slow"})
        look()
        wait(lambda: (shadow.version, canary.version) == (third, None))
        registry.promote(int(third))  # which takes the alias off
        look()
        wait(lambda: (gateway.engine.identity.version, shadow.version) == (third, None))
        wait(lambda: not gateway.beside)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
    assert not thread.is_alive()


class Asking:
    """Asks all the time, from another thread."""

    def __init__(self, url: str) -> None:
        self._found: list[tuple[int, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url,))
        self._thread.start()

    def _run(self, url: str) -> None:
        with httpx2.Client(base_url=url, trust_env=False, timeout=60) as http:
            while not self._stop.is_set():
                body = {"model": "routerr1", "messages": [{"role": "user", "content": FRANCE}]}
                reply = http.post("/v1/chat/completions", json=body)
                self._found.append((reply.status_code, reply.headers.get("x-routerr1-version", "")))

    def end(self) -> list[tuple[int, str]]:
        self._stop.set()
        self._thread.join(60)
        return self._found


def ready(url: str) -> dict[str, object]:
    return dict(httpx2.get(f"{url}/readyz", timeout=60).json())


def wait(holds: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx2.HTTPError):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def damage(location: str) -> None:
    weights = Path(location.removeprefix("file://")) / "artifacts/policy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
