"""The files of the stages evaluate and generalize; each appears whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from routerr1.config import EvaluateParams
from routerr1.evaluate import generalize, table
from routerr1.evaluate.pairwise import all_pairs
from routerr1.evaluate.perturbations import Perturbations
from routerr1.evaluate.results import EvaluationTable, LearningCost
from routerr1.evaluate.rows import Row, write_rows
from routerr1.evaluate.run import Evaluation
from routerr1.evaluate.seeds import by_seed
from routerr1.files import atomic_write_text, write_json
from routerr1.report import markdown
from routerr1.report.tables import evaluation_sections, pools_section, seeds_section


def write_evaluation(
    folder: Path,
    found: Evaluation,
    params: EvaluateParams,
    num_rejected: int = 0,
    learning: Mapping[str, LearningCost] | None = None,
) -> dict[str, float]:
    """Write rows.parquet, table and seeds (.json and .md), and metrics.json.

    Args:
        num_rejected: trajectories that were put aside.
        learning: see `evaluation_table`.

    Returns: the headline metrics.
    """
    compared = evaluation_table(found, params, learning)
    seeds = by_seed(found.rows, params, found.reference)
    metrics = {**table.headline(compared), "rejected": num_rejected}
    write_rows(folder / "rows.parquet", found.rows)
    compared.write(folder / "table.json")
    atomic_write_text(folder / "table.md", markdown.render(evaluation_sections(compared)))
    seeds.write(folder / "seeds.json")
    atomic_write_text(folder / "seeds.md", markdown.render([seeds_section(seeds)]))
    write_json(folder / "metrics.json", metrics)
    return metrics


def evaluation_table(
    found: Evaluation,
    params: EvaluateParams,
    learning: Mapping[str, LearningCost] | None = None,
) -> EvaluationTable:
    """Everything that the rows say of the routers.

    Args:
        learning: what each router's learning asked of the candidates, where it is known.
    """
    datasets, macro = table.by_dataset(found.rows, params)
    compared = table.summarise(found.rows, params, found.reference)
    routers = table.with_learning(compared.routers, learning or {})
    return EvaluationTable(
        **{**dict(compared), "routers": routers},
        by_dataset=datasets,
        macro=macro,
        pairs=all_pairs(found.rows, params),
        best_single=found.best_single,
    )


def write_generalization(
    folder: Path, rows: Sequence[Row], perturbations: Perturbations, params: EvaluateParams
) -> dict[str, float]:
    """Write rows.parquet, pools.json, pools.md and metrics.json.

    Returns: the headline metrics.
    """
    compared = generalize.compare_pools(rows, perturbations, params)
    metrics = {**generalize.headline(compared), "rejected": sum(row.rejected for row in rows)}
    write_rows(folder / "rows.parquet", rows)
    compared.write(folder / "pools.json")
    atomic_write_text(folder / "pools.md", markdown.render([pools_section(compared)]))
    write_json(folder / "metrics.json", metrics)
    return metrics
