"""What a piece of work depends on, as a digest: unfinished work goes on only if nothing of it has changed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from routerr1.config import Params
from routerr1.files import digest


def fingerprint(params: Params, *names: str) -> str:
    """Of sections of the parameters."""
    return hash_of(sections(params, *names))


def sections(params: Params, *names: str) -> dict[str, Any]:
    """Sections as JSON values, without what changes no result: who raises a budget goes on with his work."""
    found = {name: getattr(params, name).model_dump(mode="json") for name in names}
    if "pool" in found:
        for key in ("budget", "max_concurrency"):
            del found["pool"][key]
    return found


_PACKAGE = Path(__file__).parent
# What decides the results of training; dvc.yaml's stage train depends on the same.
TRAINING_CODE = (
    "data/embedded.py", "matching.py", "metrics.py", "policy", "pool/changed.py", "pool/pricing.py",
    "prompt.py", "protocol.py", "reward.py", "rollout", "simulation/ground_truth.py", "simulation/pool.py", "thoughts.py", "train",
)  # fmt: skip


def code(*parts: str) -> str:
    """Of every module of this package, or of these files and folders of it."""
    roots = [_PACKAGE / part for part in parts] or [_PACKAGE]
    files = {path for root in roots for path in ([root] if root.is_file() else root.rglob("*.py"))}
    return hash_of([digest(path) for path in sorted(files)])


def hash_of(value: object) -> str:
    """Sixteen hex digits for a JSON value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
