"""Open a pool from parameters: candidates, budget, recording."""

import codecs
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from routerr1.config import BudgetParams, PoolParams
from routerr1.errors import PoolError
from routerr1.files import project_folder
from routerr1.pool.base import Pool
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.pool.recorded import RecordedPool, read_store
from routerr1.pool.recording import Recorder, open_replay
from routerr1.pool.records import RecordStore
from routerr1.types import Card

BUDGET_FILE = Path("runs/budget.sqlite")
RUN_VARIABLE = "ROUTERR1_RUN"  # names the run whose budget is used; restarts keep the name
ONE_RUN = "default"  # the run if the environment names none


def environment(dotenv: Path = Path(".env")) -> dict[str, str]:
    """The environment variables of the process; those of a `.env` file where the process has none.

    Raises: PoolError naming the file, and the line that is no text.
    """
    from dotenv import dotenv_values

    values = dotenv_values(stream=io.StringIO(_dotenv_text(dotenv))) if dotenv.is_file() else {}
    return {**{k: v for k, v in values.items() if v is not None}, **os.environ}


def _dotenv_text(path: Path) -> str:
    """In UTF-8, or in UTF-16 with a mark, as PowerShell writes it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror})") from None
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PoolError(f"{path}, line {line}: is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise PoolError(f"{path}: is not UTF-8; save the file as UTF-8")
    return text


def open_http_pool(
    params: PoolParams,
    cards: Sequence[Card] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    added: Path | None = None,
    held_out: bool = False,
    run: str = ONE_RUN,
    budget: Budget | None = None,
    max_rejected: float = 0.0,
) -> Pool:
    """The pool of `params.file`: over HTTP, from a log of calls, or from its recorded replies.

    Args:
        cards: profiled cards to show instead of the file's.
        added: another pool file whose candidates can be asked too; shown if `cards` is None.
        held_out: also show the candidates that the file keeps from training, if `cards` is None.
        environ: where keys are looked up; None: the environment of the process and `.env`.
        run: see `open_budget`.
        budget: pays in place of the one that `params` describe. It counts recorded replies as if they
            were made now.
        max_rejected: share of the stored calls that may be put aside; see `Params`.

    Raises: PoolError if the file, its keys, the store or the cards are invalid, before any call.
    """
    if params.file is None:
        raise PoolError("pool.file: an http pool needs a pool file, e.g. pools/paper.yaml")
    file = read_pool_file(params.file, max_reply_tokens=params.max_reply_tokens)
    if added is not None:
        file = file.joined(read_pool_file(added, max_reply_tokens=params.max_reply_tokens))
    kept = () if held_out else file.held_out
    own = tuple(card for card in file.cards if card.name not in kept)
    shown = own if cards is None else tuple(cards)
    _refuse_unknown_cards(shown, file)
    if params.kind == "recorded":
        store = read_store(store_file(params), max_rejected)
        return _budgeted(RecordedPool(file, store, shown), params, budget)
    if params.calls == "replay":
        return open_replay(
            store_file(params), shown, request=file.request, max_rejected=max_rejected
        )
    environ = environment() if environ is None else environ
    keys = file.keys(environ)
    # The SDK is slow to import, and a replay does not need it.
    from routerr1.pool.client import HttpPool

    budget = budget or open_budget(params.budget, environ, run=run)
    pool = HttpPool(
        file,
        keys,
        max_concurrency=params.max_concurrency,
        budget=budget,
        cards=shown,
        seed=params.seed,
        environ=environ,
    )
    return _recorded(pool, params, max_rejected)


def asked_live(params: PoolParams) -> PoolParams:
    """A recorded pool's parameters, but its candidates are asked at their endpoints."""
    return params.replace(kind="http", store=None, redraw=0.0)


def wrap_pool(
    pool: Pool,
    params: PoolParams,
    *,
    environ: Mapping[str, str] | None = None,
    run: str = ONE_RUN,
    budget: Budget | None = None,
    max_rejected: float = 0.0,
) -> Pool:
    """Put the budget, recording or replay of `params` around an in-process pool; `pool` itself if none."""
    if params.calls == "replay":
        return open_replay(
            store_file(params), pool.cards, request=pool.request, max_rejected=max_rejected
        )
    if budget is None:
        budget = open_budget(params.budget, os.environ if environ is None else environ, run=run)
        if budget is not None:
            pool = BudgetedPool(pool, budget, max_reply_tokens=params.max_reply_tokens)
    else:
        pool = _budgeted(pool, params, budget)
    return _recorded(pool, params, max_rejected)


def _budgeted(pool: Pool, params: PoolParams, budget: Budget | None) -> Pool:
    if budget is None:
        return pool
    return BudgetedPool(pool, budget, max_reply_tokens=params.max_reply_tokens, count_cached=True)


def budget_file() -> Path:
    """The file that every run of a project shares, also a run in DVC's temporary copy of it."""
    folder = project_folder()
    return BUDGET_FILE if folder == Path.cwd() else folder / BUDGET_FILE


def store_file(params: PoolParams) -> Path:
    """The store of the parameters. DVC's temporary copy of a project records into the project's."""
    assert params.store is not None  # PoolParams checks this
    copied = params.calls != "record" and params.store.exists()
    folder = project_folder()
    return params.store if copied or folder == Path.cwd() else folder / params.store


def open_budget(
    params: BudgetParams,
    environ: Mapping[str, str],
    path: Path | None = None,
    *,
    run: str = ONE_RUN,
) -> Budget | None:
    """The budget of the run that the environment names, else of `run`; None without limits."""
    limits = Limits(params.question_usd, params.run_usd, params.month_usd)
    if limits == Limits():
        return None
    place = params.database or path or budget_file()
    return Budget(place, limits, run=environ.get(RUN_VARIABLE) or run)


def _recorded(pool: Pool, params: PoolParams, max_rejected: float) -> Pool:
    if params.calls != "record":
        return pool
    return Recorder(pool, RecordStore(store_file(params)), max_rejected=max_rejected)


def _refuse_unknown_cards(cards: Sequence[Card], file: PoolFile) -> None:
    known = {row.name for row in file.candidates}
    for card in cards:
        if card.name not in known:
            raise PoolError(
                f"{file.path}: the cards name candidate {card.name!r}, which the file lacks; "
                "run the profile stage again"
            )
