"""Champions come and go, candidates fail, and one gateway of two is killed: the other loses and mixes nothing."""

import pytest

from routerr1.config import Params
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Question
from tests.serve.changes import play

REQUESTS = 400  # benchmarks/gateway_changes.py asks 2,000


@pytest.mark.slow
async def test_the_other_gateway_loses_and_mixes_nothing_and_the_budget_holds(
    chain: Params, pool: SimulatedPool, rows: list[Question]
) -> None:
    questions = [row.question for row in rows if row.hops == 1]
    outcome = await play(chain, pool, questions, requests=REQUESTS, clients=12)
    outcome.check(pool)
