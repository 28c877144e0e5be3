"""When things run, with which limits, and who approves. What depends on what is dvc.yaml's alone.

Importing this package, which comes before any import of Prefect, fills in settings that are not set.
"""

import os
from pathlib import Path

# Making its database takes the first ephemeral server longer than the 20 s that Prefect waits.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
if "PREFECT_HOME" not in os.environ:
    _home = Path("runs/prefect").resolve()
    _home.mkdir(parents=True, exist_ok=True)  # Prefect makes the folder itself, but not its parents
    os.environ["PREFECT_HOME"] = str(_home)
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
