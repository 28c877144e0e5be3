"""The command line: a sub-command for each stage of dvc.yaml, and commands around them.

A command imports what it needs when it runs, so that help answers at once. The package's own errors are
printed as one line and end with status 2; any other error is a bug and keeps its traceback.
"""

import errno
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routerr1.cli.bench import app as bench_app
from routerr1.cli.data import app as data_app
from routerr1.cli.init import add_command as add_init
from routerr1.cli.options import PARAMS, ParamsFile
from routerr1.cli.pool import app as pool_app
from routerr1.cli.registry import add_commands
from routerr1.cli.serve import add_serving
from routerr1.errors import RouterError

if TYPE_CHECKING:
    from routerr1.config import Params

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"routerr1 {metadata.version('routerr1')}")
        raise typer.Exit


@app.callback(
    epilog="Run all stages: `dvc repro`. Then: `routerr1 ask 'What is the capital of France?'`"
)
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train a small LLM to route questions over a pool of LLMs, and operate it."""


def main() -> None:
    """Entry point of the `routerr1` command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("routerr1").setLevel(logging.INFO)
    # The libraries of a stage make 300,000 objects that stay. Looking for garbage after every 700 of them
    # takes 5 to 15 % of a short stage's time (measured).
    gc.set_threshold(10_000)
    # Threads that spin while they wait reduce a busy machine to a third of its speed (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # These warnings are for the developers of libraries, not for users.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        app()
    except RouterError as error:
        typer.echo(f"routerr1: {error}", err=True)
        raise SystemExit(2) from None
    except OSError as error:
        if (told := not_writable(error)) is None:
            raise
        typer.echo(f"routerr1: {told}", err=True)
        raise SystemExit(2) from None


def not_writable(error: OSError) -> str | None:
    """The line for a file that cannot be written; None for any other error."""
    if error.errno not in _NOT_WRITABLE:
        return None
    # pyarrow names the file in its words alone.
    words = str(error.strerror).partition("\n")[0]
    return words if error.filename is None else f"{error.filename}: {words}"


def limit_threads(params: "Params") -> None:
    """Compute with a policy made from scratch on one thread, unless OMP_NUM_THREADS says otherwise.

    Sums round alike on any number of cores. A second thread trains 13 % faster on a quiet machine and takes
    three times the CPU time on a busy one (measured). It must be called before torch is imported.
    """
    if params.model.init == "scratch":
        os.environ.setdefault("OMP_NUM_THREADS", "1")


# A read-only or foreign folder, a full disk or quota: no mistake of the program.
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_STAGES = "Stages, in the order of dvc.yaml"
_BY_DVC = "`dvc repro` runs this only if its inputs have changed; by hand it always runs."


def _stage(name: str, summary: str, *, logs: bool = False) -> None:
    def command(params: ParamsFile = PARAMS) -> None:
        from routerr1.cli.scaffold import require_version
        from routerr1.config import load_params
        from routerr1.tracking.store import check_store

        require_version()
        loaded = load_params(params)
        limit_threads(loaded)
        if logs:  # the libraries of a stage take seconds to import
            check_store()

        run: Callable[[Params], None] = getattr(import_module(f"routerr1.stages.{name}"), name)
        run(loaded)

    app.command(name, help=summary, epilog=_BY_DVC, rich_help_panel=_STAGES)(command)


add_init(app)  # first, so that its panel is the first of --help
_stage("dataset", "Write data/questions: embedded questions, the seven benchmarks, or your own.")
_stage("checks", "Check the questions; a failure stops the pipeline before anything is paid.")
_stage("profile", "Send probe questions to every candidate; write the cards and the answer matrix.")
_stage("warmstart", "Teach a new policy the protocol, from demonstrations with random routing.")
_stage("train", "Train the policy by reinforcement learning (GRPO).", logs=True)


@app.command(epilog=_BY_DVC, rich_help_panel=_STAGES)
def evaluate(
    pool: Annotated[
        str,
        typer.Option(
            help="`params`: the pool in params.yaml. `replay`: learned routers on recorded replies."
        ),
    ] = "params",
    log: Annotated[
        Path | None, typer.Option(help="With --pool replay: the recorded replies.")
    ] = None,
    out: Annotated[Path, typer.Option(help="With --pool replay: where results go.")] = Path(
        "data/replay"
    ),
    repetitions: Annotated[
        int, typer.Option(min=1, help="With --pool replay: random halvings, of two folds each.")
    ] = 5,
    params: ParamsFile = PARAMS,
) -> None:
    """Evaluate the policy, its controls and the baselines on the test questions, with intervals."""
    from routerr1.config import load_params
    from routerr1.errors import ConfigError
    from routerr1.tracking.store import check_store

    loaded = load_params(params)
    limit_threads(loaded)
    if pool == "params":  # the libraries of the stage take seconds to import
        check_store()
    from routerr1.stages import evaluate as stage

    match pool, log:
        case "params", None:
            stage.evaluate(loaded)
        case "replay", Path():
            stage.evaluate_replay(loaded.baselines, loaded.evaluate, log, out, repetitions)
        case "replay", None:
            raise ConfigError("evaluate: --pool replay needs --log FILE of recorded replies")
        case "params", _:
            raise ConfigError("evaluate: --log is read only with --pool replay")
        case _:
            raise ConfigError(f"evaluate: --pool {pool!r}: there are params and replay")


_stage("generalize", "Evaluate the policy on pools that it never saw.", logs=True)
_stage("report", "Write one HTML page that opens offline, with tables, plots and trajectories.")


@app.command(rich_help_panel="Use")
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    policy: Annotated[
        str,
        typer.Option(
            help="Folder of a trained policy; a version, e.g. models:/routerr1@champion; or any causal LM, as a "
            "folder or hub name."
        ),
    ] = "models/policy",
    router: Annotated[
        str | None,
        typer.Option(
            help="Answer without a policy: baseline/knn, baseline/mlp, baseline/frugal, best_single, fixed/NAME for a "
            "candidate, ...; baseline/ and fixed/ may be left out. "
            "The default where model.init is none: the router that the evaluation prefers."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the sampling; it has no effect at temperature 0.")
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="Temperature of the sampling; 0 takes the likeliest token."),
    ] = 0.0,
    other_pool: Annotated[
        bool,
        typer.Option(
            "--other-pool",
            help="Allow a policy that was trained with other candidates or prices than the pool has.",
        ),
    ] = False,
    spend: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=10,
            help="What may be spent: 0 calls the cheapest candidates only, 10 (the default) any. Only a policy "
            "that looks cards up has such levels.",
        ),
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--recorded",
            help="Ask the candidates of a recorded pool at their endpoints, or take what they said once. The "
            "default: live while servers of `routerr1 pool up` run.",
        ),
    ] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Answer one question with the trained policy, and show every thought, call and price.

    Status 1 if there is no answer.
    """
    if sys.stderr.isatty():
        typer.echo("loading; `routerr1 serve` loads once for many questions", err=True)
    # Importing torch and transformers is most of the time, and a tenth of it is looking for garbage
    # (measured). This process ends before there is any.
    gc.disable()
    from routerr1.cli import ask as asking
    from routerr1.cli.sources import chosen_source, source_line
    from routerr1.config import load_params
    from routerr1.rollout.refusal import refusal_of

    named = load_params(params)
    if router is None and policy.startswith(asking.VERSIONS):
        version = asking.ask_version(question, policy, named, spend=spend, live=live)
        played, about, source = version.trajectory, version.about, version.source
    else:
        loaded = chosen_source(named, live)
        source = source_line(loaded.pool, named.pool)
        if router is None and not loaded.has_policy and policy == "models/policy":
            router = asking.evaluated_router()
        if router is not None:
            asking.refuse_spend(spend, f"router {router}")
            played = asking.ask_router(question, router, loaded)
        else:
            played = asking.ask_once(
                question,
                policy,
                loaded,
                seed=seed,
                temperature=temperature,
                other_pool=other_pool,
                spend=spend,
            )
        about = asking.compared(question, loaded)
    for line in about:
        typer.echo(line)
    asking.show(played, source=source)
    if refusal_of(played) is not None:
        raise typer.Exit(1)


@app.command(rich_help_panel="Use")
def advise(params: ParamsFile = PARAMS) -> None:
    """Say which router is worth using here, what it costs, where it fails, and what is undecided."""
    from rich.console import Console
    from rich.markdown import Markdown

    from routerr1.cli.outages import outage
    from routerr1.config import load_params
    from routerr1.evaluate.results import EvaluationTable
    from routerr1.evaluate.rows import read_rows
    from routerr1.lineage import PATHS
    from routerr1.report.advice import advice_section
    from routerr1.report.markdown import render
    from routerr1.report.page import validation_questions

    table, rows = EvaluationTable.read(PATHS.evaluate / "table.json"), read_rows(PATHS.rows)
    if failed := outage(rows):
        typer.echo(failed, err=True)
    section = advice_section(
        table,
        rows,
        load_params(params).gate,
        validation=validation_questions(Path("data")),
    )
    Console().print(Markdown(render([section])))


@app.command(rich_help_panel="Use")
def sweep(
    cost_weights: Annotated[
        str, typer.Option(help="Weights of cost in the reward, separated by commas.")
    ] = "0,0.3,0.6,0.7,0.8,0.9",
    steps: Annotated[int, typer.Option(min=1, help="Training steps for each weight.")] = 60,
    restart: Annotated[
        bool,
        typer.Option(
            help="--restart: each weight starts from the policy of the weight before; --no-restart: from the "
            "warm start."
        ),
    ] = True,
    params: ParamsFile = PARAMS,
) -> None:
    """Train once for each weight of cost, and compare cost and quality with all other routers.

    It takes as long as that many trainings, six by default.
    """
    from routerr1.config import load_params
    from routerr1.errors import ConfigError
    from routerr1.stages.sweep import sweep as run_sweep

    message = f"sweep: --cost-weights {cost_weights!r}: must be numbers from 0 to 1"
    try:
        weights = [float(part) for part in cost_weights.split(",")]
    except ValueError:
        raise ConfigError(message) from None
    if not all(0 <= weight <= 1 for weight in weights):
        raise ConfigError(message)
    run_sweep(load_params(params), weights, steps, restart=restart)


@app.command(rich_help_panel="Use")
def compare(
    one: Annotated[str, typer.Argument(metavar="A", help="A router, e.g. policy.")],
    other: Annotated[
        str, typer.Argument(metavar="B", help="Another router, e.g. baseline/knn, or knn.")
    ],
    rows: Annotated[Path, typer.Option(help="Rows of an evaluation.")] = Path(
        "data/eval/rows.parquet"
    ),
    params: ParamsFile = PARAMS,
) -> None:
    """Show two evaluated routers side by side, with their paired difference on the same questions."""
    from rich.console import Console

    from routerr1.config import load_params
    from routerr1.evaluate.rows import read_rows
    from routerr1.report.terminal import side_by_side

    Console(markup=False, emoji=False).print(
        side_by_side(read_rows(rows), one, other, load_params(params).evaluate)
    )


for _name, _commands, _summary in (
    ("data", data_app, "Import and inspect questions."),
    ("bench", bench_app, "Compare routers on shared benchmarks, in their own layouts."),
    ("pool", pool_app, "Check, price, record, serve and inspect candidates."),
):
    app.add_typer(_commands, name=_name, help=_summary, rich_help_panel="Questions and candidates")
add_commands(app)
add_serving(app)


if __name__ == "__main__":
    main()
