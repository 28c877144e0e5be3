"""`routerr1 ask`: answer one question and show how."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

from routerr1.baselines.replies import NO_REPLY, answer_with_reply, next_call_of
from routerr1.baselines.saved import SavedRouter, fit_router
from routerr1.config import Params
from routerr1.evaluate.results import EvaluationTable
from routerr1.lineage import PATHS
from routerr1.progress import working
from routerr1.rollout.loop import rollout
from routerr1.train.checkpoint import MANIFEST
from routerr1.types import Ask, Malformed, Question, Trajectory
from routerr1.workspace import Workspace

THINKS = "Thinks"
_NO_ANSWER = {
    "max_rounds": "the policy asked for another call after its last one (rollout.max_rounds)",
    "no_action": "the policy ended without a call or an answer",
    "no_reply": "the candidate did not reply",
    "length": "the policy used up its tokens (rollout.max_new_tokens, or the context)",
}


def ask_once(
    question: str, policy: str, params: Params, *, seed: int, temperature: float
) -> Trajectory:
    """Answer `question` with the checkpoint `policy`, on the pool that the parameters name.

    Each question has a budget of its own: the cost of earlier ones does not count against it.

    Args:
        policy: a folder that this project wrote, whose files are checked; or any folder or hub name of a causal LM.

    Raises: CheckpointError, PoolError: policy or pool cannot be used.
    """
    workspace = Workspace(params)
    ours = policy == str(PATHS.policy) or (Path(policy) / MANIFEST).is_file()
    render = workspace.renderer
    asked = uuid.uuid4().hex
    # The pool is opened first, because loading the policy takes seconds.
    pool = workspace.open_pool(workspace.cards, run=f"ask {asked}")

    try:
        with working(f"loading {policy}"):
            generator = workspace.load(Path(policy)) if ours else workspace.load_unchecked(policy)
    except BaseException:
        asyncio.run(pool.aclose())
        raise

    async def play() -> Trajectory:
        try:
            return await rollout(
                Question(asked, "asked", question, (), "test"),
                generator,
                pool,
                render=render,
                params=params.rollout,
                seed=seed,
                temperature=temperature,
            )
        finally:
            await pool.aclose()

    with working("answering"):
        return asyncio.run(play())


def ask_router(question: str, router: str, params: Params) -> Trajectory:
    """Answer `question` with a router without a policy: the reply of the candidate that it chooses.

    The router is fitted on the answers of the profile stage, which takes seconds.

    Args:
        router: see `saved.router_name`; `best_single` is the one that the evaluation found, if there was one.

    Raises: ConfigError, DataError, PoolError: router or pool cannot be used.
    """
    workspace = Workspace(params)
    asked = uuid.uuid4().hex
    what = SavedRouter(router=router, seed=params.seeds[0], baselines=params.baselines)
    with working(f"fitting {router}"):
        fitted = fit_router(what, workspace.paths.matrix, workspace.paths.cards)
    pool = workspace.open_pool(workspace.cards, run=f"ask {asked}")

    async def play() -> Trajectory:
        try:
            return await answer_with_reply(
                Question(asked, "asked", question, (), "test"), next_call_of(fitted), pool, seed=0
            )
        finally:
            await pool.aclose()

    with working("answering"):
        return asyncio.run(play())


def evaluated_router() -> str:
    """The router that the last evaluation without a policy prefers.

    Raises: DataError if nothing was evaluated.
    """
    return EvaluationTable.read(PATHS.evaluate / "table.json").reference


def show(trajectory: Trajectory, *, simulated: bool) -> None:
    """Print thoughts, calls with model, price and latency, replies, the answer and its cost."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for label, text in steps_shown(trajectory):
        style = "dim italic" if label == THINKS else ""
        console.print(Text.assemble((f"{label}: ", "bold"), (text, style)))
    replies = [turn.reply for turn in trajectory.turns if turn.reply is not None]
    calls = trajectory.ledger.calls
    spent = _spent(trajectory.ledger.cost_usd, sum(reply.latency_s for reply in replies))
    console.print(Text(f"{calls} {'call' if calls == 1 else 'calls'}, {spent} in all", style="dim"))
    if simulated:
        console.print(Text("The called models are simulated (README.md).", style="dim"))


def steps_shown(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    """A trajectory as lines of label and text, without control characters.

    A reply is shown as the policy read it.
    """
    for turn in trajectory.turns:
        thought, _, rest = turn.generation.text.partition("</think>")
        yield THINKS, _printable(thought.replace("<think>", ""))
        if turn.reply is None:
            continue
        reply, action = turn.reply, turn.action
        if isinstance(action, Ask):
            name = reply.model or action.name
            also = "" if name == action.name else f" (it named {action.name})"
            yield f"Asks {name}{also}", _printable(action.query)
        else:
            yield "Asks no model", _printable(rest)
        label = "Reply" if reply.failure is None else "No reply"
        read = turn.inserted.strip().removeprefix("<information>").removesuffix("</information>")
        yield f"{label} ({_spent(reply.cost_usd, reply.latency_s)})", _printable(read)
    if trajectory.answer is None:
        unanswered = trajectory.turns[-1].action == Malformed(NO_REPLY)
        yield "Answer", f"none: {_NO_ANSWER['no_reply' if unanswered else trajectory.stopped]}"
    else:
        yield "Answer", _printable(trajectory.answer)


def _spent(cost_usd: float, latency_s: float) -> str:
    return f"${cost_usd:.6f}, {latency_s:.2f} s"


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable() or char in "\n\t").strip()
