"""The policy in NumPy plays as it does in torch."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.prompt import renderer
from routerr1.rollout.generate import Generator
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.loop import play
from routerr1.rollout.quick import QuickGenerator, is_quick
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Question, Trajectory


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.slow
def test_numpy_plays_as_torch_does(
    asking_policy: Path, pool: SimulatedPool, rows: list[Question], params: Params, temperature: float
) -> None:  # fmt: skip
    assert is_quick(asking_policy)

    def played(generator: Generator) -> list[Trajectory]:
        return asyncio.run(
            play(
                rows[:20], generator, pool, render=renderer("compact", 4), params=params.rollout,
                seed=3, temperature=temperature,
            )
        )  # fmt: skip

    here = played(QuickGenerator(asking_policy))
    there = played(LocalGenerator.load(asking_policy))
    assert sum(t.ledger.calls for t in there) > 0
    for ours, theirs in zip(here, there, strict=True):
        assert ours.prompt_ids == theirs.prompt_ids
        assert (ours.text, ours.answer, ours.stopped) == (
            theirs.text,
            theirs.answer,
            theirs.stopped,
        )
        for one, other in zip(ours.turns, theirs.turns, strict=True):
            assert one.generation.token_ids == other.generation.token_ids
            assert one.inserted_ids == other.inserted_ids
            assert one.generation.logprobs == pytest.approx(other.generation.logprobs, abs=1e-3)


async def test_a_session_never_passes_the_length_limit(small_policy: Path) -> None:
    generator = QuickGenerator(small_policy, max_length=9)
    session = generator.start("one two", seed=1)
    said = await session.generate(max_new_tokens=50, temperature=0.0)
    assert len(session.prompt_ids) + len(said.token_ids) <= 9
    session.insert(" and some more words than there is room for")
    assert (await session.generate(max_new_tokens=50, temperature=0.0)).finish == "length"


def test_other_models_are_left_to_torch(small_policy: Path, tmp_path: Path) -> None:
    assert not is_quick(tmp_path)
    for file in small_policy.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert is_quick(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"llama"', '"qwen2"'))
    assert not is_quick(tmp_path)


def test_it_needs_no_torch(small_policy: Path) -> None:
    code = (
        "import sys, pathlib; from routerr1.rollout.quick import QuickGenerator, is_quick; "
        "folder = pathlib.Path(sys.argv[1]); assert is_quick(folder); QuickGenerator(folder); "
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(small_policy)], check=True)
