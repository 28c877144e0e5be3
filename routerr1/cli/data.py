"""`routerr1 data`: bring in own questions, look at what there is, accept it as the new normal."""

from pathlib import Path
from typing import Annotated

import typer

from routerr1.cli.options import PARAMS, ParamsFile

app = typer.Typer(no_args_is_help=True)
IMPORTED = Path("data/imported")  # as in `serve.feedback`, which takes seconds to import
_FOLDER = typer.Option(help="Folder of the split files.")


def split_names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def known_task(task: str | None) -> str | None:
    """The task, if a verifier knows it.

    Raises: DataError naming the tasks that there are.
    """
    from routerr1.answers.verifiers import tasks
    from routerr1.errors import DataError

    if task is not None and task not in tasks():
        raise DataError(f"--task {task}: must be one of {', '.join(tasks())}")
    return task


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help=".jsonl, .ndjson, .json, .csv or .tsv (each may end in .gz), .parquet or .xlsx"
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the data set, in results and tables.")],
    question: Annotated[
        str, typer.Option(help="Column of the question, or of the messages of a conversation.")
    ],
    answers: Annotated[
        str,
        typer.Option(
            help="Column of the answers: a list, or one answer. The column of messages: the last of the assistant."
        ),
    ],
    hops: Annotated[str | None, typer.Option(help="Column of the number of facts needed.")] = None,
    topic: Annotated[
        str | None, typer.Option(help="Column of the topic; without it, topics are found.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="How answers are verified: short (default), choice, number, long, code or judge."
        ),
    ] = None,
    options: Annotated[
        str, typer.Option(help="Columns of the options to choose from, with commas, e.g. A,B,C,D.")
    ] = "",
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="With --task number: relative tolerance.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Column of the id.")] = None,
    metadata: Annotated[str | None, typer.Option(help="Column of a JSON object to keep.")] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between several answers in one cell, e.g. '|'.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Column that says train, validation or test; without it, rows are drawn."
        ),
    ] = None,
    test: Annotated[float, typer.Option(help="Share held out for the test split.")] = 0.2,
    validation: Annotated[float, typer.Option(help="Share held out for validation.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 42,
    header: Annotated[
        str, typer.Option(help="Column names, with commas, of a CSV file without a header line.")
    ] = "",
    marker: Annotated[
        str | None,
        typer.Option(help="The answer is what follows the last of this, e.g. '####' in GSM8K."),
    ] = None,
    matching: Annotated[
        str,
        typer.Option(
            help="How answers are compared: text (any language, numbers as numbers) or squad (the paper's)."
        ),
    ] = "text",
    meaning: Annotated[
        bool,
        typer.Option(
            help="Find topics, and keep questions that ask the same in one split; takes seconds."
        ),
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = IMPORTED,
) -> None:
    """Turn a file of questions into rows that params.yaml can name, and report what was refused."""
    from routerr1.baselines.embed import MINILM, embedder
    from routerr1.cli.importing import held_out_hint, hints, with_remedy
    from routerr1.config import ColumnsParams
    from routerr1.data.imported import KNOWN, Shares, import_file, remember
    from routerr1.errors import DataError
    from routerr1.matching import RULES
    from routerr1.types import SPLITS

    if out == IMPORTED and not PARAMS.is_file():
        raise DataError(f"no {PARAMS} here; run this in the folder of your {PARAMS}, or name --out")
    if (rule := next((each for each in RULES if each == matching), None)) is None:
        raise DataError(f"--matching {matching}: must be one of {', '.join(RULES)}")
    columns = ColumnsParams(
        id=id_, question=question, golden_answers=answers, hops=hops, metadata=metadata,
        separator=separator, marker=marker, topic=topic,
        options=tuple(split_names(options)), task=known_task(task), tolerance=tolerance,
    )  # fmt: skip
    with with_remedy(file):
        found = import_file(
            file, name, columns,
            out=out, shares=Shares(test, validation), split_column=split, seed=seed, matching=rule,
            header=split_names(header),
            embed=(lambda texts: embedder(MINILM, 0).embed(texts)) if meaning else None,
        )  # fmt: skip
    remember(found.path)
    for name_ in sorted({*SPLITS} - {*found.rows}):
        typer.echo(
            f"no question in {name_}: the checks will refuse that; import more rows, or raise --{name_}"
        )
    typer.echo("\n".join(found.lines()))
    few = [] if split else held_out_hint(found, test)
    typer.echo("".join(f"{hint}\n" for hint in (*hints(found), *few)), nl=False)
    typer.echo(f"To use it, in {PARAMS} under dataset:  imported: [{', '.join(_with(found.path))}]")
    typer.echo(
        f"To keep it:  dvc add {found.path.as_posix()}, and commit its .dvc file and {KNOWN}"
    )


def _with(path: Path) -> list[str]:
    """The imported files that params.yaml itself names, and `path` if it is not one of them."""
    from routerr1.files import read_yaml

    # The file alone is read: an import must not depend on whether all its values fit together.
    values = read_yaml(PARAMS) if PARAMS.is_file() else None
    dataset = values.get("dataset") if isinstance(values, dict) else None
    named = dataset.get("imported") if isinstance(dataset, dict) else None
    return list(dict.fromkeys(map(str, (*(named or ()), path.as_posix()))))


@app.command()
def show(
    params: ParamsFile = PARAMS,
    folder: Annotated[Path, _FOLDER] = Path("data/questions"),
) -> None:
    """Show rows per data set and split, hops, lengths, sources, licences and digests."""
    from rich.console import Console
    from rich.table import Table

    from routerr1.config import load_params
    from routerr1.data import card
    from routerr1.lineage import dvc_digest

    groups = card.describe(folder)
    origins = card.sources(load_params(params).dataset, sorted({place[0] for place in groups}))
    tables = (
        (card.HEADINGS, [[*place, *group.cells()] for place, group in groups.items()]),
        (("data set", "source", "licence"), [list(row) for row in origins]),
        (("file", "SHA-256"), [list(item) for item in card.digests(folder).items()]),
    )
    console = Console(markup=False, emoji=False)
    for headings, rows in tables:
        table = Table(*headings)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"DVC digest of {folder}: {dvc_digest(folder)}")


@app.command()
def card(
    folder: Annotated[Path, _FOLDER] = Path("data/questions"),
    checks: Annotated[Path, typer.Option(help="Folder of the checks.")] = Path("data/checks"),
) -> None:
    """Print the data card: rows, sources, what was left out and why, digests, and what the checks found."""
    from rich.console import Console
    from rich.markdown import Markdown

    from routerr1.data.card import findings, read

    Console(markup=False, emoji=False).print(Markdown(f"{read(folder)}\n{findings(checks)}"))


@app.command()
def accept(
    params: ParamsFile = PARAMS,
    checks: Annotated[Path, typer.Option(help="Folder of the checks.")] = Path("data/checks"),
) -> None:
    """Accept the checked data as the reference that drift of later data is measured against."""
    from routerr1.config import load_params
    from routerr1.data.drift import accept_profile

    path = load_params(params).checks.accepted
    accept_profile(checks, path)
    typer.echo(f"{path}: written; commit it, and run the checks again")


@app.command("from-feedback")
def from_feedback(
    name: Annotated[str, typer.Option(help="Name of the data set.")] = "feedback",
    remove: Annotated[
        list[str] | None,
        typer.Option(
            help="What is removed from texts: email, iban, card, phone, address, key, or a regular "
            "expression; may be repeated. Without it: all six."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="How their answers are verified: short (default), long, number, ..."),
    ] = None,
    test: Annotated[float, typer.Option(help="Share held out for the test split.")] = 0.2,
    validation: Annotated[float, typer.Option(help="Share held out for validation.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 42,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = IMPORTED,
    at_least: Annotated[
        int, typer.Option(min=1, help="Do nothing, with status 0, if fewer answers are new.")
    ] = 1,
    notify: Annotated[
        bool, typer.Option("--notify", help="Emit routerr1.data.changed, which starts a retrain.")
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Make questions of what was said of the gateway's answers; only with consent, and once each."""
    from routerr1.cli.importing import hints
    from routerr1.config import load_params
    from routerr1.data.imported import Shares
    from routerr1.serve.assessments import assessed
    from routerr1.serve.feedback import PERSONAL, TooFew, import_feedback
    from routerr1.serve.store import Store, database_of

    known = load_params(params)
    known_task(task)
    store = Store(database_of(known.serve))
    try:
        made, skipped = import_feedback(
            store, name, [*PERSONAL] if remove is None else remove,
            out=out, shares=Shares(test, validation), seed=seed, at_least=at_least, task=task,
            assessed=assessed(known.registry.experiment, store.feedback()),
        )  # fmt: skip
    except TooFew as few:
        typer.echo(str(few))
        return
    finally:
        store.close()
    typer.echo(f"{made.path}: {sum(made.rows.values())} rows, {sum(made.refused.values())} refused")
    typer.echo(
        f"not used: {skipped.no_consent} without consent, {skipped.no_answer} without a right "
        f"answer, {skipped.no_question} without a question"
    )
    if known.serve.keep != "full" and skipped.no_answer + skipped.no_question:
        typer.echo(
            f"serve.keep is {known.serve.keep}: the gateway keeps neither questions nor the answers that users "
            "confirm; with full it does"
        )
    for hint in hints(made):
        typer.echo(hint)
    typer.echo(f"To use it, in {params} under dataset:  imported: [{', '.join(_with(made.path))}]")
    if notify:
        import routerr1.flows  # noqa: F401 - its settings come before Prefect
        from routerr1.flows.triggers import DATA_CHANGED
        from routerr1.flows.triggers import notify as emit

        emit(DATA_CHANGED, f"feedback of {sum(made.rows.values())} requests")
        typer.echo(f"emitted {DATA_CHANGED}")
