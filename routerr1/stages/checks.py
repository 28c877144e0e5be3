"""The stage checks: what must hold of the questions."""

from routerr1.config import Params
from routerr1.data.checks import run_checks
from routerr1.jobs.progress import track
from routerr1.lineage import PATHS


def checks(params: Params) -> None:
    """Check data/questions and write the findings to data/checks.

    Raises: CheckFailed if a check fails.
    """
    with track("checks", 0) as bar:
        run_checks(
            PATHS.questions,
            params.dataset,
            params.checks,
            PATHS.checks,
            docs=PATHS.data_docs,
            progress=bar.update,
        )
