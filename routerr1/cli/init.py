"""The command `routerr1 init`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def add_command(app: typer.Typer) -> None:
    """Add the command to the main one."""
    app.command(rich_help_panel="Start")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="New folder of the workspace.")],
    questions: Annotated[
        Path | None, typer.Option(help="Your questions: .csv, .jsonl, .json, .parquet or .xlsx.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="Column of the question.")] = None,
    answers: Annotated[
        str | None, typer.Option(help="Column of the answers: a list, or one answer.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Column of the topic; without it, topics are found.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between several answers in one cell, e.g. '|'.")
    ] = None,
    marker: Annotated[
        str | None,
        typer.Option(help="The answer is what follows the last of this, e.g. '####' in GSM8K."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="How answers are verified: short, choice, number, long, code or judge."),
    ] = None,
    options: Annotated[
        str, typer.Option(help="Columns of the options to choose from, with commas, e.g. A,B,C,D.")
    ] = "",
    pool: Annotated[Path | None, typer.Option(help="Pool file of your models.")] = None,
) -> None:
    """Make a workspace for your own questions and models; `dvc repro` in it trains and evaluates.

    In a terminal it asks for what is missing; without a terminal it leaves it to fill in.
    """
    from routerr1.baselines.embed import MINILM, embedder
    from routerr1.cli.data import known_task, split_names
    from routerr1.cli.importing import hints, with_remedy
    from routerr1.cli.scaffold import Own, make_workspace, require_new
    from routerr1.config import ColumnsParams
    from routerr1.errors import ConfigError

    require_new(folder)  # before anything is asked
    if questions is not None and not questions.is_file():
        raise ConfigError(f"init: --questions {questions}: not found")
    if sys.stdin.isatty():
        questions = questions or _asked_file("File of your questions")
        pool = pool or _asked_file("Pool file of your models")
        if questions is not None:
            question = question or _asked_column("Column of the question", questions, "question")
            answers = answers or _asked_column("Column of the answers", questions, "answers")
    if questions is not None and (question is None or answers is None):
        raise ConfigError(
            "init: --questions needs --question COLUMN and --answers COLUMN, as the file names them"
        )
    columns = ColumnsParams(
        id=None, question=question or "", golden_answers=answers or "", metadata=None,
        separator=separator, topic=topic, marker=marker, task=known_task(task),
        options=tuple(split_names(options)),
    )  # fmt: skip
    own = Own(questions, columns, pool)
    with with_remedy((questions or folder).resolve()):
        made = make_workspace(folder, own, embed=lambda texts: embedder(MINILM, 0).embed(texts))
    if made.imported is not None:
        typer.echo("\n".join(made.imported.lines()))
        found = made.imported._replace(path=folder / made.imported.path)
        typer.echo("".join(f"{hint}\n" for hint in hints(found)), nl=False)
    if made.repository is not None:
        typer.echo(f"{folder}: was committed to the git repository around it, {made.repository}")
    typer.echo(f"{folder}: is a workspace. Next:")
    typer.echo(f"  cd {folder}")
    if made.pool is None:
        typer.echo("  edit pools/mine.yaml          # your models, their addresses and prices")
    elif any(endpoint.key_env for endpoint in made.pool.endpoints.values()):
        typer.echo("  cp .env.example .env          # fill in the keys")
    if made.imported is None:
        typer.echo("  routerr1 data import FILE --name NAME --question COLUMN --answers COLUMN")
    typer.echo("  routerr1 pool check pools/mine.yaml")
    typer.echo("  dvc repro                     # writes data/report/index.html")


def _asked_file(what: str) -> Path | None:
    """A file that exists, asked for until one is named; None for an empty answer."""

    def there(given: str) -> Path | None:
        path = Path(given).expanduser()  # no shell has read it
        if given and not path.is_file():
            raise typer.BadParameter(f"{given}: not found")
        return path if given else None

    found: Path | None = typer.prompt(
        f"{what} (empty: later)", default="", show_default=False, value_proc=there
    )
    return found


def _asked_column(what: str, file: Path, default: str) -> str:
    """A column of `file`, asked for until one is named.

    Raises: DataError if the file cannot be read.
    """
    from routerr1.cli.importing import with_remedy
    from routerr1.data.sources import read_rows
    from routerr1.errors import DataError

    with with_remedy(file):
        next(read_rows(file, []), None)  # of a broken file no answer would do

    def there(given: str) -> str:
        try:
            next(read_rows(file, [given]), None)
        except DataError as error:
            raise typer.BadParameter(str(error)) from None
        return given

    found: str = typer.prompt(what, default=default, value_proc=there)
    return found
