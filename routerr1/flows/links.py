"""From what Prefect shows to what MLflow keeps."""

from routerr1.registry.versions import Version
from routerr1.tracking.store import redact, tracking_uri


def link_to_run(version: Version) -> str:
    """The MLflow run, as a link where there is a server to show it."""
    uri = redact(tracking_uri())
    if not uri.startswith("http") or version.run_id is None:
        return f"run {version.run_id}"
    return f"[run {version.run_id}]({uri.rstrip('/')}/#/runs/{version.run_id})"
