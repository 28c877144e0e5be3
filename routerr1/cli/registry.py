"""The command line of registry and promotion: register, promote, rollback, `registry list | show | log`."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from routerr1.cli.options import PARAMS, ParamsFile
from routerr1.config import load_params
from routerr1.jobs.progress import working

if TYPE_CHECKING:
    from routerr1.registry.versions import Version

_BY_INTERVAL = {"em_difference", "best_single", "best_learned"}  # judged by the lower end
_PANEL = "Registry"
Which = Annotated[str, typer.Argument(help="Number or alias of a version.")]

registry_app = typer.Typer(
    no_args_is_help=True, help="Versions of the policy and the record of champions."
)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the main one."""
    from routerr1.cli.ops import ops_app

    app.command(rich_help_panel=_PANEL)(register)
    app.command(rich_help_panel=_PANEL)(promote)
    app.command(rich_help_panel=_PANEL)(rollback)
    app.add_typer(registry_app, name="registry", rich_help_panel=_PANEL)
    app.add_typer(ops_app, name="ops", rich_help_panel=_PANEL)


def register(
    router: Annotated[
        str | None,
        typer.Option(
            help="Router to register: policy, baseline/knn, baseline/mlp, baseline/frugal, best_single, fixed/NAME for "
            "a candidate, ...; baseline/ and fixed/ may be left out. "
            "Default: the policy; without one, the router that the evaluation prefers."
        ),
    ] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Register the outputs of the stages as a version with the alias challenger; once per state and router."""
    from routerr1.tracking.store import check_store

    loaded = load_params(params)
    check_store()  # the registry's libraries take seconds to import
    from routerr1.registry import versions

    with working("register"):
        made = versions.register(loaded, router=router)
    typer.echo(f"version {made.number} of {made.name}: {', '.join(made.aliases) or 'no alias'}")


def promote(
    which: Which = "challenger",
    why: Annotated[str | None, typer.Option(help="Reason, kept in the promotion log.")] = None,
    without_comparison: Annotated[
        bool,
        typer.Option(
            "--without-comparison",
            help="Judge by the floors of a first champion, without a comparison. For a champion that cannot "
            "be evaluated: its files are lost, the code has changed, or the pool lacks a candidate. Needs --why.",
        ),
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Make a version champion if it passes the gate; a refusal ends with status 1.

    Running this command counts as approval; promote.require_approval applies to the flow.
    A champion that was judged on other questions or another pool cannot be compared:
    `python -m routerr1.flows.promote` evaluates it on the challenger's questions first.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from routerr1.registry import promotion

    if without_comparison and why is None:
        raise typer.BadParameter("needs --why, which is kept", param_hint="--without-comparison")
    done = promotion.promote(
        load_params(params), which, why=why or "by hand", without_comparison=without_comparison
    )
    Console(markup=False, emoji=False).print(Markdown(done.result.markdown))
    if done.record is not None:
        before = "none" if done.record.before is None else f"version {done.record.before}"
        typer.echo(f"champion is version {done.record.after}, was {before}")
    elif done.result.decision.passed:
        typer.echo(f"version {done.result.challenger.number} is champion already")
    else:
        typer.echo(f"refused by {', '.join(done.result.decision.refused_by)}")
        for refusal in done.result.decision.refusals:
            typer.echo(f"  {refusal}")
        if _BY_INTERVAL & {*done.result.decision.refused_by}:
            typer.echo("more test questions narrow an interval; `routerr1 advise` says how many")
        number = done.result.challenger.number
        typer.echo(
            f"the limits: gate in {params}; to serve it all the same: "
            f"routerr1 serve --model models:/{done.result.challenger.name}/{number}"
        )
        if done.result.champion is not None:
            typer.echo("the champion's report: routerr1 registry report")
        raise typer.Exit(1)


def rollback(
    why: Annotated[str, typer.Option(help="Reason, kept in the promotion log.")] = "by hand",
    params: ParamsFile = PARAMS,
) -> None:
    """Make the previous champion champion again; each repetition goes back one further."""
    from routerr1.registry import promotion

    move = promotion.rollback(load_params(params), why=why)
    typer.echo(f"champion is version {move.after}, was version {move.before}")


@registry_app.command("list")
def list_(params: ParamsFile = PARAMS) -> None:
    """List every version with its aliases, metrics and the verdict of the gate; a + marks uncommitted changes."""
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
    Console(markup=False, emoji=False).print(table)


def _row(version: "Version") -> tuple[str, ...]:
    from routerr1.registry.contents import commit_of

    tags = version.tags
    return (
        str(version.number),
        "\n".join(version.aliases),
        datetime.fromtimestamp(version.created_s, UTC).isoformat(" ", "minutes").partition("+")[0],
        _figure(tags.get("metric.em"), 1, 3),
        _figure(tags.get("metric.cost_usd"), 1000, 4),
        tags.get("gate", "not asked"),
        commit_of(tags),
    )


def _figure(text: str | None, scale: float, digits: int) -> str:
    return "?" if text is None else f"{float(text) * scale:.{digits}f}"


@registry_app.command("show")
def show(
    which: Which = "champion",
    params: ParamsFile = PARAMS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show one version: description, lineage, training, metrics and the verdict of the gate."""
    from dataclasses import asdict

    from routerr1.registry import versions
    from routerr1.tracking.store import open_client

    version = versions.get_version(open_client(), load_params(params).registry.model, which)
    if as_json:
        typer.echo(json.dumps(asdict(version), indent=2, sort_keys=True))
        return
    typer.echo(f"version {version.number} of {version.name}: {', '.join(version.aliases)}")
    typer.echo(f"run {version.run_id}, logged model {version.model_id}")
    typer.echo(version.description)
    width = max(map(len, version.tags), default=0)
    group = ""
    for key in sorted(version.tags):
        if (own := key.partition(".")[0]) != group:
            group = own
            typer.echo(f"{group}:")
        typer.echo(f"  {key:<{width}}  {version.tags[key]}")


@registry_app.command("report")
def report(which: Which = "champion", params: ParamsFile = PARAMS) -> None:
    """Copy the report that was registered with a version to runs/reports, and print its path."""
    from routerr1.registry import versions
    from routerr1.tracking.store import open_client

    name = load_params(params).registry.model
    typer.echo(versions.save_report(versions.get_version(open_client(), name, which)))


@registry_app.command("log")
def log(params: ParamsFile = PARAMS) -> None:
    """List every change of the champion, oldest first, with its author and reason."""
    from routerr1.registry import promotion
    from routerr1.tracking.store import open_client

    name = load_params(params).registry.model
    for move in promotion.promotion_log(open_client(), name):
        before = "none" if move.before is None else str(move.before)
        typer.echo(
            f"{move.seq:>4}  {move.when}  {move.kind:<8}  {before} -> {move.after}  "
            f"{move.who}  {move.state}  {move.why}"
        )
