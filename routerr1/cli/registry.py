"""The command line of registry and promotion: register, promote, rollback, `registry list | show | log`."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from routerr1.cli.options import PARAMS, ParamsFile
from routerr1.config import load_params
from routerr1.progress import working

if TYPE_CHECKING:
    from routerr1.registry.versions import Version

_PANEL = "Registry"
Which = Annotated[str, typer.Argument(help="Number or alias of a version.")]

registry_app = typer.Typer(
    no_args_is_help=True, help="Versions of the policy, and who was champion."
)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the main one."""
    from routerr1.cli.ops import ops_app

    app.command(rich_help_panel=_PANEL)(register)
    app.command(rich_help_panel=_PANEL)(promote)
    app.command(rich_help_panel=_PANEL)(rollback)
    app.add_typer(registry_app, name="registry", rich_help_panel=_PANEL)
    app.add_typer(ops_app, name="ops", rich_help_panel=_PANEL)


def register(params: ParamsFile = PARAMS) -> None:
    """Register the chain's outputs as a version, alias challenger; the same twice is one version."""
    from routerr1.registry import versions

    with working("register"):
        made = versions.register(load_params(params))
    typer.echo(f"version {made.number} of {made.name}: {', '.join(made.aliases) or 'no alias'}")


def promote(
    which: Which = "challenger",
    why: Annotated[str | None, typer.Option(help="Reason, kept in the record of moves.")] = None,
    without_comparison: Annotated[
        bool,
        typer.Option(
            "--without-comparison",
            help="Judge by the floors of a first champion alone, where the champion cannot be compared "
            "with: its files are lost, today's code cannot play it, or the pool lacks one of its candidates. "
            "Needs --why.",
        ),
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Make a version champion, if the gate lets it; a refusal ends with status 1.

    To type it is to approve: promote.require_approval is for the flow.
    A champion that was judged on other questions or another pool is no measure:
    `python -m routerr1.flows.promote` has it play the challenger's first.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from routerr1.registry import promotion

    if without_comparison and why is None:
        raise typer.BadParameter("needs --why, which is kept", param_hint="--without-comparison")
    done = promotion.promote(
        load_params(params), which, why=why or "by hand", without_comparison=without_comparison
    )
    Console().print(Markdown(done.result.markdown))
    if done.record is not None:
        before = "none" if done.record.before is None else f"version {done.record.before}"
        typer.echo(f"champion is version {done.record.after}, was {before}")
    elif done.result.decision.passed:
        typer.echo(f"version {done.result.challenger.number} is champion already")
    else:
        typer.echo(f"refused by {', '.join(done.result.decision.refused_by)}")
        raise typer.Exit(1)


def rollback(
    why: Annotated[str, typer.Option(help="Reason, kept in the record of moves.")] = "by hand",
    params: ParamsFile = PARAMS,
) -> None:
    """Make the previous champion champion again; repeated, it goes back further."""
    from routerr1.registry import promotion

    move = promotion.rollback(load_params(params), why=why)
    typer.echo(f"champion is version {move.after}, was version {move.before}")


@registry_app.command("list")
def list_(params: ParamsFile = PARAMS) -> None:
    """Every version with its aliases, figures, and what the gate said."""
    from rich.console import Console
    from rich.table import Table

    from routerr1.registry import versions
    from routerr1.tracking.store import open_client, redact, tracking_uri

    name = load_params(params).registry.model
    table = Table(title=f"{name} at {redact(tracking_uri())}")
    for column in ("", "aliases", "made (UTC)", "EM", "USD/1000", "gate", "commit"):
        table.add_column(column, no_wrap=True)
    for version in versions.list_versions(open_client(), name):
        table.add_row(*_row(version))
    Console().print(table)


def _row(version: "Version") -> tuple[str, ...]:
    tags = version.tags
    return (
        str(version.number),
        "\n".join(version.aliases),
        datetime.fromtimestamp(version.created_s, UTC).isoformat(" ", "minutes").partition("+")[0],
        _figure(tags.get("metric.em"), 1, 3),
        _figure(tags.get("metric.cost_usd"), 1000, 4),
        tags.get("gate", "not asked"),
        tags.get("git_commit", "?")[:7],
    )


def _figure(text: str | None, scale: float, digits: int) -> str:
    return "?" if text is None else f"{float(text) * scale:.{digits}f}"


@registry_app.command("show")
def show(
    which: Which = "champion",
    params: ParamsFile = PARAMS,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """One version with its whole lineage."""
    from dataclasses import asdict

    from routerr1.registry import versions
    from routerr1.tracking.store import open_client

    version = versions.get_version(open_client(), load_params(params).registry.model, which)
    if as_json:
        typer.echo(json.dumps(asdict(version), indent=2, sort_keys=True))
        return
    typer.echo(f"version {version.number} of {version.name}: {', '.join(version.aliases)}")
    typer.echo(f"run {version.run_id}, logged model {version.model_id}")
    width = max(map(len, version.tags), default=0)
    for key in sorted(version.tags):
        typer.echo(f"  {key:<{width}}  {version.tags[key]}")


@registry_app.command("log")
def log(params: ParamsFile = PARAMS) -> None:
    """Every move of the champion, oldest first: who, when, from, to, why."""
    from routerr1.registry import promotion
    from routerr1.tracking.store import open_client

    name = load_params(params).registry.model
    for move in promotion.promotion_log(open_client(), name):
        before = "none" if move.before is None else str(move.before)
        typer.echo(
            f"{move.seq:>4}  {move.when}  {move.kind:<8}  {before} -> {move.after}  "
            f"{move.who}  {move.state}  {move.why}"
        )
