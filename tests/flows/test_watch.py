"""What watching finds, and what it tells Prefect: a price that was changed, a candidate that is gone."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from flows.params import set_value
from routerr1 import promotion, registry, stages
from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.data.splits import write_questions
from routerr1.errors import RegistryError
from routerr1.exclusive import file_lock
from routerr1.pool.profile import profile, sample_probes, write_profile
from routerr1.pool.simulated import Candidate, SimulatedPool, default_candidates, known_facts
from routerr1.types import Question
from tests.flows.conftest import Artifacts
from tests.servers import write_pool_file

pytestmark = pytest.mark.usefixtures("prefect", "chain")


def told(event: str) -> list[dict[str, Any]]:
    """Payloads of the events of that name, once the first has reached the server."""
    from prefect.client.orchestration import get_client
    from prefect.events.filters import EventFilter

    wanted = EventFilter.model_validate({"event": {"name": [event]}})
    with get_client(sync_client=True) as client:
        for _ in range(100):
            if found := client.read_events(wanted, limit=50).events:
                return [each.payload for each in found]
            time.sleep(0.1)
    return []


def test_a_changed_price_is_seen_once_and_told() -> None:
    from flows.watch import POOL_CHANGED, watch_changes

    write_pool_file(Path("pool.yaml"), "http://127.0.0.1:9", default_candidates())
    set_value(Path("params.yaml"), ("pool", "file"), "pool.yaml")
    assert watch_changes() == []  # nothing to compare with yet
    text = Path("pool.yaml").read_text()
    price = next(line for line in text.splitlines() if "completion_usd_per_mtok" in line)
    Path("pool.yaml").write_text(text.replace(price, f"{price}9", 1))
    assert watch_changes() == [POOL_CHANGED]
    assert watch_changes() == []
    assert told(POOL_CHANGED) == [{"why": "seen by watch-changes"}]
    set_value(Path("params.yaml"), ("pool", "budget", "run_usd"), 5)
    assert watch_changes() == []  # more money is no other pool


def test_other_data_are_told_too() -> None:
    from flows.watch import DATA_CHANGED, watch_changes

    watch_changes()
    set_value(Path("params.yaml"), ("dataset", "seed"), 43)
    assert watch_changes() == [DATA_CHANGED]
    assert len(told(DATA_CHANGED)) == 1


def test_without_a_champion_there_is_nothing_to_watch() -> None:
    from flows.watch import evaluate_champion

    with pytest.raises(RegistryError, match="'routerr1': has no champion to watch"):
        evaluate_champion()


def test_while_a_retrain_rewrites_the_data_nothing_is_compared(chain: Params) -> None:
    from flows.watch import evaluate_champion

    registry.register(chain)
    promotion.promote(chain)
    with file_lock("pipeline", timeout_s=1):
        state = evaluate_champion(wait_s=0.1, return_state=True)
    assert state.is_cancelled()
    assert state.message == "a retrain is under way"


def test_a_candidate_that_is_gone_is_drift(
    chain: Params, rows: list[Question], world: World, artifacts: Artifacts
) -> None:
    from flows.pipeline import DRIFT
    from flows.watch import evaluate_champion

    registry.register(chain)
    promotion.promote(chain)
    larger = (*default_candidates(), Candidate("Fargo", {}, 0.1, 0.1, 0.1, 0, "was here"))
    before = SimulatedPool(larger, known_facts(world), seed=chain.pool.seed)
    write_questions(stages.QUESTIONS, rows)
    train = [question for question in rows if question.split == "train"]
    probes = sample_probes(train, 24, seed=1)
    write_profile(stages.POOL, asyncio.run(profile(probes, before, store=None)))
    assert evaluate_champion() is True
    page = artifacts["drift"]
    assert page.startswith("# Watch: drift")
    assert "| Fargo | nan | nan | **moved** | the pool has it no more |" in page
    assert page.count("**moved**") == 1  # of the others nothing has changed
    assert told(DRIFT) == [{"why": "Fargo"}]
