"""What counts as collapsed, and what the tables say of it."""

from pathlib import Path

import pytest

from benchmarks.collapse import (
    DEFAULT,
    Figures,
    Played,
    Training,
    finished,
    seeds_needed,
    summary,
    tables,
)


def figures(em: float, share: float = 0.5, no_call: float = 0.0) -> Figures:
    return Figures(em=em, format_valid=0.9, top_model_share=share, no_call_rate=no_call)


START = Played(own=figures(0.4), drawn=figures(0.3), down=figures(0.2))


def training(seed: int, em: float, share: float = 0.5, no_call: float = 0.0) -> Training:
    end = Played(own=figures(em, share, no_call), drawn=START.drawn, down=START.down)
    return Training(seed=seed, start=START, end=end)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (training(1, 0.4), None),
        (training(1, 0.39), "below the start"),
        (training(1, 0.8, share=0.9), None),
        (training(1, 0.8, share=0.91), "one model"),
        (training(1, 0.8, no_call=0.5), None),
        (training(1, 0.1, no_call=0.51), "no calls"),
    ],
)
def test_a_training_collapses_by_one_of_three_rules(found: Training, why: str | None) -> None:
    assert found.collapse == why


def test_finished_trainings_are_read_by_seed_whatever_their_number(tmp_path: Path) -> None:
    for seed in (10, 2):
        training(seed, 0.5).write(tmp_path / f"seed-{seed}" / "no-rehearsal.json")
    assert dict(finished(tmp_path)) == {"no rehearsal": [training(2, 0.5), training(10, 0.5)]}


def test_differences_are_paired_by_seed() -> None:
    found = summary(
        {
            DEFAULT: [training(1, 0.5), training(2, 0.7), training(3, 0.9)],
            "other": [training(1, 0.4), training(2, 0.6), training(3, 0.8), training(4, 0.1)],
        }
    )
    other = found["variants"]["other"]
    assert other["difference_own"] == {"mean": -0.1, "low": -0.1, "high": -0.1}
    assert (other["collapsed"], other["seeds"], other["why"]) == (1, 4, {"below the start": 1})
    assert "difference_own" not in found["variants"][DEFAULT]
    rates, matches = tables(found).split("\n\n")
    assert "1 of 4 [0.05, 0.70] (1 below the start)" in rates
    assert "0.47 (0.10 to 0.80)" in matches


def test_the_number_of_seeds_is_that_of_a_two_sample_comparison() -> None:
    # 2 (1.96 + 0.84)^2 = 15.7 for a difference of one standard deviation.
    assert seeds_needed(0.05, 0.05) == 16
    assert seeds_needed(0.1, 0.05) == 63
    assert seeds_needed(0.0, 0.05) == 2
