"""The command line of shared benchmarks: `bench routerarena | llmrouterbench | routerbench | log`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routerr1.cli.options import PARAMS, ParamsFile

if TYPE_CHECKING:
    from routerr1.baselines.published import Benchmark

app = typer.Typer(no_args_is_help=True, help="Shared benchmarks of routers, in their own layouts.")

Folder = Annotated[Path, typer.Argument(help="The files as they are published.")]
Out = Annotated[Path, typer.Option(help="Where NAME.json and NAME.md go.")]
Models = Annotated[str, typer.Option(help="Models to compare, separated by commas; default: all.")]
Questions = Annotated[
    int, typer.Option(min=2, help="Number of questions at most, drawn by evaluate.seed.")
]
Repetitions = Annotated[int, typer.Option(min=1, help="Random halvings, of two folds each.")]


@app.command()
def routerarena(
    dataset: Annotated[
        Path, typer.Argument(help="dataset/router_data_10.json or router_data.json of RouterArena.")
    ],
    router: Annotated[
        str, typer.Option(help="policy, best_single, a baseline such as knn, or a candidate.")
    ],
    name: Annotated[str, typer.Option(help="Name of the router in RouterArena.")] = "routerr1",
    out: Annotated[Path, typer.Option(help="A clone of RouterArena, or any folder.")] = Path(
        "data/routerarena"
    ),
    rename: Annotated[
        list[str] | None,
        typer.Option(help="OURS=THEIRS: the name of a candidate in RouterArena; may be repeated."),
    ] = None,
    choose_only: Annotated[
        bool,
        typer.Option("--choose-only", help="Choose without a call: RouterArena calls the models."),
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Write a router's predictions as RouterArena checks and scores them."""
    from routerr1.config import load_params
    from routerr1.errors import ConfigError
    from routerr1.stages.bench import bench_routerarena

    pairs = [each.partition("=") for each in rename or ()]
    for ours, _, theirs in pairs:
        if not ours or not theirs:
            raise ConfigError("bench: --rename needs OURS=THEIRS")
    count, several = bench_routerarena(
        load_params(params), dataset, out, router=router, name=name,
        renamed={ours: theirs for ours, _, theirs in pairs}, call=not choose_only,
    )  # fmt: skip
    typer.echo(f"{count} predictions in {out}/router_inference/predictions/{name}.json")
    if several:
        typer.echo(
            f"{several} of them called several candidates: RouterArena prices all tokens as the last one's"
        )


@app.command()
def llmrouterbench(
    folder: Folder,
    out: Out = Path("data/bench"),
    models: Models = "",
    questions: Questions = 2000,
    repetitions: Repetitions = 5,
    params: ParamsFile = PARAMS,
) -> None:
    """Compare learned routers on LLMRouterBench's results (bench/SET/SPLIT/MODEL/*.json)."""
    _published(
        "llmrouterbench", folder, out / "llmrouterbench", models, questions, repetitions, params
    )


@app.command()
def routerbench(
    folder: Folder,
    out: Out = Path("data/bench"),
    models: Models = "",
    questions: Questions = 2000,
    repetitions: Repetitions = 5,
    params: ParamsFile = PARAMS,
) -> None:
    """Compare learned routers on RouterBench's tables (*.pkl, *.csv)."""
    _published("routerbench", folder, out / "routerbench", models, questions, repetitions, params)


@app.command()
def log(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines, gzipped or not: query_id, query, model, score; task, response and cost_usd if known."
        ),
    ],
    out: Out = Path("data/bench"),
    models: Models = "",
    questions: Questions = 2000,
    repetitions: Repetitions = 5,
    params: ParamsFile = PARAMS,
) -> None:
    """Compare learned routers on a log of replies, by the score that it holds."""
    name = file.name.removesuffix(".gz").removesuffix(".jsonl")
    _published("log", file, out / name, models, questions, repetitions, params)


def _published(
    name: "Benchmark",
    source: Path,
    out: Path,
    models: str,
    questions: int,
    repetitions: int,
    params: Path,
) -> None:
    from routerr1.config import load_params
    from routerr1.stages.bench import bench_published

    loaded = load_params(params)
    found = bench_published(
        name, source, out, loaded.baselines, loaded.evaluate,
        models=[each for each in models.split(",") if each], limit=questions, repetitions=repetitions,
    )  # fmt: skip
    typer.echo(f"{found.n} questions, {len(found.routers)} routers: {out}.md")
