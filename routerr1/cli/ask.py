"""`routerr1 ask`: answer one question and show how."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from routerr1.baselines.cascade import Cascade
from routerr1.baselines.learned import Chooser
from routerr1.baselines.replies import answer_with_reply, next_call_of
from routerr1.baselines.saved import ROUTER, SavedRouter, as_evaluated, fit_router, load_router
from routerr1.cli.sources import chosen_source_of_version, source_line
from routerr1.config import Params
from routerr1.errors import CheckpointError, ConfigError
from routerr1.evaluate.results import EvaluationTable
from routerr1.files import digest, read_json
from routerr1.jobs.progress import working
from routerr1.lineage import PATHS
from routerr1.notation import SPEND_LEVELS, named, with_spend
from routerr1.pool.base import Pool
from routerr1.pool.cards import read_cards
from routerr1.rollout.generate import Generator
from routerr1.rollout.loop import rollout
from routerr1.rollout.refusal import refusal_of
from routerr1.train.checkpoint import MANIFEST, read_manifest
from routerr1.types import Ask, Card, LookUp, Question, Trajectory
from routerr1.workspace import Workspace

if TYPE_CHECKING:
    from routerr1.baselines.quick_embed import QuickMiniLM

THINKS = "Thinks"
VERSIONS = "models:/"
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")


@dataclass(frozen=True, slots=True)
class AskedVersion:
    """What a registered version answered, and what it says beside.

    Attributes:
        about: see `compared`.
        source: see `source_line`.
    """

    trajectory: Trajectory
    about: list[str]
    source: str | None


Answering = Callable[[Question, Pool], Awaitable[Trajectory]]
"""How a loaded policy or a fitted router answers one question."""


def ask_once(
    question: str,
    policy: str,
    params: Params,
    *,
    seed: int,
    temperature: float,
    other_pool: bool = False,
    spend: int | None = None,
) -> Trajectory:
    """Answer `question` with the checkpoint `policy`, on the pool that the parameters name.

    Each question has a budget of its own: the cost of earlier ones does not count against it.

    Args:
        policy: a folder that this project wrote, whose files are checked; or any folder or hub name of a causal LM.
        other_pool: the policy may have been trained with other candidates or prices.
        spend: what may be spent, from 0 to 10; a policy of the compact template reads it. None is the highest.

    Raises: CheckpointError, PoolError: policy or pool cannot be used; ConfigError for `spend` without such levels.
    """
    if not params.prompt.reads_spend:
        refuse_spend(spend, f"a policy of prompt.template {params.prompt.template}")
    workspace = Workspace(params, vectors=_quick_minilm)
    ours = policy == str(PATHS.policy) or (Path(policy) / MANIFEST).is_file()
    _ = workspace.renderer
    if ours and not (Path(policy) / MANIFEST).is_file():
        raise CheckpointError(f"{policy}: there is no trained policy here; run `dvc repro`")
    if ours and not other_pool:
        _require_its_pool(Path(policy), workspace)

    def load() -> Answering:
        own = Path(policy)
        generator = workspace.load_for_one(own) if ours else workspace.load_unchecked(policy)
        return _policy_answering(
            generator, workspace, seed=seed, temperature=temperature, spend=spend
        )

    return _ask(question, workspace, workspace.cards, load, f"loading {policy}")


@cache
def _quick_minilm() -> "QuickMiniLM":
    from routerr1.baselines.quick_embed import QuickMiniLM

    return QuickMiniLM(PATHS.embedded)


def refuse_spend(spend: int | None, router: str) -> None:
    """Raises: ConfigError for a spend level that the router would not heed."""
    if spend is not None:
        raise ConfigError(
            f"--spend {spend}: {router} has no spend levels; leave it out, or name another router (knn_spend_5, ...)"
        )


def _require_its_pool(policy: Path, workspace: Workspace) -> None:
    """Raises: CheckpointError if the policy was trained with other cards, and not with drawn pools."""
    manifest = read_manifest(policy)
    cards = manifest.get("cards")
    pool = manifest.get("params", {}).get("pool", {})
    drawn = pool.get("kind") != "http" and pool.get("redraw", 0)
    if cards is not None and cards != digest(workspace.paths.cards) and not drawn:
        raise CheckpointError(
            f"{policy}: was trained with other candidates, prices or measurements than {workspace.paths.cards}; "
            "run `dvc repro`, or ask with --other-pool"
        )


def ask_version(
    question: str,
    uri: str,
    params: Params,
    *,
    spend: int | None = None,
    live: bool | None = None,
) -> AskedVersion:
    """Answer `question` with a registered version as it is served: its own cards, pool, parameters and probes.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/NUMBER.
        spend: as in `ask_once`.
        live: see `chosen_source`.

    Raises: ConfigError for another address, or for `spend` without such levels; RegistryError if there is no such version, or it was changed.
    """
    from routerr1.registry.served import MATRIX, as_served, known_topics
    from routerr1.registry.versions import get_version, version_files
    from routerr1.tracking.store import open_client

    named = _VERSION.fullmatch(uri)
    if named is None:
        raise ConfigError(f"--policy {uri}: must be models:/NAME@ALIAS or models:/NAME/NUMBER")
    version = get_version(open_client(), named["name"], named["alias"] or named["number"])
    with version_files(version) as (checkpoint, context):
        served = as_served(
            Params.model_validate(read_json(context / "params.json")),
            pool=None, packed=context / "pool.yaml", prompt=context / "prompt.txt",
            budget=params.pool.budget.model_dump(),
        )  # fmt: skip
        own = chosen_source_of_version(served, params, live)
        workspace = Workspace(own, matrix=context / MATRIX, vectors=_quick_minilm)
        if (checkpoint / ROUTER).is_file() or not own.prompt.reads_spend:
            refuse_spend(spend, f"version {version.number}")

        def load() -> Answering:
            if (checkpoint / ROUTER).is_file():
                return _router_answering(load_router(checkpoint))
            generator = workspace.load_for_one(checkpoint)
            section = own.evaluate
            return _policy_answering(
                generator,
                workspace,
                seed=section.seed,
                temperature=section.temperature,
                spend=spend,
            )

        cards = read_cards(context / "cards.json")
        about = compared(question, own, known_topics(context))
        played = _ask(question, workspace, cards, load, f"loading version {version.number}")
        return AskedVersion(played, about, source_line(own.pool, served.pool))


def ask_router(question: str, router: str, params: Params) -> Trajectory:
    """Answer `question` with a router without a policy: the reply of the candidate that it chooses.

    The router is fitted on the answers of the profile stage, which takes seconds.

    Args:
        router: see `saved.router_name`; `best_single` is the candidate that the evaluation named, and before
            one that which was right most often on the probes.

    Raises: ConfigError, DataError, PoolError: router or pool cannot be used.
    """
    workspace = Workspace(params)
    seed, candidates = params.seeds[0], [card.name for card in workspace.cards]
    evaluated = as_evaluated(router, PATHS.evaluate / "table.json", seed, candidates)
    what = SavedRouter(router=evaluated, seed=seed, baselines=params.baselines)

    def load() -> Answering:
        return _router_answering(fit_router(what, workspace.paths.matrix, workspace.paths.cards))

    return _ask(question, workspace, workspace.cards, load, f"fitting {router}")


def _policy_answering(
    generator: Generator,
    workspace: Workspace,
    *,
    seed: int,
    temperature: float,
    spend: int | None = None,
) -> Answering:
    async def answer(question: Question, pool: Pool) -> Trajectory:
        return await rollout(
            with_spend(question, SPEND_LEVELS if spend is None else spend),
            generator,
            pool,
            render=workspace.renderer,
            params=workspace.params.rollout,
            seed=seed,
            temperature=temperature,
        )

    return answer


def _router_answering(router: Chooser | Cascade) -> Answering:
    async def answer(question: Question, pool: Pool) -> Trajectory:
        return await answer_with_reply(question, next_call_of(router), pool, seed=0)

    return answer


def _ask(
    question: str,
    workspace: Workspace,
    cards: Sequence[Card],
    load: Callable[[], Answering],
    loading: str,
) -> Trajectory:
    asked = uuid.uuid4().hex
    # The pool is opened first, because loading takes seconds.
    pool = workspace.open_pool(cards, run=f"ask {asked}")
    try:
        with working(loading):
            answer = load()
    except BaseException:
        asyncio.run(pool.aclose())
        raise

    async def play() -> Trajectory:
        try:
            return await answer(Question(asked, "asked", question, (), "test"), pool)
        finally:
            await pool.aclose()

    with working("answering"):
        return asyncio.run(play())


def evaluated_router() -> str:
    """The router that the last evaluation without a policy prefers.

    Raises: DataError if nothing was evaluated.
    """
    return EvaluationTable.read(PATHS.evaluate / "table.json").reference


def compared(question: str, params: Params, topics: Mapping[str, str] | None = None) -> list[str]:
    """What the question is about, by the known questions that are nearest.

    Empty for the embedded questions, and before the profile.

    Args:
        topics: known question -> its topic; None takes the probes of the working directory.
    """
    from routerr1.baselines.embed import MINILM, embedder
    from routerr1.baselines.likeness import KnownQuestions, topics_of

    if params.dataset.source == "embedded":
        return []
    if topics is None:
        topics = topics_of(PATHS.matrix) if PATHS.matrix.is_file() else {}
    if not topics:
        return []
    with working("comparing"):
        name = params.baselines.embedder
        vectors = _quick_minilm() if name == MINILM else embedder(name, params.seeds[0])
        known = KnownQuestions(topics, vectors)
        return known.compare(question).lines()


def show(trajectory: Trajectory, *, source: str | None) -> None:
    """Print thoughts, calls with model, price and latency, replies, the answer and its cost.

    Args:
        source: the last line, see `source_line`.
    """
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
    if source is not None:
        console.print(Text(source, style="dim"), soft_wrap=True)


def steps_shown(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    """A trajectory as lines of label and text, without control characters.

    A reply is shown as the policy read it.
    """
    for turn in trajectory.turns:
        # A small policy leaves out the blank between a percentage and a handle.
        written = turn.generation.text.replace("%m", "% m")
        thought, _, rest = named(written, trajectory.handles).partition("</think>")
        if thinks := _printable(thought.replace("<think>", "")):
            yield THINKS, thinks
        if isinstance(turn.action, LookUp):
            shown = named(turn.inserted, trajectory.handles).strip()
            shown = shown.removeprefix("<information>").removesuffix("</information>")
            yield f"Looks up {_printable(turn.action.topic)}", _printable(shown)
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
        if reply.failure is not None:
            reason = reply.note or reply.failure
            read = f"{read.strip()} ({reason})" if read.strip() else reason
        yield f"{label} ({_spent(reply.cost_usd, reply.latency_s)})", _printable(read)
    if refused := refusal_of(trajectory):
        yield "Answer", f"none: {_printable(refused.why.removeprefix('there is no answer: '))}"
    else:
        yield "Answer", _printable(trajectory.answer or "")


def _spent(cost_usd: float, latency_s: float) -> str:
    return f"${cost_usd:.6f}, {latency_s:.2f} s"


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable() or char in "\n\t").strip()
