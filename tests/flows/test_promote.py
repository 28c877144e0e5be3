"""The promotion flow where champion and challenger cannot be compared as they are kept."""

from pathlib import Path

import pytest

from routerr1 import promotion, registry, tracking
from routerr1.config import Params
from tests.chain import make_outputs, put_policy
from tests.flows.conftest import Artifacts

pytestmark = pytest.mark.usefixtures("prefect", "chain")


def test_a_champion_of_another_pool_plays_the_challengers_questions_first(
    chain: Params, asking_policy: Path, artifacts: Artifacts
) -> None:
    from flows.promote import promote_if_better

    make_outputs(cost=0.0)
    put_policy(asking_policy)
    registry.register(chain)
    promotion.promote(chain)
    make_outputs(cost=0.0, size=11)
    put_policy(asking_policy, price=0.2)
    registry.register(chain)
    kept = promotion.judge(chain).decision
    assert kept.refused_by == ("same_pool",)
    assert promote_if_better() is True
    page = artifacts["gate"]
    assert "| same_pool | 1 |" in page
    # What is kept of both is 0.6; the champion's policy as it is answers none of these.
    assert "| em_difference | 0.6 |" in page
    assert "unseen_difference" not in page  # it did not meet the new models again
    assert registry.get_version(tracking.open_client(), "routerr1", "champion").number == 2
