"""One question, played and shown to a person."""

import asyncio
import uuid
from pathlib import Path

from routerr1 import stages
from routerr1.config import Params
from routerr1.rollout.loop import rollout
from routerr1.train.checkpoint import MANIFEST
from routerr1.types import Question, Trajectory


def ask_once(
    question: str, policy: str, params: Params, *, seed: int, temperature: float
) -> Trajectory:
    """Play `question` with the checkpoint `policy`, on the pool that params name.

    Each asking is a question and a run of its own: what earlier ones have cost is not held against it.

    Args:
        policy: a folder that this project wrote, which is checked; or any folder or hub name of a causal LM.

    Raises: CheckpointError, PoolError: policy or pool cannot be used.
    """
    ours = policy == str(stages.POLICY) or (Path(policy) / MANIFEST).is_file()
    generator = (
        stages.load_policy(Path(policy), params) if ours else stages.load_checkpoint(policy, params)
    )
    asked = uuid.uuid4().hex
    pool = stages.open_pool(params, stages.read_cards(), run=f"ask {asked}")

    async def play() -> Trajectory:
        try:
            return await rollout(
                Question(asked, "asked", question, (), "test"),
                generator,
                pool,
                render=stages.renderer(params),
                params=params.rollout,
                seed=seed,
                temperature=temperature,
            )
        finally:
            await pool.aclose()

    return asyncio.run(play())


def show(trajectory: Trajectory) -> None:
    """Print thoughts, calls with model, price and latency, replies, the answer and what it cost."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for turn in trajectory.turns:
        thought, _, _ = turn.generation.text.partition("</think>")
        console.print(Text(thought.removeprefix("<think>").strip(), style="italic dim"))
        if turn.reply is None:
            continue
        reply = turn.reply
        query = getattr(turn.action, "query", turn.generation.text)
        console.print(Text.assemble((f"→ {reply.model or 'nobody'}: ", "bold cyan"), query))
        figures = f"   ${reply.cost_usd:.6f}, {reply.latency_s:.2f} s"
        said = reply.text if reply.failure is None else f"no reply ({reply.failure})"
        console.print(Text.assemble(("← ", "bold green"), said, (figures, "dim")))
    ledger = trajectory.ledger
    answer = trajectory.answer if trajectory.answer is not None else f"none ({trajectory.stopped})"
    console.print(Text.assemble(("Answer: ", "bold"), (answer, "bold")))
    calls = "1 call" if ledger.calls == 1 else f"{ledger.calls} calls"
    console.print(Text(f"{calls}, ${ledger.cost_usd:.6f} in all", style="dim"))
