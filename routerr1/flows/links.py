"""Links from Prefect's artifacts to MLflow."""

from routerr1.registry.versions import Version
from routerr1.tracking.store import redact, tracking_uri


def link_to_run(version: Version) -> str:
    """The MLflow run of a version; a link if the store is a server."""
    uri = redact(tracking_uri())
    if not uri.startswith("http") or version.run_id is None:
        return f"run {version.run_id}"
    return f"[run {version.run_id}]({uri.rstrip('/')}/#/runs/{version.run_id})"
