"""What a version is judged by: samples of its evaluation, stored with the version."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1 import files
from routerr1.errors import DataError
from routerr1.evaluate.controls import BEST_SINGLE, POLICY
from routerr1.evaluate.routers import is_learned
from routerr1.lineage import hash_of
from routerr1.registry.rivals import BEST_LEARNED
from routerr1.registry.samples import EvalSample, Evidence, Rival

if TYPE_CHECKING:
    from routerr1.evaluate.rows import Row

NEW_MODELS = ("drawn", "added", "redrawn")
"""Pools of the generalize stage with models that training never saw; the others perturb the training pool."""


def samples_of(rows: "Sequence[Row]", seed: int, router: str = POLICY) -> list[EvalSample]:
    """The samples of a router on its own pool; `seed` is its training seed."""
    from routerr1.evaluate.run import TRAINING_POOL

    return _samples(rows, seed, (TRAINING_POOL,), router)


def unseen_samples_of(rows: "Sequence[Row]", seed: int) -> list[EvalSample]:
    """The samples of the policy on pools with unseen models, which no other router calls."""
    return _samples(rows, seed, NEW_MODELS, POLICY)


def rivals_of(rows: "Sequence[Row]", seed: int, router: str = POLICY) -> dict[str, Rival]:
    """The best single model and the best learned router on the questions of `router`, by role.

    The best learned router is the one with the highest exact match on these very questions, the cheaper one of
    two equals. So its figure is a little flattered, to the disadvantage of the challenger. A router that is the
    best of its kind itself has no rival there.
    """
    from routerr1.evaluate.run import TRAINING_POOL

    plays: dict[str, list[EvalSample]] = {}
    for row in rows:
        wanted = row.router == BEST_SINGLE or is_learned(row.router)
        if wanted and (row.pool, row.seed) == (TRAINING_POOL, seed):
            plays.setdefault(row.router, []).append(sample_of(row))
    best = {BEST_SINGLE: BEST_SINGLE} if BEST_SINGLE in plays else {}
    if learned := [name for name in plays if is_learned(name)]:
        best[BEST_LEARNED] = min(learned, key=lambda name: (*_order(plays[name]), name))
    return {role: Rival(name, plays[name]) for role, name in best.items() if name != router}


def _order(samples: Sequence[EvalSample]) -> tuple[float, float]:
    """Best first, then cheapest; what is not finite comes last."""
    em = sum(sample.em for sample in samples) / len(samples)
    cost_usd = sum(sample.cost_usd for sample in samples)
    return (-em if math.isfinite(em) else 1.0, cost_usd if math.isfinite(cost_usd) else math.inf)


def worst_change(rows: "Sequence[Row]", seed: int) -> float | None:
    """The smallest ratio to best-on-cards over the changed pools in `rows`; None without that control."""
    from routerr1.evaluate.generalize import worst_ratio
    from routerr1.evaluate.run import TRAINING_POOL

    by_pool: dict[str, list[Row]] = {}
    for row in rows:
        if row.seed == seed and row.pool != TRAINING_POOL:
            by_pool.setdefault(row.pool, []).append(row)
    ratios = [worst_ratio(found) for found in by_pool.values()]
    return min((found.ratio for found in ratios if found is not None), default=None)


def _samples(
    rows: "Sequence[Row]", seed: int, pools: tuple[str, ...], router: str
) -> list[EvalSample]:
    return [
        sample_of(row)
        for row in rows
        if (row.router, row.seed) == (router, seed) and row.pool in pools
    ]


def content_of(dataset: str, question: str, golden_answers: Sequence[str]) -> str:
    """Digest of a question, independent of its id."""
    return hash_of([dataset, question, golden_answers])


def sample_of(row: "Row") -> EvalSample:
    """The part of an evaluation row that the gate needs."""
    golden = json.loads(row.trajectory)["question"]["golden_answers"]
    return EvalSample(
        question_id=f"{row.dataset}/{row.question_id}",
        content=content_of(row.dataset, row.question, golden),
        pool=row.pool,
        group=row.group,
        em=_number(row.em),
        cost_usd=_number(row.cost_usd),
        format_valid=row.format_valid,
        called=tuple(row.called),
        matching=row.matching,
        task=row.task,
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write the evidence as JSON; a figure that is not finite becomes null."""
    samples = {
        key: [_row(sample) for sample in getattr(evidence, key)] for key in ("samples", "unseen")
    }
    rivals = None
    if evidence.rivals is not None:
        rivals = {
            role: {"router": rival.router, "samples": [_row(sample) for sample in rival.samples]}
            for role, rival in evidence.rivals.items()
        }
    files.write_json(path, {**evidence._asdict(), **samples, "rivals": rivals})


def _row(sample: EvalSample) -> dict[str, Any]:
    row = asdict(sample)
    for key in ("em", "cost_usd"):
        row[key] = row[key] if math.isfinite(row[key]) else None
    return row


def read_evidence(path: Path) -> Evidence:
    """What `write_evidence` stored, or an earlier version of it, whose evidence held less.

    Raises: DataError naming the file.
    """
    stored = files.read_json(path)
    try:
        samples = {key: [_sample(row) for row in stored[key]] for key in ("samples", "unseen")}
        kept = stored.get("rivals")
        rivals = kept and {
            role: Rival(rival["router"], [_sample(row) for row in rival["samples"]])
            for role, rival in kept.items()
        }
        newer = {"rivals": rivals, "simulated": stored.get("simulated")}
        newer["odd_prices"] = tuple(stored.get("odd_prices", ()))
        return Evidence(**{**stored, **samples, **newer})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: holds no evidence ({error})") from None


def _sample(row: dict[str, Any]) -> EvalSample:
    figures = {key: _number(row[key]) for key in ("em", "cost_usd")}
    return EvalSample(**{**row, **figures, "called": tuple(row["called"])})
