"""What a version is judged by: its own plays, taken from the evaluation and kept with the version."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1 import files
from routerr1.errors import DataError
from routerr1.gate import Play

if TYPE_CHECKING:
    from routerr1.evaluate.rows import Row


def read_plays(rows: Path, seed: int, *, trained_pool: bool) -> list[Play]:
    """The policy's plays in an evaluation's rows.parquet.

    Args:
        seed: training seed of the policy.
        trained_pool: those on the pool it was trained on, or else those on any other.

    Raises: DataError naming the file if it cannot be read or holds no such play.
    """
    from routerr1.evaluate.controls import POLICY
    from routerr1.evaluate.rows import read_rows
    from routerr1.evaluate.run import TRAINING_POOL

    plays = [
        play_of(row)
        for row in read_rows(rows)
        if (row.router, row.seed) == (POLICY, seed) and (row.pool == TRAINING_POOL) is trained_pool
    ]
    if not plays:
        pool = "its own pool" if trained_pool else "an unseen pool"
        raise DataError(f"{rows}: holds no row of router {POLICY!r}, seed {seed}, on {pool}")
    return plays


def play_of(row: "Row") -> Play:
    """What the gate needs of an evaluation row."""
    return Play(
        question_id=f"{row.dataset}/{row.question_id}",
        group=row.group,
        em=_number(row.em),
        cost_usd=_number(row.cost_usd),
        formed=row.formed,
        called=tuple(row.called),
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def write_evidence(path: Path, plays: Sequence[Play], unseen: Sequence[Play]) -> None:
    """Store plays; a figure that is not finite is stored as null."""
    stored = {"plays": [_row(play) for play in plays], "unseen": [_row(play) for play in unseen]}
    files.write_json(path, stored)


def _row(play: Play) -> dict[str, Any]:
    row = asdict(play)
    for key in ("em", "cost_usd"):
        row[key] = row[key] if math.isfinite(row[key]) else None
    return row


def read_evidence(path: Path) -> tuple[list[Play], list[Play]]:
    """What `write_evidence` stored: the plays, and those on a pool never trained on.

    Raises: DataError naming the file.
    """
    stored = files.read_json(path)
    try:
        return [_play(row) for row in stored["plays"]], [_play(row) for row in stored["unseen"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: is no record of plays ({error})") from None


def _play(row: dict[str, Any]) -> Play:
    figures = {key: _number(row[key]) for key in ("em", "cost_usd")}
    return Play(**{**row, **figures, "called": tuple(row["called"])})
