"""`routerr1 pool ...`: what one does with candidates outside the chain."""

from pathlib import Path
from typing import Annotated

import typer

from routerr1.cli.options import PARAMS, ParamsFile

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def serve(
    params: ParamsFile = PARAMS,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8399,
    faults: Annotated[
        str,
        typer.Option(
            help="Share of requests that go wrong, e.g. 0.3 spread over all kinds, or "
            "rate_limit=0.1,hang=0.05,hang_s=30. Kinds: rate_limit, server_error, hang, cut, broken_json, "
            "empty_choice, huge, tags, slow."
        ),
    ] = "0",
    seed: Annotated[int, typer.Option(help="Decides which request meets which fault.")] = 0,
    time_scale: Annotated[
        float, typer.Option(min=0.0, help="Seconds slept for each simulated second; 0: none.")
    ] = 1.0,
    drawn: Annotated[
        int | None,
        typer.Option(help="Seed of a pool drawn at random, in place of the default pool."),
    ] = None,
) -> None:
    """Serve the simulated pool over HTTP, as an OpenAI-compatible server. A simulation: answers are made up."""
    from rich.console import Console

    from routerr1.config import load_params
    from routerr1.data.embedded import build_world
    from routerr1.simulation.candidates import candidates_of, drawn_candidates
    from routerr1.simulation.facts import known_facts
    from routerr1.simulation.faults import parse_faults
    from routerr1.simulation.pool import SimulatedPool
    from routerr1.simulation.server import build_app, serve_forever

    loaded = load_params(params)
    candidates = candidates_of(loaded.pool.candidates) if drawn is None else drawn_candidates(drawn)
    known = known_facts(build_world(loaded.dataset.embedded))
    pool = SimulatedPool(candidates, known, seed=loaded.pool.seed)
    served = build_app(pool, faults=parse_faults(faults), seed=seed, time_scale=time_scale)
    names = ", ".join(candidate.name for candidate in candidates)

    def tell(url: str) -> None:
        Console(stderr=True).print(
            f"simulated pool at {url}/v1 ({names}); counts at {url}/stats", soft_wrap=True
        )

    serve_forever(served, host, port, ready=tell)


@app.command("import")
def import_(
    log: Annotated[
        Path,
        typer.Argument(help="A file as `data import` takes: query_id, query, model, response, ..."),
    ],
    store: Annotated[Path, typer.Argument(help="Store of recorded calls; made if absent.")],
    file: Annotated[
        Path, typer.Option(help="Pool file whose candidates the log's models are.")
    ] = Path("pools/paper.yaml"),
    params: ParamsFile = PARAMS,
) -> None:
    """Take a log of calls made elsewhere into a store that a replay answers from."""
    from rich.console import Console

    from routerr1.config import load_params
    from routerr1.jobs.progress import track
    from routerr1.pool.importing import import_log
    from routerr1.pool.pool_file import read_pool_file

    given = load_params(params)
    pool_file = read_pool_file(file, max_reply_tokens=given.pool.max_reply_tokens)
    with track("import", 0) as bar:
        done = import_log(
            log, store, pool_file, max_rejected=given.max_rejected, progress=bar.update
        )
    Console(markup=False, emoji=False).print(
        f"{store}: {done.added} calls added, {done.already_there} were there already, "
        f"{done.without_text} rows hold no text, {done.rejected} rows put aside"
    )


@app.command()
def show(
    file: Annotated[
        Path | None, typer.Option(help="A pool file; without it, the profiled cards are shown.")
    ] = None,
    cards: Annotated[Path, typer.Option(help="Profiled cards.")] = Path("data/pool/cards.json"),
) -> None:
    """Show candidates with prices and, once profiled, what they are good at; and what was spent."""
    from rich.console import Console

    from routerr1.cli import tables as showing
    from routerr1.pool.cards import read_cards
    from routerr1.pool.pool_file import read_pool_file

    console = Console(markup=False, emoji=False)
    if file is not None:
        found = read_pool_file(file)
        console.print(showing.candidates(found.cards))
        console.print(f"prices as of {found.prices.as_of}: {found.prices.source}")
    else:
        console.print(showing.candidates(read_cards(cards)))
    if (spending := showing.spending()) is not None:
        console.print(spending)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Pool file of the candidates.")],
) -> None:
    """Make one small call to every candidate: key, model, latency, tokens, price and shape of the reply.

    Status 1 if a candidate does not answer.
    """
    import asyncio

    from rich.console import Console

    from routerr1.cli import tables
    from routerr1.pool.build import environment
    from routerr1.pool.checking import check_pool, remarks
    from routerr1.pool.pool_file import read_pool_file

    read = read_pool_file(file)
    found = asyncio.run(check_pool(read, environment()))
    console = Console()
    console.print(tables.checked(found))
    for line in remarks(read, found):
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    if any(each.problem for each in found):
        raise typer.Exit(1)


@app.command()
def estimate(params: ParamsFile = PARAMS) -> None:
    """Estimate the cost of a run, stage by stage: expected from the profile, at 95 %, and at most."""
    from rich.console import Console

    from routerr1.config import load_params
    from routerr1.stages import estimate as estimating

    loaded = load_params(params)
    console = Console(markup=False, emoji=False)
    found = estimating.estimate(loaded, estimating.read_inputs(loaded))
    console.print(estimating.headline(found), highlight=False)
    console.print(estimating.table(found))
    for line in found.assumptions:
        console.print(f"- {line}", highlight=False)


@app.command()
def reprice(
    prices: Annotated[
        Path, typer.Argument(help="Pool file (YAML) or cards (JSON) with the new prices.")
    ],
    rows: Annotated[Path, typer.Option(help="Evaluated trajectories.")] = Path(
        "data/eval/rows.parquet"
    ),
    out: Annotated[Path | None, typer.Option(help="Write the re-priced rows here.")] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Recompute the cost of evaluated trajectories under other prices; show whether a ranking changes."""
    from rich.console import Console

    from routerr1.config import load_params
    from routerr1.pool import repricing

    new = repricing.read_prices(prices)
    found = repricing.reprice_rows(rows, new, load_params(params).reward, out=out)
    console = Console(markup=False, emoji=False)
    console.print(repricing.table(found))
    console.print(found.verdict, highlight=False)


PoolFileArgument = Annotated[
    Path, typer.Argument(help="Pool file with a `servers` section, e.g. pools/laptop.yaml.")
]
OnlyServers = Annotated[
    list[str] | None, typer.Option("--only", help="A server of the file; may be repeated.")
]


@app.command()
def up(
    file: PoolFileArgument,
    models: Annotated[
        Path | None,
        typer.Option(help="Folder of the GGUF files; not needed for servers of desks alone."),
    ] = None,
    only: OnlyServers = None,
) -> None:
    """Start the servers of a pool file on this machine; servers that are up stay up."""
    from rich.console import Console

    from routerr1.cli import tables
    from routerr1.laptop import servers
    from routerr1.pool.pool_file import read_pool_file

    states = servers.up(read_pool_file(file), models, only=only or ())
    Console(markup=False, emoji=False).print(tables.servers(states))


@app.command()
def down(file: PoolFileArgument, only: OnlyServers = None) -> None:
    """End the servers that `pool up` started."""
    from rich.console import Console

    from routerr1.cli import tables
    from routerr1.laptop import servers
    from routerr1.pool.pool_file import read_pool_file

    Console(markup=False, emoji=False).print(
        tables.servers(servers.down(read_pool_file(file), only=only or ()))
    )


@app.command()
def record(
    file: Annotated[Path, typer.Argument(help="Pool file whose candidates are asked.")],
    store: Annotated[Path, typer.Option(help="Store of replies to write, ending in .jsonl.gz.")],
    log: Annotated[
        Path, typer.Option(help="Log of the calls made so far; the next run continues it.")
    ] = Path("runs/record/calls.jsonl"),
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Number of questions to ask, from the start of the list."),
    ] = None,
    ask: Annotated[
        bool, typer.Option(help="--no-ask packs what the log holds and asks nothing.")
    ] = True,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Calls to a server at a time; the default: one for each slot. 1 makes replies repeatable.",
        ),
    ] = None,
    latency: Annotated[
        str, typer.Option(help="How latencies were measured; written to the provenance.")
    ] = "as met while recording, all servers busy",
    server: Annotated[
        str | None,
        typer.Option(
            help="Name and version of the software that answers, for the provenance. The default: the "
            "llama.cpp that `pool up` starts."
        ),
    ] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Put every question of the embedded benchmark to every candidate, once, and pack the replies."""
    import asyncio
    from datetime import UTC, datetime

    from rich.console import Console

    from routerr1.config import load_params
    from routerr1.data.embedded import build_world, questions
    from routerr1.jobs.progress import track
    from routerr1.laptop import recording
    from routerr1.laptop.worklist import worklist
    from routerr1.pool.pool_file import read_pool_file

    loaded = load_params(params)
    section = loaded.dataset
    asked = worklist(questions(build_world(section.embedded), section.embedded, section.seed))
    asked = asked[:limit]
    pool = read_pool_file(file, max_reply_tokens=loaded.pool.max_reply_tokens)
    software = recording.server_named(pool, server)
    known = recording.stored_before(pool, store)
    if ask:
        with track("record", 0) as bar:
            found = asyncio.run(
                recording.record(
                    pool, log, asked, known=known, at_once=at_once, progress=bar.update
                )
            )
        Console(markup=False, emoji=False).print(
            f"{found.asked} calls made, {found.failed} failed, {found.there} were there already"
        )
    today = datetime.now(UTC).date()
    written = recording.pack(
        pool, log, asked, store, known=known, server=software, latency=latency, today=today
    )
    Console(markup=False, emoji=False).print(
        f"{store}: {sum(written.replies.values())} replies; "
        f"{written.questions} questions have one of every candidate"
    )
