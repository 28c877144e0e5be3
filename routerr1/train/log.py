"""The log of a training run, its hours and its cost."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from routerr1.files import atomic_path

_PARTS = ("generation", "training", "validation")  # of a step's seconds


def train_hours(timing: Iterable[Mapping[str, float]]) -> float:
    """Hours of these steps in all processes that made them, without loading and lost steps."""
    return sum(row[f"{part}_s"] for row in timing for part in _PARTS) / 3600


def train_cost_usd(rows: Iterable[Mapping[str, float]], rollouts: int, validated: int) -> float:
    """USD for the calls of these steps.

    Args:
        rollouts: number of rollouts in each step.
        validated: number of questions in each validation.
    """
    per_row = (("cost_usd", rollouts), ("validation/cost_usd", validated))
    return sum(row.get(name, 0.0) * count for row in rows for name, count in per_row)


def write_log(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Rows as CSV: seed and step first, other columns by name; a missing value is empty."""
    names = {key for row in rows for key in row}
    columns = sorted(names, key=lambda key: (key != "seed", key != "step", key))
    with atomic_path(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
