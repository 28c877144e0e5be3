"""The command line of operations: `ops install | locked | notify`."""

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
    """Is dvc.lock up to date with parameters and code? Needs no data; status 1 and the stages if not."""
    from routerr1.lineage import stages_to_run

    behind = stages_to_run()
    if behind:
        typer.echo(f"dvc.lock is behind: {', '.join(behind)}; run `dvc repro` and commit dvc.lock")
        raise typer.Exit(1)
    typer.echo("dvc.lock is up to date")


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
