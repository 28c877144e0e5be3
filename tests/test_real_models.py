"""The stages as a user of real models runs them: a base model in a folder, candidates behind addresses.

Nothing is simulated on our side: transformers loads the base model, and every call goes through a socket to an
OpenAI-compatible server. Only what answers there is made up, and the base model's weights are random.
"""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from routerr1.baselines.build import SINGLE
from routerr1.config import BudgetParams, Params, load_params
from routerr1.errors import BudgetExceeded, ConfigError
from routerr1.evaluate.rows import read_rows
from routerr1.lineage import PATHS, fingerprint
from routerr1.pool.base import Call
from routerr1.report.sweep import STALE
from routerr1.simulation.candidates import default_candidates, drawn_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.stages import sweep as sweeping
from routerr1.stages.dataset import dataset
from routerr1.stages.evaluate import evaluate
from routerr1.stages.generalize import generalize
from routerr1.stages.profile import profile
from routerr1.stages.report import report
from routerr1.stages.sweep import sweep
from routerr1.stages.warmstart import warmstart
from routerr1.tracking.runs import new_run
from routerr1.train.checkpoint import save_policy
from routerr1.types import Reply
from routerr1.workspace import Workspace
from tests.servers import write_pool_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CANDIDATES, NEW = default_candidates()[:3], drawn_candidates(1007)[:2]
QUESTIONS = 3


def _base_model(folder: Path, texts: list[str]) -> None:
    """A Llama with grouped heads and random weights, as any folder that transformers saved."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from routerr1.policy.scratch import train_tokenizer

    tokenizer = train_tokenizer(texts, 700)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _params(folder: Path, stage, url: str) -> Params:
    """params.yaml with local data, a local model, and a pool file; the prompt is the paper's."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    single = [row for row in (*stage.train, *stage.validation, *stage.test) if row.hops == 1]
    splits = {"train": single[:40], "validation": single[40:44], "test": single[44:52]}
    for split, rows in splits.items():
        (folder / "sets" / "nq").mkdir(parents=True, exist_ok=True)
        lines = (
            {"id": row.id, "question": row.question, "golden_answers": list(row.golden_answers)}
            for row in rows
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "sets" / "nq" / f"{split}.jsonl").write_text(text)
    facts = known_facts(stage.world).values()
    passages = sorted({fact.statement.format(fact.answer) for fact in facts})
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"contents": passage}) + "\n" for passage in passages)
    )
    _base_model(folder / "base", [row.question for row in single] + passages)
    draws = {split: {"source": split, "rows": None} for split in splits}
    values["dataset"] |= {"source": "benchmarks", "near_duplicate": 0.95}
    values["dataset"]["benchmarks"] |= {"folder": "sets", "sets": {"nq": draws}}
    old = write_pool_file(folder / "pools/old.yaml", url, CANDIDATES)
    new = write_pool_file(folder / "pools/new.yaml", url, NEW)
    values["pool"] |= {
        "kind": "http",
        "file": str(old.relative_to(folder)),
        "calls": "record",
        "store": "calls.jsonl",
    }
    values["profile_pool"]["probes"] = 12
    values["prompt"]["template"] = "full"
    values["rollout"]["max_new_tokens"] = 12
    values["model"]["init"] = str(folder / "base")
    values["warmstart"]["steps"] = 0
    values["train"] |= {
        "questions_per_step": 2, "rollouts_per_question": 2, "validation_questions": 2,
        "checkpoint_every": 1,
    }  # fmt: skip
    values["evaluate"] |= {"max_questions": QUESTIONS, "bootstrap": 100}
    values["baselines"] |= {
        "corpus": "corpus.jsonl", "sft_steps": 2, "passages": 3, "embedder": "tfidf"
    }  # fmt: skip
    values["generalize"] |= {"file": str(new.relative_to(folder)), "max_questions": QUESTIONS}
    (folder / "presets").mkdir()
    (folder / "presets" / "embedded.yaml").write_text("{}")
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(folder / "params.yaml")


class Counting(SimulatedPool):
    """Counts what a provider would bill: every call that reached the server."""

    billed: Counter[tuple[str, str]]

    async def ask(self, call: Call) -> Reply:
        self.billed[call.candidate, call.query] += 1
        return await super().ask(call)


@pytest.fixture(scope="module")
def served(stage) -> Counting:
    pool = Counting((*CANDIDATES, *NEW), known_facts(stage.world), seed=7)
    pool.billed = Counter()
    return pool


@pytest.fixture(scope="module")
def ran(stage, served, mlflow_template, tmp_path_factory):
    """Every stage but training, in a folder of their own; the base model serves as the trained policy."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    with pytest.MonkeyPatch.context() as patch, serving(build_app(served, time_scale=0)) as url:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.chdir(folder)
        params = _params(folder, stage, url)
        dataset(params)
        profile(params)
        warmstart(params)
        save_policy(PATHS.warmstart / "seed-1", PATHS.policy, {"seed": 1})
        PATHS.other_policies.mkdir()
        with new_run(params.registry, PATHS.run, "test"):
            pass
        evaluate(params)
        generalize(params)
        report(params)
        yield folder, params


def test_every_row_of_the_table_is_played_with_real_models(ran):
    folder, params = ran
    rows = read_rows(folder / "data" / "eval" / "rows.parquet")
    counts = Counter(row.router for row in rows)
    controls = {"policy", "oracle", "random", "closed_book", "best_single", "best_of_singles"}
    forced = {f"fixed/{each.name}" for each in CANDIDATES}
    assert set(counts) == controls | forced | {
        f"baseline/{name}" for name in params.baselines.include
    }
    assert set(counts.values()) == {QUESTIONS}
    assert not any(row.failures for row in rows if row.router.startswith("baseline/"))


@pytest.mark.parametrize("name", ["largest", "knn", "mlp", "bert", "router_dc", "graph_router"])
def test_a_single_round_router_pays_for_one_whole_question(ran, name):
    rows = read_rows(ran[0] / "data" / "eval" / "rows.parquet")
    for row in (row for row in rows if row.router == f"baseline/{name}"):
        assert (row.calls, row.cost_usd > 0, row.completion_tokens > 0) == (1, True, True)
        assert f": {row.question}</search>" in row.trajectory


def test_retrieval_answers_from_the_corpus_file(ran):
    rows = read_rows(ran[0] / "data" / "eval" / "rows.parquet")
    found = [row for row in rows if row.router == "baseline/rag"]
    assert {name for row in found for name in row.called} == {"Retriever"}
    assert sum(row.cost_usd for row in found) == 0.0


def test_new_models_of_a_second_pool_file_are_played(ran):
    folder = ran[0]
    pools = json.loads((folder / "data" / "generalize" / "pools.json").read_text())
    entries = {entry["pool"]: entry for entry in pools["pools"]}
    assert entries["drawn"]["target"] == [each.name for each in NEW]
    played = {line["router"] for line in entries["drawn"]["table"]["routers"]}
    derived = {"oracle", "best_single"}  # no ground truth: derived from the fixed runs
    forced = {f"fixed/{each.name}" for each in NEW}
    assert played == {"policy", "closed_book", "random"} | derived | forced
    assert set(entries) | set(pools["not_made"]) >= {"added", "favourite_down", "all_renamed"}


def test_the_report_claims_no_simulation(ran):
    page = (ran[0] / "data" / "report" / "index.html").read_text()
    assert "simulated pool" not in page.lower()
    assert "baseline/graph_router" in page


def test_a_sweep_trains_each_weight_once_and_stands_in_the_report(ran, monkeypatch):
    folder, params = ran
    monkeypatch.chdir(folder)
    sweep(params, [0.9, 0.0], 1, restart=True)
    weights = sorted(folder.glob("models/sweep/seed-1/*/model.safetensors"))
    assert [path.parent.name for path in weights] == ["alpha=0", "alpha=0.9"]
    made = [path.stat().st_mtime_ns for path in weights]
    sweep(params, [0.0, 0.9], 1, restart=True)
    assert [path.stat().st_mtime_ns for path in weights] == made
    found = json.loads((folder / "data" / "sweep" / "sweep.json").read_text())
    assert found["swept"] == ["alpha=0", "alpha=0.9"]
    others = 3 + len(CANDIDATES) + len(params.baselines.include)  # random, no call, best single
    assert len(found["fronts"]["equal"]) == others
    report(params)
    page = (folder / "data" / "report" / "index.html").read_text()
    assert 'id="cost-weights"' in page
    assert STALE not in page


def test_no_single_round_router_is_above_the_best_candidate_asked_whole(ran):
    rows = read_rows(ran[0] / "data" / "eval" / "rows.parquet")
    best = {row.question_id: row.em for row in rows if row.router == "best_of_singles"}
    assert len(best) == QUESTIONS
    for row in rows:
        if row.router.removeprefix("baseline/") in SINGLE:
            assert row.em <= best[row.question_id]


def test_a_raised_budget_does_not_start_anything_anew_and_other_code_and_precision_do(ran):
    folder, params = ran
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rich = params.pool.model_copy(update={"budget": BudgetParams(run_usd=1.0)})
        other = params.pool.model_copy(update={"seed": 99})
        marks = [
            (
                Workspace(changed).fingerprint("evaluate"),
                fingerprint(changed, "pool", "profile_pool"),
                Workspace(changed).inputs("train", 1),
            )
            for changed in (params, *(params.model_copy(update={"pool": p}) for p in (rich, other)))
        ]
        coarse = params.model.model_copy(update={"dtype": "bfloat16"})
        computed = params.model_copy(update={"model": coarse})
        later = [Workspace(computed).fingerprint("evaluate")]
        (folder / "dvc.yaml").write_text("stages: {evaluate: {deps: [routerr1/types.py]}}")
        later.append(Workspace(params).fingerprint("evaluate"))
    assert marks[0][0] not in later
    assert marks[0] == marks[1]
    assert all(one != two for one, two in zip(marks[0], marks[2], strict=True))


def test_searching_baselines_need_a_corpus(ran):
    _, params = ran
    without = params.model_copy(
        update={"baselines": params.baselines.model_copy(update={"corpus": None})}
    )
    with pytest.raises(ConfigError, match=r"baselines\.corpus: rag and search_r1 need passages"):
        evaluate(without)


def test_the_same_evaluation_plays_from_its_recording_alone(ran, monkeypatch):
    """A pool file whose server is gone, and the store that the first evaluation wrote."""
    folder, params = ran
    monkeypatch.chdir(folder)
    path = folder / "data" / "eval" / "rows.parquet"
    before = read_rows(path)
    gone = write_pool_file(folder / "pools/gone.yaml", "http://127.0.0.1:9", CANDIDATES)
    pool = params.pool.model_copy(update={"calls": "replay", "file": gone})
    evaluate(params.model_copy(update={"pool": pool}))
    assert read_rows(path) == before


def _live(params: Params, **changed) -> Params:
    """Nothing is recorded for good."""
    pool = params.pool.model_copy(update={"calls": "live", "store": None, **changed})
    return params.model_copy(update={"pool": pool})


def _untimed(path: Path) -> list[tuple]:
    """Rows without what a network's moods decide."""
    return [
        (row.pool, row.router, row.question_id, row.answer, row.called, row.cost_usd, row.em)
        for row in read_rows(path)
    ]


# A call to Goliath could cost 600 reply tokens at 3 USD a million and its prompt: never within 0.0018 USD.
@pytest.mark.parametrize(("name", "run_usd"), [("evaluate", 0.0018), ("generalize", 0.003)])
def test_live_calls_that_were_paid_before_a_stop_are_not_paid_again(
    ran, served, monkeypatch, name, run_usd
):
    folder, params = ran
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ROUTERR1_RUN", name)
    rows = folder / "data" / {"evaluate": "eval"}.get(name, name) / "rows.parquet"
    before = _untimed(rows)
    stage = {"evaluate": evaluate, "generalize": generalize}[name]
    # New models' probes are kept by the profiling that came before, so all calls here are the stage's own.
    served.billed.clear()
    with pytest.raises(BudgetExceeded):
        stage(_live(params, budget=BudgetParams(run_usd=run_usd)))
    paid = served.billed.total()
    assert paid > 0
    stage(_live(params))
    assert served.billed.total() > paid
    assert set(served.billed.values()) == {1}
    assert _untimed(rows) == before
    assert not list(Path("runs").glob(f"calls/{name}-*"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves its log files open
def test_on_ray_all_players_ask_one_pool_and_none_asks_again(ran, served, monkeypatch):
    pytest.importorskip("ray", reason="needs ray (pip install -e '.[ray]')")
    folder, params = ran
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    rows = folder / "data" / "eval" / "rows.parquet"
    before = _untimed(rows)
    served.billed.clear()
    section = params.evaluate.model_copy(update={"executor": "ray", "shards": 2})
    evaluate(_live(params).model_copy(update={"evaluate": section}))
    assert set(served.billed.values()) == {1}
    assert _untimed(rows) == before
    assert not list(Path("runs").glob("calls/*"))


def test_a_sweep_that_was_broken_off_keeps_its_rows_and_pays_nothing_again(
    ran, served, monkeypatch
):
    folder, params = ran
    monkeypatch.chdir(folder)

    def stop(*_) -> None:
        raise KeyboardInterrupt

    sweep(_live(params), [0.0], 1, restart=True)  # trains the policy
    served.billed.clear()
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "write_swept", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(_live(params), [0.0], 1, restart=True)
    (rows,) = Path("runs").glob("sweep/*rows*")
    assert len(rows.read_text().splitlines()) == 1 + QUESTIONS
    paid = served.billed.copy()
    assert set(paid.values()) <= {1}
    sweep(_live(params), [0.0], 1, restart=True)
    assert served.billed == paid
    assert not rows.exists()
