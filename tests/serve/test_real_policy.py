"""A real checkpoint behind the gateway: batches are shared, and the server's loop stays free."""

import asyncio
import json
import shutil
import statistics
import time
from pathlib import Path

import httpx2
import pytest

from routerr1.baselines.replies import Always
from routerr1.config import Params
from routerr1.errors import CheckpointError, ConfigError
from routerr1.pool.budget import Budget, BudgetedPool, Grant, Limits
from routerr1.pool.cards import write_cards
from routerr1.pool.profile import profile, sample_probes, write_profile
from routerr1.serve.build import Choices, policy_engine, reply_route, router_engine
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.gateway import Gateway
from routerr1.serve.hearing import Heard
from routerr1.serve.store import Store
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import serving as simulated_serving
from routerr1.types import Question
from tests.serve.conftest import FRANCE, serving
from tests.serve.stub import WORDS, build_stub
from tests.servers import write_pool_file
from tests.vllm_server import build_server

BODY = {"model": "routerr1", "messages": [{"role": "user", "content": FRANCE}]}


@pytest.fixture
def folder(
    small_policy: Path, pool: SimulatedPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.chdir(tmp_path)
    write_cards(tmp_path / "data/pool/cards.json", list(pool.cards))
    shutil.copytree(small_policy, tmp_path / "models/policy")
    return tmp_path


def opened(params: Params) -> Engine:
    return policy_engine(Path("models/policy"), params, Choices(demo=True))


@pytest.mark.usefixtures("folder")
def test_simulated_candidates_are_refused_unless_it_is_a_demonstration(params: Params) -> None:
    with pytest.raises(ConfigError, match="the candidates are simulated"):
        policy_engine(Path("models/policy"), params, Choices())


@pytest.mark.parametrize(
    "name",
    ["knn", *(pytest.param(name, marks=pytest.mark.slow) for name in (
        "policy", "fixed/Atlas", "mlp", "frugal", "largest", "prompted", "policy_before_rl",
        "knn_multi_turn", "knn_spend_5", "ask_sure_first",
    ))],
)  # fmt: skip
async def test_an_evaluated_router_plays_questions_as_in_the_evaluation(
    params: Params, folder: Path, pool: SimulatedPool, rows: list[Question], name: str
) -> None:
    shutil.copytree(folder / "models/policy", folder / "models/warmstart/seed-1")
    probes = sample_probes([row for row in rows if row.split == "train"], 16, seed=1)
    write_profile(folder / "data/pool", await profile(probes, pool, store=None))
    engine = await asyncio.to_thread(router_engine, name, params, Choices(demo=True))
    try:
        played = await engine.play(
            Question("q1", "served", FRANCE, (), "test"), Heard("served/q1"), Grant()
        )
        asked = {turn.reply.model for turn in played.turns if turn.reply is not None}
        if name in ("knn", "mlp", "largest", "knn_spend_5"):
            assert asked <= {card.name for card in pool.cards}
        if name in ("knn", "mlp", "frugal", "largest"):
            assert asked
        assert engine.topics is not None
        assert engine.topics.place(FRANCE).result(60).topic
    finally:
        await engine.aclose()


async def test_a_router_beside_a_policy_chooses_among_the_candidates_of_a_key(
    params: Params, folder: Path, pool: SimulatedPool, rows: list[Question]
) -> None:
    shutil.copytree(folder / "models/policy", folder / "models/warmstart/seed-1")
    probes = sample_probes([row for row in rows if row.split == "train"], 16, seed=1)
    write_profile(folder / "data/pool", await profile(probes, pool, store=None))
    engine = await asyncio.to_thread(router_engine, "knn", params, Choices(demo=True, topics=False))
    question = Question("q1", "served", FRANCE, (), "test")
    try:
        await engine.play(question, heard := Heard("served/1"), Grant())
        (first,) = heard.replies
        rest = frozenset(card.name for card in pool.cards) - {first.model}
        await engine.play(question, heard := Heard("served/2", rest), Grant())
    finally:
        await engine.aclose()
    (second,) = heard.replies
    assert second.model in rest
    assert second.failure is None


@pytest.mark.slow
async def test_forty_at_once_share_batches_and_health_is_answered_meanwhile(
    params: Params, folder: Path
) -> None:
    engine = opened(params)
    gateway = Gateway(engine, params.serve, Store(f"sqlite:///{folder / 's.sqlite'}"))
    with serving(gateway) as (url, _):
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=120) as http:
            began = time.perf_counter()
            alone = await http.post("/v1/chat/completions", json=BODY)
            alone_s = time.perf_counter() - began
            began = time.perf_counter()
            asking = [
                asyncio.ensure_future(http.post("/v1/chat/completions", json=BODY))
                for _ in range(40)
            ]
            healthy: list[float] = []
            while not all(each.done() for each in asking):
                at = time.perf_counter()
                assert (await http.get("/healthz")).status_code == 200
                healthy.append(time.perf_counter() - at)
            found = [await each for each in asking]
            together_s = time.perf_counter() - began
    assert {each.status_code for each in found} == {alone.status_code}
    if alone.status_code == 200:
        assert {each.json()["choices"][0]["message"]["content"] for each in found} == {
            alone.json()["choices"][0]["message"]["content"]
        }
        about = alone.json()["routerr1"]
        assert about["version"] == engine.identity.digest[:12] != ""
        assert json.loads(alone.text)["usage"]["cost"] == about["cost"]
    assert together_s < 20 * alone_s + 5  # one after another it would take forty times as long
    assert statistics.median(healthy) < 0.25


async def test_a_router_without_a_policy_answers_with_the_reply_it_chooses(
    params: Params, pool: SimulatedPool, tmp_path: Path
) -> None:
    budget = Budget(tmp_path / "b.sqlite", Limits(), run="r")
    asked = BudgetedPool(pool, budget, max_reply_tokens=100)
    route = reply_route(Always("Penny"), "fixed/Penny", params)
    engine = Engine(Identity("routerr1", "1", "fixed/Penny", "simulated"), route, asked, budget)
    await engine.check()
    gateway = Gateway(engine, params.serve, Store(f"sqlite:///{tmp_path / 's.sqlite'}"))
    with serving(gateway) as (url, _):
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
            found = (await http.post("/v1/chat/completions", json=BODY)).json()
    assert found["choices"][0]["message"]["content"] == pool.say("Penny", FRANCE)
    assert [call["model"] for call in found["routerr1"]["calls"]] == ["Penny"]
    assert found["routerr1"]["router"] == "fixed/Penny"


async def test_calls_of_a_workspace_that_records_are_not_recorded(
    params: Params, pool: SimulatedPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cards(tmp_path / "data/pool/cards.json", list(pool.cards))
    calls = Path("data/calls/calls.jsonl")
    with simulated_serving(build_stub()) as address:
        file = write_pool_file(tmp_path / "pools/stub.yaml", address, default_candidates())
        asked = params.pool.replace(kind="http", file=file, calls="record", store=calls, redraw=0.0)
        recording = params.replace(pool=asked, model=params.model.replace(init="none"))
        choices = Choices(topics=False)
        engine = await asyncio.to_thread(router_engine, "fixed/Atlas", recording, choices)
        serve = params.serve.replace(keep="none")
        gateway = Gateway(engine, serve, Store(f"sqlite:///{tmp_path / 's.sqlite'}"))
        with serving(gateway) as (url, _):
            async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
                found = (await http.post("/v1/chat/completions", json=BODY)).json()
    assert found["choices"][0]["message"]["content"] == "".join(WORDS)
    assert not calls.exists()


@pytest.mark.slow
def test_a_vllm_server_generates_what_the_policy_itself_would(params: Params, folder: Path) -> None:
    app, served = build_server(folder / "models/policy", 1024)
    with simulated_serving(app) as url:
        local = opened(params)
        choices = Choices(demo=True, generator_url=url)
        remote = policy_engine(Path("models/policy"), params, choices)

        async def both() -> list[str]:
            question = Question("q", "served", FRANCE, (), "test")
            played = [
                await engine.play(question, Heard(f"s/{number}"), Grant())
                for number, engine in enumerate((local, remote))
            ]
            for engine in (local, remote):
                await engine.aclose()
            return [each.text for each in played]

        here, there = asyncio.run(both())
    assert here == there
    assert len(served.requests) >= 1


def test_a_vllm_server_that_does_not_answer_is_named(params: Params, folder: Path) -> None:
    assert folder == Path.cwd()
    with pytest.raises(CheckpointError, match="no vLLM server answers"):
        policy_engine(
            Path("models/policy"), params, Choices(demo=True, generator_url="http://127.0.0.1:9")
        )
