"""Prefect flows: schedules, limits, approval. dvc.yaml alone says what depends on what.

Importing this package sets defaults of Prefect's settings, which Prefect reads on its own import.
"""

import os

# The first ephemeral server makes its database, which takes longer than Prefect's default of 20 s.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
