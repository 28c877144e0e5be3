"""`routerr1 bench` by hand: public files in, tables and predictions out."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI
from typer.testing import CliRunner

from routerr1.baselines.replay_study import ReplayStudy
from routerr1.cli.app import app
from routerr1.config import load_params
from routerr1.errors import ConfigError
from routerr1.notation import spend_of
from routerr1.pool.profile import Profile, write_profile
from routerr1.pool.profile import profile as profile_pool
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import serving
from routerr1.stages.bench import play_router
from routerr1.types import Question
from routerr1.workspace import Workspace
from tests.servers import write_pool_file

ROOT = Path(__file__).parents[2]


def _params(**changes: dict) -> None:
    """params.yaml of the repository with other values, in the working directory."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, section in changes.items():
        values[name] = values[name] | section
    Path("params.yaml").write_text(yaml.safe_dump(values | {"preset": "simulated"}))
    shutil.copytree(ROOT / "presets", "presets")


def _run(*words: str) -> str:
    done = CliRunner().invoke(app, ["bench", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_published_results_become_a_table_of_routers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _params(
        evaluate={"bootstrap": 100},
        baselines={"include": ["knn", "beta_8"], "embedder": "tfidf", "neighbours": 3},
    )
    for model in ("a", "b"):
        records = [
            {"index": place, "origin_query": f"{'red apple' if place % 2 else 'blue sea'} {place}",
             "prediction": "x", "score": float((place % 2 == 0) == (model == "a")), "cost": 0.5}
            for place in range(24)
        ]  # fmt: skip
        path = Path(f"results/bench/set/test/{model}/set-20250901_120000.json")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(
            {"dataset_name": "set", "split": "test", "model_name": model, "records": records}
        ))  # fmt: skip
    said = _run(
        "llmrouterbench", "results", "--out", "found", "--repetitions", "1", "--questions", "20"
    )
    assert "20 questions, " in said
    found = ReplayStudy.read(Path("found/llmrouterbench.json"))
    quality = {entry.router: entry.quality.mean for entry in found.routers}
    assert quality["oracle"] == 1.0
    assert quality["baseline/knn"] > quality["random"] == 0.5
    text = Path("found/llmrouterbench.md").read_text()
    assert "| kNN | " in text
    assert "Area under the Pareto front" in text


def test_a_log_without_costs_has_a_table_without_areas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _params(evaluate={"bootstrap": 100}, baselines={"include": ["best_8"], "embedder": "tfidf"})
    rows = [
        {"query_id": f"q{place}", "query": f"word {place}", "model": model, "score": score, "cost_usd": None}
        for place in range(8)
        for model, score in (("a", 1.0), ("b", 0.0))
    ]  # fmt: skip
    Path("some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = _run("log", "some.jsonl", "--out", "found", "--repetitions", "1")
    assert "8 questions, " in said
    found = ReplayStudy.read(Path("found/some.json"))
    assert found.pareto_area_singles is None
    assert {entry.router: entry.quality.mean for entry in found.routers}["baseline/best_8"] == 1.0
    assert "Area" not in Path("found/some.md").read_text()


@pytest.fixture
async def workspace(tmp_path, monkeypatch):
    """A workspace with profiled candidates, and two questions of RouterArena."""
    monkeypatch.chdir(tmp_path)
    _params(baselines={"embedder": "tfidf"})
    pool = SimulatedPool(default_candidates(), {}, seed=7)
    probes = [
        Question(f"p{place}", "embedded", f"{word} {place}?", ("x",), "train", metadata={"topic": word})
        for place, word in enumerate(["red", "blue"] * 4)
    ]  # fmt: skip
    found: Profile = await profile_pool(probes, pool, store=None)
    write_profile(Path("data/pool"), found)
    entries = [
        {"global index": f"A_{place}", "prompt_formatted": f"red {place}?"} for place in (1, 2)
    ]
    Path("router_data_10.json").write_text(json.dumps(entries))


class _Server:
    """Every candidate, as slow as needed to see how many calls there are at once."""

    def __init__(self) -> None:
        self.calls = self.under_way = self.most_at_once = 0
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.answer)

    async def answer(self) -> dict:
        self.calls += 1
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await asyncio.sleep(0.05)
        self.under_way -= 1
        choice = {"message": {"content": "red"}, "finish_reason": "stop"}
        return {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}


@pytest.mark.usefixtures("workspace")
def test_paid_calls_are_kept_until_the_predictions_are_written():
    server = _Server()
    with serving(server.app) as url:
        write_pool_file(Path("pools/mine.yaml"), url, default_candidates())
        values = yaml.safe_load(Path("params.yaml").read_text())
        values["pool"] |= {"kind": "http", "file": "pools/mine.yaml", "calls": "live"}
        values["evaluate"] |= {"concurrency": 1}
        Path("params.yaml").write_text(yaml.safe_dump(values | {"preset": "mine"}))
        Path("presets/mine.yaml").write_text("{}")
        Path("taken").write_text("")
        words = ["routerarena", "router_data_10.json", "--router", "Atlas"]
        broken = CliRunner().invoke(app, ["bench", *words, "--out", "taken"])
        assert broken.exception is not None
        assert (server.calls, server.most_at_once) == (2, 1)
        _run(*words)
    assert server.calls == 2
    assert len(_predictions("routerr1")) == 2
    assert list(Path("runs/calls").iterdir()) == []


@pytest.mark.usefixtures("workspace")
async def test_a_question_comes_with_the_spend_level_of_the_evaluation():
    params = load_params()
    workspace = Workspace(params.replace(evaluate=params.evaluate.replace(spend=3)))
    question = Question("A_1", "routerarena", "red 1?", (), "test")
    (played,) = await play_router(workspace, [question], "Atlas", Path("calls.jsonl"))
    assert spend_of(played.question) == 3


def _predictions(name: str) -> list[dict]:
    return json.loads(
        Path(f"data/routerarena/router_inference/predictions/{name}.json").read_text()
    )


@pytest.mark.usefixtures("workspace")
def test_a_router_writes_predictions_with_and_without_calls():
    said = _run(
        "routerarena", "router_data_10.json", "--router", "Atlas", "--rename", "Atlas=gpt-4o"
    )
    assert "2 predictions in data/routerarena/router_inference/predictions/routerr1.json" in said
    called = _predictions("routerr1")
    assert [each["prediction"] for each in called] == ["gpt-4o"] * 2
    assert all(each["generated_result"]["token_usage"]["output_tokens"] > 0 for each in called)
    config = json.loads(Path("data/routerarena/router_inference/config/routerr1.json").read_text())
    assert config["pipeline_params"]["router_name"] == "routerr1"
    assert "gpt-4o" in config["pipeline_params"]["models"]
    _run("routerarena", "router_data_10.json", "--router", "beta_8", "--name", "b", "--choose-only")
    assert all(each["generated_result"] is None for each in _predictions("b"))
    assert {each["prediction"] for each in _predictions("b")} <= set(
        json.loads(Path("data/routerarena/router_inference/config/b.json").read_text())[
            "pipeline_params"
        ]["models"]
    )


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--router", "policy", "--choose-only"], "a policy chooses by asking"),
        (["--router", "frugal", "--choose-only"], "a cascade chooses by reading replies"),
        (["--router", "Atlas", "--rename", "Ghost=x"], "--rename Ghost: no candidate"),
        (["--router", "Atlas", "--rename", "Atlas"], "--rename needs OURS=THEIRS"),
        (["--router", "nothing", "--choose-only"], "needs a policy, or does not exist"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words, why):
    with pytest.raises(ConfigError, match=why):
        CliRunner().invoke(app, ["bench", "routerarena", "router_data_10.json", *words], catch_exceptions=False)  # fmt: skip
