"""The way back into training: what users of the gateway said becomes questions, and enough of them a retrain."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Cancelled

from routerr1.config import load_params
from routerr1.errors import LockHeld
from routerr1.files import sha256
from routerr1.flows.triggers import DATA_CHANGED, notify
from routerr1.serve.assessments import assessed
from routerr1.serve.feedback import IMPORTED, PERSONAL, TooFew, import_feedback
from routerr1.serve.store import Store, database_of
from routerr1.tracking.store import file_lock


@flow(name="from-feedback", persist_result=False)
def from_feedback(
    name: str = "feedback",
    at_least: int = 100,
    remove: list[str] | None = None,
    wait_s: float = 600.0,
) -> Any:
    """Make questions as `routerr1 data from-feedback` does, and send the event that starts a retrain.

    Args:
        name: of the data set.
        at_least: nothing is done with fewer new answers.
        remove: see `serve.feedback.patterns`; None removes every kind of personal data.
        wait_s: seconds to wait for a retrain in this folder, whose stages read the file; after that this run
            is cancelled.

    Returns: True if the file changed.
    """
    log, params = get_run_logger(), load_params()
    file = IMPORTED / f"{name}.parquet"
    before = sha256(file) if file.is_file() else None
    store = Store(database_of(params.serve))
    try:
        with file_lock("pipeline", timeout_s=wait_s):
            made, _ = import_feedback(
                store, name, [*PERSONAL] if remove is None else remove, at_least=at_least,
                assessed=assessed(params.registry.experiment, store.feedback()),
            )  # fmt: skip
    except LockHeld:
        return Cancelled(message="a retrain is under way")
    except TooFew as few:
        log.info("%s", few)
        return False
    finally:
        store.close()
    log.info("%s: %d rows", made.path, made.rows.total())
    if file not in params.dataset.imported:
        log.warning("params.yaml: dataset.imported: lacks %s, so no stage reads it", file)
    changed = sha256(file) != before
    if changed:
        notify(DATA_CHANGED, f"feedback of {made.rows.total()} requests")
    return changed
