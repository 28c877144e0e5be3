"""Where the replies of `routerr1 ask` come from: a recording, servers on this machine, or a simulation."""

from routerr1.config import Params, PoolParams
from routerr1.errors import ConfigError
from routerr1.pool.build import asked_live
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.pool.provenance import read_provenance

SIMULATED = "The called models are simulated (README.md)."


def chosen_source(params: Params, live: bool | None) -> Params:
    """The parameters whose pool answers.

    Args:
        live: ask the candidates of a recorded pool at their endpoints; None does so where servers of
            its pool file run (`routerr1 pool up`).

    Raises: ConfigError for `live` without endpoints; PoolError for an invalid pool file.
    """
    pool = params.pool
    if pool.kind != "recorded" or live is False:
        if live and pool.kind == "simulated":
            raise ConfigError("--live: pool.kind is simulated, and there is no model to ask")
        return params
    if live or _servers_run(pool):
        return params.replace(pool=asked_live(pool))
    return params


def chosen_source_of_version(own: Params, here: Params, live: bool | None) -> Params:
    """As `chosen_source` for a registered version.

    Args:
        own: the version's parameters.
        here: those of the working directory; their servers count where the version's pool file has the
            same addresses.
    """
    pool = own.pool
    if live is None and pool.kind == "recorded":
        live = (
            here.pool.kind == "recorded"
            and _addresses(pool) == _addresses(here.pool)
            and _servers_run(here.pool)
        )
    return chosen_source(own, live)


def source_line(asked: PoolParams, named: PoolParams) -> str | None:
    """What a reader must know of the replies, in one line; None where the pool file says it all.

    Args:
        asked: the pool that answers.
        named: the pool of the parameters, before `chosen_source`.
    """
    if asked.kind == "simulated":
        return SIMULATED
    if asked.kind == "recorded":
        return _recorded(asked)
    if named.kind == "recorded":
        return f"The replies are live: the servers of {named.file} gave them now."
    return None


def _recorded(pool: PoolParams) -> str:
    assert pool.store is not None  # PoolParams checks this
    found = read_provenance(pool.store)
    if found is None:
        return f"The replies were recorded earlier ({pool.store})."
    *others, last = found.model_names or ("its candidates",)
    models = f"{', '.join(others)} and {last}" if others else last
    return (
        f"The replies are real: {models} gave them, recorded on {found.recorded}. "
        "While `routerr1 pool up` runs, they are asked live."
    )


def _servers_run(pool: PoolParams) -> bool:
    file = _file(pool)
    if file.servers is None:
        return False
    from routerr1.laptop.servers import running

    return running(file)


def _addresses(pool: PoolParams) -> dict[str, str]:
    return {name: each.base_url for name, each in _file(pool).endpoints.items()}


def _file(pool: PoolParams) -> PoolFile:
    assert pool.file is not None  # PoolParams checks this
    return read_pool_file(pool.file, max_reply_tokens=pool.max_reply_tokens)
