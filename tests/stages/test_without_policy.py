"""The chain with `model.init: none`: every learned router, and no policy in its way."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from routerr1.cli.ask import ask_router, evaluated_router
from routerr1.config import Params, load_params
from routerr1.errors import ConfigError
from routerr1.evaluate.results import EvaluationTable
from routerr1.evaluate.rows import read_rows
from routerr1.registry import gate
from routerr1.registry.contents import Outputs, evidence_of, router_to_register
from routerr1.registry.samples import sampling_of
from routerr1.stages.checks import checks
from routerr1.stages.dataset import dataset
from routerr1.stages.evaluate import evaluate
from routerr1.stages.generalize import generalize
from routerr1.stages.profile import profile
from routerr1.stages.report import report
from routerr1.stages.train import train
from routerr1.stages.warmstart import warmstart

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # the whole chain runs
LEARNING = ("knn", "mlp", "frugal", "largest", "thompson_8", "beta_40", "knn_spend_5")
STAGES = (dataset, checks, profile, warmstart, train, evaluate, generalize, report)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """A workspace in which the whole chain ran."""
    made = tmp_path_factory.mktemp("without-policy")
    small = yaml.safe_load((ROOT / "presets/ci.yaml").read_text())
    small["model"] = {"init": "none"}
    small["baselines"] |= {"include": ["direct", "prompted_8", *LEARNING]}
    small["gate"] |= {"min_unseen_em": 0.9}
    (made / "presets").mkdir()
    (made / "presets/own.yaml").write_text(yaml.safe_dump(small))
    text = (ROOT / "params.yaml").read_text().replace("preset: embedded", "preset: own", 1)
    (made / "params.yaml").write_text(text)
    (made / "data").mkdir()
    shutil.copy(ROOT / "data/accepted.json", made / "data/accepted.json")
    shutil.copy(mlflow_template, made / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.chdir(made)
        for stage in STAGES:
            stage(load_params())
    return made


@pytest.fixture
def params(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(folder)
    return load_params()


@pytest.mark.usefixtures("params")
def test_only_routers_that_need_no_policy_have_rows():
    routers = {row.router for row in read_rows(Path("data/eval/rows.parquet"))}
    learned = {f"baseline/{name}" for name in LEARNING}
    controls = {"best_single", "oracle", "random"}
    assert {name for name in routers if not name.startswith("fixed/")} == learned | controls
    rows = read_rows(Path("data/eval/rows.parquet"))
    assert all(row.format_valid and row.calls == len(row.called) for row in rows)
    table = EvaluationTable.read(Path("data/eval/table.json"))
    learning = {entry.router: entry.learning for entry in table.routers}
    eight, forty = learning["baseline/thompson_8"], learning["baseline/beta_40"]
    assert eight is not None
    assert forty is not None
    # The preset has 24 probes, each put to six candidates.
    assert (eight.calls, forty.calls) == (8 * 6, 24 * 6)
    assert 0 < eight.cost_usd < forty.cost_usd


@pytest.mark.usefixtures("params")
def test_a_single_fact_is_answered_by_whoever_knows_it():
    rows = [
        row
        for row in read_rows(Path("data/eval/rows.parquet"))
        if row.router == "oracle" and row.hops == 1
    ]
    assert sum(row.em for row in rows) > 0.7 * len(rows)


@pytest.mark.usefixtures("params")
def test_the_report_names_the_router_and_says_what_is_right():
    page = Path("data/report/report.md").read_text()
    assert "No policy was trained." in page
    assert "Policy tokens" not in page
    assert "Valid format" not in page
    assert "The policy" not in page
    assert json.loads(Path("data/generalize/metrics.json").read_text()) == {}


def test_ask_takes_the_router_that_the_evaluation_prefers(params: Params):
    preferred = EvaluationTable.read(Path("data/eval/table.json")).reference
    assert evaluated_router() == preferred
    played = ask_router("What is the capital of France?", "knn", params)
    assert played.ledger.calls == 1
    assert played.answer
    with pytest.raises(ConfigError, match="router 'cot': needs a policy"):
        ask_router("What is the capital of France?", "cot", params)


def test_every_evaluated_router_can_be_judged(params: Params):
    outputs = Outputs()
    table = EvaluationTable.read(outputs.table)
    assert router_to_register(params, outputs, None) == table.reference
    for asked in ("knn", "frugal", "beta_40", "best_single", "Goliath"):
        router = router_to_register(params, outputs, asked)
        evidence = evidence_of(params, outputs, router)
        metrics = gate.measure(evidence, sampling_of(params.evaluate))
        assert metrics.em == pytest.approx(table.router(router).em.mean)
        rules = {rule.name for rule in gate.decide(metrics, None, params.gate).rules}
        spread = set() if asked in ("best_single", "Goliath") else {"top_model", "call_entropy"}
        assert rules == {"em_floor", "no_call"} | spread
    with pytest.raises(ConfigError, match=r"model\.init is none"):
        router_to_register(params, outputs, "policy")


def test_a_policy_and_a_reply_are_not_compared(params: Params):
    evidence = evidence_of(params, Outputs(), "baseline/knn")
    policy = evidence._replace(router="policy", whole_replies=False)
    sampling = sampling_of(params.evaluate)
    assert gate.compare(evidence, policy, sampling).em is None
    assert gate.compare(evidence, evidence, sampling).em is not None
