"""A registered version played again."""

from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.flows.replay import questions_of, replay
from routerr1.registry import versions
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
