"""A registered version played again."""

import asyncio
from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.run import play_all, policies_of
from routerr1.flows.replay import questions_of, replay
from routerr1.registry import versions
from routerr1.workspace import Workspace
from tests.chain import put_policy


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
    played = replay(chain, version, questions)
    assert [play.question_id for play in played] == [f"{q.dataset}/{q.id}" for q in questions]


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
    played = replay(params, version, questions_of(params)[:24][::-2])
    found = {play.question_id: (play.em, play.cost_usd) for play in played}
    assert found == {
        f"{row.dataset}/{row.question_id}": (row.em, row.cost_usd) for row in rows[::-2]
    }
    assert len({row.cost_usd for row in rows}) > 3
