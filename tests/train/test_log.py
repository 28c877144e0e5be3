"""The reported cost of a training run."""

import pytest

from routerr1.train.log import train_cost_usd, train_hours


def test_hours_are_the_seconds_of_every_step() -> None:
    steps = [
        {"step": 1.0, "generation_s": 1000.0, "training_s": 500.0, "validation_s": 0.0},
        {"step": 2.0, "generation_s": 1100.0, "training_s": 600.0, "validation_s": 400.0},
    ]
    assert train_hours(steps) == 1.0


def test_what_validation_called_is_paid_too() -> None:
    rows = [{"step": 1.0, "cost_usd": 0.01}, {"cost_usd": 0.02, "validation/cost_usd": 0.03}]
    # (0.01 + 0.02) * 8 rollouts + 0.03 * 5 questions
    assert train_cost_usd(rows, rollouts=8, validated=5) == pytest.approx(0.39)
    assert train_cost_usd([{"validation/cost_usd": 0.03}], 8, 5) == pytest.approx(0.15)
