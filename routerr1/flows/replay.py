"""Evaluate a registered version again: on its own questions to watch it, on a challenger's to compare it."""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from routerr1 import files
from routerr1.config import Params
from routerr1.data.splits import read_questions
from routerr1.errors import RegistryError
from routerr1.lineage import PATHS
from routerr1.notation import with_spend
from routerr1.pool.cards import read_cards
from routerr1.registry import evidence
from routerr1.registry.samples import EvalSample
from routerr1.registry.versions import Version, fetched
from routerr1.types import Card, Question
from routerr1.workspace import Workspace

if TYPE_CHECKING:
    from routerr1.baselines.cascade import Cascade
    from routerr1.baselines.learned import Chooser
    from routerr1.evaluate.rows import Row
    from routerr1.rollout.generate import Generator

_POOL = "replay"  # the column `pool` of the rows


def questions_of(params: Params, contents: Collection[str] | None = None) -> list[Question]:
    """Questions of the evaluated split with these contents (`gate.EvalSample.content`); None for all."""
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
        cards; BudgetExceeded if a budget is spent, because refused calls would count as mistakes of the version.
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
                play = partial(_answer, params, load_router(checkpoint))
            else:
                play = partial(_play, params, Workspace(params).load(checkpoint))
        rows = asyncio.run(play(cards, questions))
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


async def _play(
    params: Params, generator: "Generator", cards: Sequence[Card], questions: Sequence[Question]
) -> "list[Row]":
    """As the stage evaluate plays: handles and spend level of a question are the same, so are its calls."""
    from routerr1.evaluate.controls import policy_router
    from routerr1.evaluate.run import play_all, policies_of

    workspace = Workspace(params)
    pool = workspace.open_pool(cards)
    try:
        [policy] = policies_of({0: generator}, workspace.renderer, params)
        router = policy_router(policy, pool, _POOL, params.evaluate.seed)
        jobs = [(router, with_spend(each, params.evaluate.spend)) for each in questions]
        return await play_all(jobs, concurrency=params.evaluate.concurrency)
    finally:
        await pool.aclose()


async def _answer(
    params: Params,
    router: "Chooser | Cascade",
    cards: Sequence[Card],
    questions: Sequence[Question],
) -> "list[Row]":
    from routerr1.baselines.replies import answer_all
    from routerr1.evaluate.controls import POLICY
    from routerr1.evaluate.rows import row_of

    pool = Workspace(params).open_pool(cards)
    try:
        played = await answer_all(questions, router, pool, seed=params.evaluate.seed)
    finally:
        await pool.aclose()
    return [
        row_of(one, pool=_POOL, router=POLICY, seed=0, cards=cards, whole_reply=True)
        for one in played
    ]
