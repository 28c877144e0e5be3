"""When things run, with which limits, and who approves. What depends on what is dvc.yaml's alone.

Importing this package, which comes before any import of Prefect, fills in settings that are not set.
"""

import os

# Making its database takes the first ephemeral server longer than the 20 s that Prefect waits.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
