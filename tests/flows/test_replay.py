"""A registered version played again."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.baselines.replies import Always
from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.run import play_all, policies_of
from routerr1.flows.replay import played, questions_of, replay, replies_on
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.registry import versions
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Question, Reply
from routerr1.workspace import Workspace
from tests.chain import put_policy


class Glitch(PoolWrapper):
    """Bills one question with a number that is none."""

    def __init__(self, inner: Pool, query: str) -> None:
        super().__init__(inner)
        self._query = query

    async def ask(self, call: Call) -> Reply:
        reply = await super().ask(call)
        return replace(reply, cost_usd=math.nan) if call.query == self._query else reply


async def test_a_row_that_breaks_a_contract_is_put_aside_as_in_the_evaluation(
    params: Params,
    pool: SimulatedPool,
    rows: list[Question],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = rows[:20]
    router = replies_on(params, Always("Atlas"), Glitch(pool, asked[3].question))
    found = await played(params.replace(max_rejected=0.05), router, asked)
    assert [place for place, row in enumerate(found) if row.rejected] == [3]
    assert (found[3].em, found[3].cost_usd) == (0.0, 0.0)
    (aside,) = Path("runs/rejected/replay.jsonl").read_text().splitlines()
    assert "numbers_finite" in aside
    with pytest.raises(DataError, match="numbers_finite"):
        await played(params.replace(max_rejected=0.0), router, asked)


@pytest.mark.slow
def test_a_version_plays_with_the_prompt_that_it_carries(
    chain: Params, asking_policy: Path
) -> None:
    put_policy(asking_policy)
    prompt = Path("mine.txt")
    prompt.write_text("One of {names}, please.\n{cards}\nQ: {question}\n")
    section = chain.prompt.model_copy(update={"template": "file", "file": prompt})
    version = versions.register(chain.model_copy(update={"prompt": section}))
    prompt.unlink()
    questions = questions_of(chain)[:2]
    again = replay(chain, version, questions)
    assert [play.question_id for play in again] == [f"{q.dataset}/{q.id}" for q in questions]


@pytest.mark.slow
@pytest.mark.parametrize("level", [10, 4])
def test_a_version_repeats_its_evaluation(chain: Params, asking_policy: Path, level: int) -> None:
    """Handles are drawn by question and seed, so another draw would show up as drift."""
    put_policy(asking_policy)
    params = chain.replace(evaluate=chain.evaluate.replace(spend=level))
    workspace = Workspace(params)
    pool = workspace.open_pool(workspace.cards)
    [policy] = policies_of({1: workspace.load(asking_policy)}, workspace.renderer, params)
    router = policy_router(policy, pool, "training", params.evaluate.seed)
    asked = workspace.spending("test")[:24]
    rows = asyncio.run(play_all([(router, each) for each in asked], concurrency=64))
    # A part, in another order.
    version = versions.register(params)
    again = replay(params, version, questions_of(params)[:24][::-2])
    found = {play.question_id: (play.em, play.cost_usd) for play in again}
    assert found == {
        f"{row.dataset}/{row.question_id}": (row.em, row.cost_usd) for row in rows[::-2]
    }
    assert len({row.cost_usd for row in rows}) > 3
