"""The dataset stage: from a source of questions to the split files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from routerr1.config import DatasetParams
from routerr1.data import embedded
from routerr1.data.splits import Counts, write_questions
from routerr1.errors import ConfigError
from routerr1.files import write_json
from routerr1.types import SPLITS, Question


def build_dataset(params: DatasetParams, folder: Path) -> dict[str, Any]:
    """Write the split files and metrics.json into `folder`.

    Returns: what metrics.json holds: rows per data set and split.
    """
    counts = write_questions(folder, _embedded(params))
    metrics = {"rows": counts}
    write_json(folder / "metrics.json", metrics)
    return metrics


def wanted_rows(params: DatasetParams) -> Mapping[str, Mapping[str, int | None]]:
    """Rows that `params` ask for, by data set and split; None where any number will do."""
    if params.source != "embedded":
        raise ConfigError(f"params.yaml: dataset.source: {params.source} is not supported")
    counts: Counts = {embedded.DATASET: dict.fromkeys(SPLITS, 0)}
    for question in _embedded(params):
        counts[question.dataset][question.split] += 1
    return counts


def _embedded(params: DatasetParams) -> list[Question]:
    world = embedded.build_world(params.embedded)
    return embedded.questions(world, params.embedded, params.seed)
