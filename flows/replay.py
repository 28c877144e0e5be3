"""Play a registered version again: on its own questions to watch it, on a challenger's to compare it."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError

from routerr1 import evidence, files, stages
from routerr1.config import Params
from routerr1.errors import BudgetExceeded, RegistryError
from routerr1.gate import Play
from routerr1.pool.budget import exhausted
from routerr1.registry import Version, fetched
from routerr1.types import Question


def questions_of(params: Params, ids: Collection[str]) -> list[Question]:
    """Those of the evaluated split whose "dataset/id" is among `ids`."""
    from routerr1.data.splits import read_questions

    split = read_questions(stages.QUESTIONS, params.evaluate.split)
    return [question for question in split if f"{question.dataset}/{question.id}" in ids]


def replay(params: Params, version: Version, questions: Sequence[Question]) -> list[Play]:
    """The version's policy on `questions`, prompted and played as it always is, on the pool as it is now.

    Raises: RegistryError if the version's parameters cannot be read; BudgetExceeded if the money ran out:
        refused calls would count as the version's own mistakes.
    """
    from routerr1.evaluate.controls import POLICY
    from routerr1.evaluate.rows import row_of

    cards = stages.read_cards()
    params = asking_anew(_with_its_own(params, version))
    with fetched(version.model_id, "artifacts/policy") as checkpoint:
        generator = stages.load_policy(checkpoint, params)
    played = asyncio.run(_play(params, generator, questions))
    rows = [row_of(one, pool="replay", router=POLICY, seed=0, cards=cards) for one in played]
    return [evidence.play_of(row) for row in rows]


def asking_anew(params: Params) -> Params:
    """`params` whose calls are not answered from a store that they record into: what was, is not watched."""
    if params.pool.calls != "record":
        return params
    live = params.pool.model_copy(update={"calls": "live", "store": None})
    return params.model_copy(update={"pool": live})


def _with_its_own(params: Params, version: Version) -> Params:
    """`params`, but what a policy is played with as it was when the version was registered."""
    with fetched(version.model_id, "artifacts/context/params.json") as file:
        stored = files.read_json(file)
    try:
        own = {
            name: type(getattr(params, name)).model_validate(stored[name])
            for name in ("prompt", "rollout", "evaluate")
        }
    except (KeyError, ValidationError):
        raise RegistryError(
            f"version {version.number} of {version.name}: its parameters are not those of this code; "
            "replace it with `routerr1 promote --by-floors --why ...`"
        ) from None
    return params.model_copy(update=own)


async def _play(params: Params, generator: Any, questions: Sequence[Question]) -> Any:
    from routerr1.rollout.loop import play

    pool = stages.open_pool(params, stages.read_cards())
    try:
        played = await play(
            questions,
            generator,
            pool,
            render=stages.renderer(params),
            params=params.rollout,
            seed=params.evaluate.seed,
            temperature=params.evaluate.temperature,
        )
    finally:
        await pool.aclose()
    if (why := exhausted(pool)) is not None:
        raise BudgetExceeded(why)
    return played
