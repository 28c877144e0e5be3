"""Put a pool together from parameters: candidates, budget, recording."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from routerr1.config import BudgetParams, PoolParams
from routerr1.errors import PoolError
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.pool.interface import Pool
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.pool.recording import Recorder, open_replay
from routerr1.pool.records import RecordStore, describe_of
from routerr1.types import Card

BUDGET_FILE = Path("runs/budget.sqlite")
RUN_VARIABLE = "ROUTERR1_RUN"  # names the run whose budget is used; restarts keep the name
ONE_RUN = "default"  # where nobody names one


def environment(dotenv: Path = Path(".env")) -> dict[str, str]:
    """The process's variables, with those of a `.env` file below them."""
    from dotenv import dotenv_values

    return {**{k: v for k, v in dotenv_values(dotenv).items() if v is not None}, **os.environ}


def open_http_pool(
    params: PoolParams,
    cards: Sequence[Card] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    added: Path | None = None,
    run: str = ONE_RUN,
) -> Pool:
    """The pool of `params.file`, over HTTP or from its recording.

    Args:
        cards: profiled cards, shown in place of the file's.
        added: another pool file, whose candidates can be asked too; they are shown if `cards` is None.
        environ: where keys are looked up; the process's environment and `.env` if None.
        run: see `open_budget`.

    Raises: PoolError for anything wrong with the file, its keys, the store or the cards; no call is
        made before all of it is in order.
    """
    if params.file is None:
        raise PoolError("pool.file: an http pool needs a pool file, e.g. pools/paper.yaml")
    file = read_pool_file(params.file, max_reply_tokens=params.max_reply_tokens)
    if added is not None:
        file = file.joined(read_pool_file(added, max_reply_tokens=params.max_reply_tokens))
    shown = file.cards if cards is None else tuple(cards)
    _refuse_strangers(shown, file)
    if params.calls == "replay":
        assert params.store is not None  # PoolParams sees to it
        return open_replay(params.store, shown, describe=file.request, nearest=params.nearest)
    environ = environment() if environ is None else environ
    keys = file.keys(environ)
    # The SDK takes long to import, and a replay does not need it.
    from routerr1.pool.client import HttpPool

    budget = open_budget(params.budget, environ, run=run)
    pool = HttpPool(
        file,
        keys,
        max_concurrency=params.max_concurrency,
        budget=budget,
        cards=shown,
        seed=params.seed,
    )
    return _recorded(pool, params)


def guard(
    pool: Pool,
    params: PoolParams,
    *,
    environ: Mapping[str, str] | None = None,
    run: str = ONE_RUN,
) -> Pool:
    """An in-process pool with the budget, recording or replay that `params` ask for; as it is if none."""
    if params.calls == "replay":
        assert params.store is not None  # PoolParams sees to it
        return open_replay(
            params.store, pool.cards, describe=describe_of(pool), nearest=params.nearest
        )
    budget = open_budget(params.budget, os.environ if environ is None else environ, run=run)
    if budget is not None:
        pool = BudgetedPool(pool, budget, max_reply_tokens=params.max_reply_tokens)
    return _recorded(pool, params)


def open_budget(
    params: BudgetParams,
    environ: Mapping[str, str],
    path: Path = BUDGET_FILE,
    *,
    run: str = ONE_RUN,
) -> Budget | None:
    """The budget of the run that the environment names, or else of `run`; None if nothing is limited."""
    limits = Limits(params.question_usd, params.run_usd, params.month_usd)
    if limits == Limits():
        return None
    return Budget(path, limits, run=environ.get(RUN_VARIABLE) or run)


def _recorded(pool: Pool, params: PoolParams) -> Pool:
    if params.calls != "record":
        return pool
    assert params.store is not None  # PoolParams sees to it
    return Recorder(pool, RecordStore(params.store))


def _refuse_strangers(cards: Sequence[Card], file: PoolFile) -> None:
    known = {row.name for row in file.candidates}
    for card in cards:
        if card.name not in known:
            raise PoolError(
                f"{file.path}: the cards name candidate {card.name!r}, which the file does not hold; "
                "run the profile stage again"
            )
