"""The files of the evaluate and generalize stages; each appears whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routerr1.config import EvaluateParams
from routerr1.evaluate.changes import Changes
from routerr1.evaluate.generalize import compare_pools, generalize_markdown, generalize_metrics
from routerr1.evaluate.pairwise import all_pairs
from routerr1.evaluate.rows import Row, write_rows
from routerr1.evaluate.run import Evaluation
from routerr1.evaluate.seeds import by_seed, seeds_markdown
from routerr1.evaluate.table import (
    by_dataset,
    datasets_markdown,
    markdown,
    metrics,
    summarise,
)
from routerr1.files import atomic_write_text, write_json


def write_evaluation(
    folder: Path, found: Evaluation, params: EvaluateParams
) -> tuple[dict[str, Any], dict[str, float]]:
    """Write rows.parquet, table and seeds (.json and .md), and metrics.json.

    Returns: the table and the metrics.
    """
    table = summarise(found.rows, params) | by_dataset(found.rows, params)
    table["pairs"] = all_pairs(found.rows, params)
    table["best_single"] = {str(seed): name for seed, name in sorted(found.best_single.items())}
    figures = metrics(table)
    write_rows(folder / "rows.parquet", found.rows)
    write_json(folder / "table.json", table)
    told = "\n".join(filter(None, (markdown(table), datasets_markdown(table))))
    atomic_write_text(folder / "table.md", told)
    seeds = by_seed(found.rows, params)
    write_json(folder / "seeds.json", seeds)
    atomic_write_text(folder / "seeds.md", seeds_markdown(seeds))
    write_json(folder / "metrics.json", figures)
    return table, figures


def write_generalization(
    folder: Path, rows: Sequence[Row], changes: Changes, params: EvaluateParams
) -> tuple[dict[str, Any], dict[str, float]]:
    """Write rows.parquet, pools.json, pools.md and metrics.json.

    Returns: the comparison and the metrics.
    """
    compared = compare_pools(rows, changes, params)
    figures = generalize_metrics(compared)
    write_rows(folder / "rows.parquet", rows)
    write_json(folder / "pools.json", compared)
    atomic_write_text(folder / "pools.md", generalize_markdown(compared))
    write_json(folder / "metrics.json", figures)
    return compared, figures
