"""A simulated world small enough to build in every test session, and pool files that point at its server."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from routerr1.config import EmbeddedParams
from routerr1.data.embedded import build_world, questions
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Question

SMALL = EmbeddedParams(countries=14, airports=10, elements=10, test_share=0.2, validation_share=0.1)


@pytest.fixture(scope="session")
def simulated() -> SimulatedPool:
    return SimulatedPool(default_candidates(), known_facts(build_world(SMALL)), seed=3)


@pytest.fixture(scope="session")
def asked() -> list[Question]:
    """Questions the simulated candidates may know."""
    return questions(build_world(SMALL), SMALL, seed=1)


@pytest.fixture
def pool_file(tmp_path: Path, simulated: SimulatedPool) -> Callable[..., Path]:
    """Writes a pool file with the simulated candidates at `url`; returns its path."""

    def write(
        url: str,
        *,
        endpoint: Mapping[str, Any] | None = None,
        fallbacks: Mapping[str, str] | None = None,
        **top: Any,
    ) -> Path:
        rows = [
            {
                "name": card.name,
                "endpoint": "here",
                "model": card.name,
                "prompt_usd_per_mtok": card.prompt_usd_per_mtok,
                "completion_usd_per_mtok": card.completion_usd_per_mtok,
                "context_window": 4096,
                "fallback": (fallbacks or {}).get(card.name),
            }
            for card in simulated.cards
        ]
        content = {
            "prices": {"as_of": "2026-11-01", "source": "made up"},
            "endpoints": {"here": {"base_url": f"{url}/v1", **(endpoint or {})}},
            "candidates": rows,
            **top,
        }
        path = tmp_path / "pools" / "pool.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write
