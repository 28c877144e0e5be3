"""routerr1: a small LLM that learns to route questions over a pool of LLMs."""

__version__ = "0.1.0"
