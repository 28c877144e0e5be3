"""What learning asked, counted by hand."""

import re
from pathlib import Path

import numpy as np
import pytest

from routerr1.baselines.learning_cost import learning_costs, training_cost
from routerr1.baselines.matrix import Matrix
from routerr1.errors import DataError
from routerr1.evaluate.results import LearningCost
from routerr1.evaluate.run import Evaluation
from routerr1.files import write_json
from tests.evaluate.made import row

# 5 probes x 3 candidates cost 5 x (2 + 4 + 0) USD.
MATRIX = Matrix(
    tuple(f"q{place}" for place in range(5)),
    ("a", "b", "c"),
    np.ones((5, 3)),
    np.tile([2.0, 4.0, 0.0], (5, 1)),
    (("", "", ""),) * 5,
    ("red",) * 5,
)
PROBES = LearningCost(calls=15, cost_usd=30.0)
NOTHING = LearningCost(calls=0, cost_usd=0)
TRIED = LearningCost(calls=30, cost_usd=1.0)
ROUTERS = (
    "policy", "best_single", "best_of_singles", "baseline/knn", "baseline/beta_8", "baseline/largest"
)  # fmt: skip
ROWS = [row(router=name) for name in ROUTERS]
LOG = """seed,step,calls,cost_usd,validation/calls,validation/cost_usd
1,1,2.0,0.5,,
1,2,1.5,0.5,2.0,0.25
2,1,1.0,0.0,,
2,2,1.0,0.0,1.0,0.0
"""
RESULTS = {
    "seed_1": {"start/calls": 1.0},
    "seed_2": {"start/calls": 0.5},
    "train_cost_usd": 12.0,
    "rejected": 0,
}


def folder(path: Path, log: str = LOG, results: object = RESULTS) -> Path:
    (path / "seeds.csv").write_text(log)
    write_json(path / "results.json", results)
    return path


def test_a_policy_that_was_trained_on_probes_asked_them_and_validation():
    found = learning_costs(
        Evaluation(ROWS, {1: "a"}, validated=TRIED), MATRIX, [1], None, trained=True, on_probes=True
    )
    assert found["policy"] == LearningCost(calls=45, cost_usd=31.0)
    assert found["best_single"] == LearningCost(calls=45, cost_usd=31.0)
    assert found["best_of_singles"] == NOTHING
    assert found["baseline/knn"] == PROBES


def test_learning_is_counted_in_calls_and_usd():
    found = learning_costs(
        Evaluation(ROWS, {1: "a"}, validated=TRIED), MATRIX, [1, 2], LearningCost(calls=100, cost_usd=7.0),
        trained=True,
    )  # fmt: skip
    assert found == {
        "policy": LearningCost(calls=115, cost_usd=37.0),
        "best_single": LearningCost(calls=145, cost_usd=38.0),
        "best_of_singles": NOTHING,  # the replies to the evaluated questions themselves
        "baseline/knn": PROBES,
        "baseline/beta_8": PROBES,  # of 8 probes there are 5
        "baseline/largest": NOTHING,
    }


def test_without_a_training_only_what_has_no_text_of_its_policy_is_counted():
    evaluated = Evaluation(ROWS[1:2], {1: "a"}, validated=TRIED)
    found = learning_costs(evaluated, MATRIX, [1], None, trained=False)
    assert found == {"best_single": LearningCost(calls=45, cost_usd=31.0)}  # probes and validation
    unknown = learning_costs(Evaluation(ROWS, {1: "a"}), MATRIX, [1], None, trained=True)
    assert set(unknown) == set(ROUTERS) - {"policy", "best_single"}


def test_the_cost_of_training_is_the_stated_one_and_its_calls_those_of_every_step(tmp_path: Path):
    found = training_cost(folder(tmp_path), rollouts=10, validated=4)
    # Seed 1: 35 calls of rollouts, 8 + 4 of validation; seed 2: 20, and 4 + 2.
    assert found == LearningCost(calls=36.5, cost_usd=6.0)


def test_a_policy_without_training_steps_costs_its_validation(tmp_path: Path):
    log = "seed,step,validation/calls\n1,0,1.0\n2,0,0.5\n"
    found = training_cost(folder(tmp_path, log), rollouts=10, validated=4)
    assert found == LearningCost(calls=3.0, cost_usd=6.0)


@pytest.mark.parametrize(
    ("log", "results", "problem"),
    [
        ("seed\n1\n", RESULTS, "seeds.csv: has no 'step'; run the train stage again"),
        ("seed,step,validation/calls\n1,1,\n", RESULTS, "seeds.csv: has no 'calls'; run the"),
        ("seed,step,calls\n1,1,2\n", RESULTS, "seeds.csv: has no 'validation/calls'; run"),
        (LOG.replace("1.5", "many"), RESULTS, "seeds.csv: cannot be read as that of a training"),
        (LOG, {"seed_1": {"start/calls": 1}}, "results.json: has no 'train_cost_usd'; run the"),
        (LOG, {"seed_1": {}}, "results.json: has no 'start/calls'; run the train stage again"),
        (LOG, {"train_cost_usd": 1.0}, "results.json: cannot be read as that of a training"),
        (LOG, [], "results.json: cannot be read as that of a training"),
    ],
)
def test_what_is_no_log_of_a_training_is_named(
    tmp_path: Path, log: str, results: object, problem: str
):
    with pytest.raises(DataError, match=re.escape(problem)):
        training_cost(folder(tmp_path, log, results), rollouts=10, validated=4)
