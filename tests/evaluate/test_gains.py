"""What the warm start taught and what reinforcement learning added, on figures that are worked out by hand."""

from typing import Any

from routerr1.config import EvaluateParams
from routerr1.evaluate.before_after import gains, gains_markdown, how_to_read
from routerr1.evaluate.table import summarise
from tests.evaluate.made import played

PARAMS = EvaluateParams(
    split="test", max_questions=None, temperature=0, bootstrap=200, confidence=0.95, seed=1,
    concurrency=1, executor="local", shards=1,
)  # fmt: skip
RIGHT = {
    "policy": [[1, 1, 1, 0]],
    "random": [[1, 0, 0, 0]],
    "baseline/knn": [[1, 1, 0, 0]],
    "baseline/policy_before_rl": [[0, 1, 0, 0]],
}
JUDGED: dict[str, Any] = {"best_calls": 1, "judged_calls": 1}
TRAINED = {
    "seed_2": {
        "best_step": 40, "steps": 60,
        "start/em": 0.25, "start/best_model_share": 0.125, "start/calls": 1.5, "start/format_valid": 0.75,
        "start/cost_usd": 2e-5, "start/reward": -0.1,
        "validation/em": 0.5, "validation/best_model_share": 0.875, "validation/calls": 2.0,
        "validation/format_valid": 1.0, "validation/cost_usd": 1e-5, "validation/reward": 0.4,
    },
    "train_cost_usd": 0.01,
}  # fmt: skip


def table(routers: dict[str, list[list[int]]], **given: Any) -> dict[str, Any]:
    rows = [row for name, right in routers.items() for row in played(name, right, **given)]
    return summarise(rows, PARAMS)


def pools(found: dict[str, Any], name: str = "redrawn") -> dict[str, Any]:
    return {"pools": [{"pool": name, "table": found}]}


def test_validation_holds_the_start_beside_the_chosen_step_of_each_seed() -> None:
    found = gains(TRAINED, table({"policy": [[1, 0]]}), None)
    assert found is not None
    told = gains_markdown(found)
    assert "| 2 | before | 0.250 | 12 | 1.50 | 75 | 0.0200 |" in told
    assert "| 2 | step 40 | 0.500 | 88 | 2.00 | 100 | 0.0100 |" in told
    assert "before reinforcement learning" not in how_to_read(found)  # it was not played


def test_real_models_have_no_best_one_in_validation() -> None:
    known = {name: v for name, v in TRAINED["seed_2"].items() if "best_model" not in name}
    found = gains({"seed_2": known}, table({"policy": [[1, 0]]}), None)
    assert found is not None
    assert "| 2 | before | 0.250 | – |" in gains_markdown(found)


def test_the_policy_before_stands_first_with_what_was_added_to_it() -> None:
    found = gains(None, table(RIGHT, **JUDGED), None)
    assert found is not None
    assert found.validated == []
    (lines,) = (each["routers"] for each in found.played.values())
    # Learnt routers say nothing of what training taught the policy.
    assert [line["router"] for line in lines] == ["baseline/policy_before_rl", "policy", "random"]
    assert lines[0]["difference"]["em"]["mean"] == 0.5
    assert "| baseline/policy_before_rl | 0.250 [" in gains_markdown(found)
    assert "| 100 | +0.500 [" in gains_markdown(found)
    assert how_to_read(found).startswith("baseline/policy_before_rl: the policy before")


def test_on_redrawn_pools_the_policy_before_has_another_name_and_other_pools_tell_nothing() -> None:
    here = table({"policy": [[1, 1]]})
    there = table({"policy": [[1, 1]], "policy_before_rl": [[1, 0]], "best_on_cards": [[0, 1]]})
    found = gains(None, here, pools(there))
    assert found is not None
    assert list(found.played) == ["Another drawn pool for each question"]
    assert how_to_read(found).startswith("policy_before_rl: the policy before")
    assert gains(None, here, pools(there, "drawn")) is None


def test_without_the_policy_before_there_is_nothing_to_tell() -> None:
    assert gains(None, table({"policy": [[1, 0]], "random": [[0, 0]]}), None) is None
    assert gains({"train_cost_usd": 0.0}, table({"policy": [[1, 0]]}), None) is None
