"""The stage dataset: questions, split and deduplicated."""

from routerr1.config import Params
from routerr1.data.build import build_dataset
from routerr1.data.imported import require_known
from routerr1.lineage import PATHS
from routerr1.progress import track


def dataset(params: Params) -> None:
    """Write the questions of every split to data/questions."""
    require_known(params.dataset.imported)
    with track("dataset", 0) as bar:
        build_dataset(params.dataset, PATHS.questions, progress=lambda rows: bar.update(rows, rows))
