"""Evaluate a registered version again: on its own questions to watch it, on a challenger's to compare it."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from routerr1 import files
from routerr1.config import Params
from routerr1.data.splits import read_questions
from routerr1.errors import RegistryError
from routerr1.jobs.rejected import Rejected
from routerr1.lineage import PATHS
from routerr1.notation import with_spend
from routerr1.pool.base import Pool
from routerr1.pool.cards import read_cards
from routerr1.registry import evidence
from routerr1.registry.samples import EvalSample
from routerr1.registry.versions import Version, fetched
from routerr1.types import Card, Question, Trajectory
from routerr1.workspace import Workspace

if TYPE_CHECKING:
    from routerr1.baselines.cascade import Cascade
    from routerr1.baselines.learned import Chooser
    from routerr1.evaluate.controls import Router
    from routerr1.evaluate.rows import Row
    from routerr1.rollout.generate import Generator

_POOL = "replay"  # the column `pool` of the rows


def questions_of(params: Params, contents: Collection[str] | None = None) -> list[Question]:
    """Questions of the evaluated split.

    Args:
        contents: digests of those that are wanted, as in `EvalSample.content`; None for all.
    """
    split = read_questions(PATHS.questions, params.evaluate.split)
    return [
        each
        for each in split
        if contents is None
        or evidence.content_of(each.dataset, each.question, each.golden_answers) in contents
    ]


def replay(params: Params, version: Version, questions: Sequence[Question]) -> list[EvalSample]:
    """Answer `questions` with the version's router as it is served, on the pool as it is now.

    The policy reads the cards that it was registered with; calls cost what the candidates cost now.

    Raises: RegistryError if the version's parameters cannot be read, or the pool lacks a candidate of its
        cards; DataError if more than `max_rejected` rows break a contract; BudgetExceeded if a budget is spent,
        because refused calls would count as mistakes of the version.
    """
    from routerr1.baselines.saved import ROUTER, load_router

    cards = cards_of(version)
    if missing := lacking(params, cards):
        raise RegistryError(
            f"version {version.number} of {version.name}: cannot be evaluated, the pool lacks "
            f"{', '.join(missing)}; `routerr1 promote --without-comparison --why ...` judges a challenger as a first champion"
        )
    with fetched(version.model_id, "artifacts/context") as context:
        params = with_live_calls(_with_its_own(params, version, context))
        with fetched(version.model_id, "artifacts/policy") as checkpoint:
            if (checkpoint / ROUTER).is_file():
                router_on = partial(replies_on, params, load_router(checkpoint))
            else:
                router_on = partial(policy_on, params, Workspace(params).load(checkpoint))
        rows = asyncio.run(_play_on_pool(params, cards, questions, router_on))
    return [evidence.sample_of(row) for row in rows]


def cards_of(version: Version) -> list[Card]:
    """The cards that a version was registered with; its policy reads them wherever it is served."""
    with fetched(version.model_id, "artifacts/context/cards.json") as file:
        return read_cards(file)


def lacking(params: Params, cards: Sequence[Card]) -> list[str]:
    """Names of candidates in `cards` that are no longer in the pool."""
    pool = Workspace(with_live_calls(params)).open_pool()
    asyncio.run(pool.aclose())
    offered = {card.name for card in pool.cards}
    return [card.name for card in cards if card.name not in offered]


def with_live_calls(params: Params) -> Params:
    """`params` with live calls in place of recorded ones, because the watch measures the present."""
    if params.pool.calls != "record":
        return params
    return params.replace(pool=params.pool.replace(calls="live", store=None))


def _with_its_own(params: Params, version: Version, context: Path) -> Params:
    """`params` with the sections that decide a policy's behaviour as they were when it was registered."""
    stored = files.read_json(context / "params.json")
    try:
        own = {
            name: type(getattr(params, name)).model_validate(stored[name])
            for name in ("prompt", "rollout", "evaluate")
        }
    except (KeyError, ValidationError):
        raise RegistryError(
            f"version {version.number} of {version.name}: its parameters do not fit this code; "
            "replace it with `routerr1 promote --without-comparison --why ...`"
        ) from None
    if own["prompt"].file is not None:  # the file in the workspace may have changed
        own["prompt"] = own["prompt"].replace(file=context / "prompt.txt")
    return params.replace(**own)


async def _play_on_pool(
    params: Params,
    cards: Sequence[Card],
    questions: Sequence[Question],
    router_on: "Callable[[Pool], Router]",
) -> "list[Row]":
    pool = Workspace(params).open_pool(cards)
    try:
        return await played(params, router_on(pool), questions)
    finally:
        await pool.aclose()


async def played(params: Params, router: "Router", questions: Sequence[Question]) -> "list[Row]":
    """Rows of a router, as the stage evaluate makes them: one that breaks a contract is put aside.

    Raises: DataError if more than `max_rejected` of them do; RouterError of the router.
    """
    from routerr1.evaluate.run import play_all

    rejected = Rejected("replay", params.max_rejected)
    jobs = [(router, question) for question in questions]
    async with aclosing(Workspace(params).grader()) as grader:
        rows = await play_all(
            jobs, concurrency=params.evaluate.concurrency, rejected=rejected, grade=grader
        )
    rejected.tell()
    return rows


def policy_on(params: Params, generator: "Generator", pool: Pool) -> "Router":
    """The policy as it is evaluated: handles and spend level of a question are the same, so are its calls."""
    from routerr1.evaluate.controls import policy_router
    from routerr1.evaluate.run import policies_of

    [policy] = policies_of({0: generator}, Workspace(params).renderer, params)
    router = policy_router(policy, pool, _POOL, params.evaluate.seed)

    async def play(question: Question, *, player: str) -> Trajectory:
        return await router.play(with_spend(question, params.evaluate.spend), player=player)

    return replace(router, play=play)


def replies_on(params: Params, chosen: "Chooser | Cascade", pool: Pool) -> "Router":
    """A router without a policy as it is evaluated: the reply is the answer."""
    from routerr1.baselines.replies import answer_with_reply, next_call_of
    from routerr1.evaluate.controls import POLICY, Router

    next_call, seed = next_call_of(chosen), params.evaluate.seed

    async def play(question: Question, *, player: str) -> Trajectory:
        return await answer_with_reply(question, next_call, pool, seed=seed, player=player)

    return Router(POLICY, 0, _POOL, pool, play, whole_reply=True)
