"""The stage dataset: questions, split and deduplicated."""

import logging
from collections.abc import Mapping
from typing import Any

from routerr1.config import Params
from routerr1.data.build import build_dataset
from routerr1.data.clean import SAYS
from routerr1.data.imported import require_known
from routerr1.jobs.progress import track
from routerr1.lineage import PATHS

_log = logging.getLogger(__name__)


def dataset(params: Params) -> None:
    """Write the questions of every split to data/questions."""
    require_known(params.dataset.imported)
    with track("dataset", 0) as bar:
        metrics = build_dataset(
            params.dataset, PATHS.questions, progress=lambda rows: bar.update(rows, rows)
        )
    for line in left_out(metrics):
        _log.info("dataset: %s", line)


def left_out(metrics: Mapping[str, Any]) -> list[str]:
    """What was left out of each data set and why, as lines for people; the report has every row."""
    lines = [
        f"{name}: {count} of {metrics['read'][name]} rows left out: {SAYS[reason]}"
        for name, reasons in sorted(metrics["refused"].items())
        for reason, count in sorted(reasons.items())
    ]
    return [*lines, f"lines and reasons: {PATHS.questions / 'refused.jsonl'}"] if lines else []
