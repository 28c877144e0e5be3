"""What the warm start taught and what reinforcement learning added, on figures that are worked out by hand."""

from pathlib import Path
from typing import Any

from routerr1.config import EvaluateParams
from routerr1.evaluate.results import (
    Comparison,
    Estimate,
    Flips,
    Generalization,
    PoolResult,
    RouterTable,
)
from routerr1.evaluate.table import summarise
from routerr1.files import write_json
from routerr1.report import markdown
from routerr1.report.sections import Section
from routerr1.report.training_gain import SeedTraining, read_training, training_section
from tests.evaluate.made import played

PARAMS = EvaluateParams(
    split="test", max_questions=None, temperature=0, bootstrap=200, confidence=0.95, seed=1,
    concurrency=1, executor="local", shards=1,
)  # fmt: skip
RIGHT: dict[str, list[list[float]]] = {
    "policy": [[1, 1, 1, 0]],
    "random": [[1, 0, 0, 0]],
    "baseline/knn": [[1, 1, 0, 0]],
    "baseline/policy_before_rl": [[0, 1, 0, 0]],
}
JUDGED: dict[str, Any] = {"best_calls": 1, "judged_calls": 1}
TRAINED: dict[str, Any] = {
    "seed_2": {
        "best_step": 40, "steps": 60,
        "start/em": 0.25, "start/best_model_share": 0.125, "start/calls": 1.5, "start/format_valid": 0.75,
        "start/cost_usd": 2e-5, "start/reward": -0.1,
        "validation/em": 0.5, "validation/best_model_share": 0.875, "validation/calls": 2.0,
        "validation/format_valid": 1.0, "validation/cost_usd": 1e-5, "validation/reward": 0.4,
    },
    "train_cost_usd": 0.01,
}  # fmt: skip


def table(routers: dict[str, list[list[float]]], **given: Any) -> RouterTable:
    rows = [row for name, right in routers.items() for row in played(name, right, **given)]
    return summarise(rows, PARAMS)


def pools(here: RouterTable, found: RouterTable, name: str = "redrawn") -> Generalization:
    policy = here.router("policy")
    same = Comparison(mean=0, low=0, high=0, p=1, mde=None)
    none = Estimate(mean=0, low=0, high=0)
    pool = PoolResult(
        pool=name, policy=policy, difference={"em": same}, target=(), target_share=None,
        target_share_before=None, table=found,
        flipped=Flips(answer=none, right_to_wrong=none, wrong_to_right=none),
    )  # fmt: skip
    return Generalization(
        confidence=0.95, n=2, groups=2, training=policy, pools=(pool,), not_made={}
    )


def text_of(section: Section | None) -> str:
    assert section is not None
    return markdown.render([section])


def trained(tmp_path: Path, values: dict[str, Any]) -> dict[int, SeedTraining]:
    write_json(tmp_path / "results.json", values)
    return read_training(tmp_path / "results.json")


def test_validation_holds_the_start_beside_the_chosen_step_of_each_seed(tmp_path: Path) -> None:
    text = text_of(training_section(trained(tmp_path, TRAINED), table({"policy": [[1, 0]]}), None))
    assert "| 2 | before | 0.250 | 12 | 1.50 | 75 | 0.0200 |" in text
    assert "| 2 | step 40 | 0.500 | 88 | 2.00 | 100 | 0.0100 |" in text
    assert "Training pool" not in text  # the policy before was not evaluated there


def test_real_models_have_no_best_one_in_validation(tmp_path: Path) -> None:
    known = {name: v for name, v in TRAINED["seed_2"].items() if "best_model" not in name}
    training = trained(tmp_path, {"seed_2": known})
    text = text_of(training_section(training, table({"policy": [[1, 0]]}), None))
    assert "| 2 | before | 0.250 | – |" in text


def test_the_policy_before_is_shown_with_what_training_added() -> None:
    section = training_section({}, table(RIGHT, **JUDGED), None)
    text = text_of(section)
    assert "Validation" not in text
    # Learned routers say nothing of what training taught the policy.
    assert "kNN" not in text
    assert "| Policy before RL | 0.250 [" in text
    assert "| 100 | +0.500 [" in text


def test_redrawn_pools_have_the_policy_before_and_other_pools_tell_nothing() -> None:
    here = table({"policy": [[1, 1]]})
    there = table({"policy": [[1, 1]], "policy_before_rl": [[1, 0]], "best_on_cards": [[0, 1]]})
    text = text_of(training_section({}, here, pools(here, there)))
    assert "### Another drawn pool for each question" in text
    assert "### Training pool" not in text
    assert training_section({}, here, pools(here, there, "drawn")) is None


def test_without_the_policy_before_there_is_no_section(tmp_path: Path) -> None:
    plain = table({"policy": [[1, 0]], "random": [[0, 0]]})
    assert training_section({}, plain, None) is None
    assert training_section(trained(tmp_path, {"train_cost_usd": 0.0}), plain, None) is None
