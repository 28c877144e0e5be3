"""The command line of operations: `ops install | locked | drift | notify`."""

from typing import Annotated

import typer

ops_app = typer.Typer(
    no_args_is_help=True, help="Schedules, triggers, and a check for your own CI."
)


@ops_app.command()
def install() -> None:
    """Deploy prefect.yaml to the server in PREFECT_API_URL; what is switched off there stays off."""
    import routerr1.flows  # noqa: F401 - its settings come before Prefect
    from routerr1.flows.install import install as set_up

    for line in set_up():
        typer.echo(line)


@ops_app.command()
def locked() -> None:
    """Check, without data, that dvc.lock is up to date with parameters and code.

    If not, it names the stages and ends with status 1.
    """
    from routerr1.lineage import stages_to_run

    behind = stages_to_run()
    if behind:
        typer.echo(f"dvc.lock is behind: {', '.join(behind)}; run `dvc repro` and commit dvc.lock")
        raise typer.Exit(1)
    typer.echo("dvc.lock is up to date")


@ops_app.command()
def drift(
    look: Annotated[
        bool,
        typer.Option(
            "--look",
            help="Look now: evaluate the champion, and probe the candidates. Its calls cost, and drift is "
            "reported as by the deployment evaluate-champion.",
        ),
    ] = False,
) -> None:
    """Show what the last look at champion and candidates found; status 1 for drift."""
    from rich.console import Console
    from rich.markdown import Markdown

    from routerr1.errors import DataError
    from routerr1.flows.drift import DRIFT_TITLE, PAGE

    if look:
        from routerr1.flows.triggers import run_here
        from routerr1.flows.watch import evaluate_champion

        if status := run_here("routerr1 ops drift", evaluate_champion):
            raise typer.Exit(status)
    if not PAGE.is_file():
        raise DataError(f"{PAGE}: there was no look here yet; run `routerr1 ops drift --look`")
    page = PAGE.read_text(encoding="utf-8")
    Console(markup=False, emoji=False).print(Markdown(page))
    if page.startswith(DRIFT_TITLE):
        raise typer.Exit(1)


@ops_app.command()
def notify(
    event: Annotated[
        str, typer.Argument(help="routerr1.pool.changed, routerr1.data.changed or routerr1.drift.")
    ],
    why: Annotated[str, typer.Option(help="Reason, kept in the event.")] = "by hand",
) -> None:
    """Emit an event, as a webhook of your own would: the automations start a retrain."""
    import routerr1.flows  # noqa: F401 - its settings come before Prefect
    from routerr1.flows.triggers import TRIGGERS
    from routerr1.flows.triggers import notify as emit

    if event not in TRIGGERS:
        raise typer.BadParameter(f"{event!r}; there are {', '.join(TRIGGERS)}")
    emit(event, why)
    typer.echo(f"emitted {event}")
