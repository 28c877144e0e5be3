"""routerr1: a small LLM that learns to route questions over a pool of LLMs."""

import os

__version__ = "0.1.0"

# libpq, which every PostgreSQL driver here uses, waits for ever for a server that does not answer.
os.environ.setdefault("PGCONNECT_TIMEOUT", "5")
