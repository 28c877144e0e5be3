"""`routerr1 serve` and `routerr1 keys`: the gateway and who may ask it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routerr1.cli.options import PARAMS, ParamsFile

if TYPE_CHECKING:
    from routerr1.serve.store import Store

keys_app = typer.Typer(no_args_is_help=True, help="API keys of the gateway.")
_PANEL = "Use"


def add_serving(app: typer.Typer) -> None:
    """Add the commands to the main one."""
    app.command(rich_help_panel=_PANEL)(serve)
    app.add_typer(keys_app, name="keys", rich_help_panel=_PANEL)


def serve(
    model: Annotated[
        str | None,
        typer.Option(help="A registered version: models:/NAME@ALIAS or models:/NAME/NUMBER."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Folder of a trained policy, in place of a version.")
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(
            help="A router of the evaluation, e.g. baseline/knn or fixed/NAME, in place of a version; baseline/ and "
            "fixed/ may be left out."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: serve.host.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, 0 for a free one; default: serve.port."),
    ] = None,
    pool_file: Annotated[
        Path | None, typer.Option(help="Pool file, in place of the one of parameters or version.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Ask the candidates of a recorded pool at their endpoints."),
    ] = False,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Let simulated candidates answer; what they say is made up."),
    ] = False,
    page: Annotated[
        bool, typer.Option("--ui/--no-ui", help="Serve the page for people at /.")
    ] = True,
    params: ParamsFile = PARAMS,
) -> None:
    """Serve a policy or a router behind OpenAI's protocol, by default the champion."""
    from routerr1.config import load_params
    from routerr1.errors import ConfigError
    from routerr1.tracking.store import check_store

    if sum(each is not None for each in (model, policy, router)) > 1:
        raise ConfigError("serve: --model, --policy and --router exclude each other")
    loaded = load_params(params)
    if policy is None and router is None:  # a version
        check_store()  # the server's libraries take seconds to import
    from routerr1.serve.build import Choices
    from routerr1.serve.run import Source, run
    from routerr1.serve.store import database_of

    section = loaded.serve.replace(
        database=database_of(loaded.serve),
        host=loaded.serve.host if host is None else host,
        port=loaded.serve.port if port is None else port,
    )
    logging.getLogger("routerr1").setLevel(logging.INFO)
    source = Source(model=model, policy=policy, router=router)
    choices = Choices(
        demo=demo,
        live=live,
        pool_file=pool_file,
        database=section.database,
        generator_url=section.generator.url if section.generator is not None else None,
        topics=section.topics,
    )
    run(source, loaded.replace(serve=section), choices, ready=_say_ready, page=page)


def _say_ready(address: str) -> None:
    typer.echo(f"serving on {address}")


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    rate: Annotated[int | None, typer.Option(min=1, help="Most requests a minute.")] = None,
    month_usd: Annotated[
        float | None, typer.Option(min=0, help="Most US dollars a calendar month.")
    ] = None,
    max_spend: Annotated[
        float | None, typer.Option(min=0, max=10, help="Highest spend level.")
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(help="Names of candidates it may reach, separated by commas.")
    ] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Make a key and print it; only its digest is kept, so it is shown this once."""
    from routerr1.serve.keys import new_key

    allowed = None if candidates is None else frozenset(map(str.strip, candidates.split(",")))
    secret, key = new_key(
        name, rate_per_minute=rate, month_usd=month_usd, max_spend=max_spend, candidates=allowed
    )
    with _opened(params) as store:
        store.add_key(key)
    typer.echo(secret)


@keys_app.command("list")
def list_(params: ParamsFile = PARAMS) -> None:
    """List every key by name, with its limits."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("name", "id", "requests/min", "USD/month", "spend", "candidates"):
        table.add_column(column)
    with _opened(params) as store:
        for key in store.read_keys():
            shown = "all" if key.candidates is None else ", ".join(sorted(key.candidates))
            limits = (key.rate_per_minute, key.month_usd, key.max_spend)
            table.add_row(
                key.name, key.id, *("-" if each is None else f"{each:g}" for each in limits), shown
            )
    Console().print(table)


@keys_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Whose key it is.")], params: ParamsFile = PARAMS
) -> None:
    """Forget a key; running gateways refuse it within seconds."""
    with _opened(params) as store:
        store.remove_key(name)


@contextmanager
def _opened(params: Path) -> Iterator["Store"]:
    from routerr1.config import load_params
    from routerr1.serve.store import Store, database_of

    store = Store(database_of(load_params(params).serve))
    try:
        yield store
    finally:
        store.close()
