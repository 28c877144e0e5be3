"""A test of whether a policy reads its cards: every test question has its own drawn pool.

The pools are simulated. Names, strengths and prices are drawn for every question, the names from
those that no training uses, so the card is the only source about a candidate. Policies are compared
with each other on the same questions and pools. The first is also compared with its calls rerouted
in three ways: at random, to the best candidate for the topic by card (figures rounded as in the
prompt), and to the cheapest candidate that knows the answer (oracle).

Prints one JSON object; --out also writes it, with a table as Markdown.

    python benchmarks/unseen.py --policy redrawn=FOLDER,FOLDER,... --policy warmstart=FOLDER,... [--out STEM]

Each folder holds one training seed's policy, as models/policy and models/warmstart/seed-1 do.
"""

import argparse
import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from routerr1.config import Params, load_params
from routerr1.data.embedded import build_world, questions
from routerr1.evaluate import controls
from routerr1.evaluate.redrawn import REDRAWN, TopicOf, rerouted
from routerr1.evaluate.result_matrix import ResultMatrix
from routerr1.evaluate.results import Estimate, RouterTable
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import play_all, policies_of
from routerr1.evaluate.stats import SHARE, ratio_interval
from routerr1.evaluate.table import summarise
from routerr1.files import atomic_path
from routerr1.jobs.progress import track
from routerr1.report import markdown
from routerr1.report.formatting import estimate, number
from routerr1.report.sections import Cell, Section, table_of
from routerr1.report.tables import how_to_read, routers_table
from routerr1.simulation.facts import known_facts, topic_in
from routerr1.simulation.pool import SimulatedPool, drawn_pool
from routerr1.workspace import Workspace


def main() -> None:
    """Parse, play, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", action="append", required=True, metavar="NAME=FOLDER,FOLDER")
    parser.add_argument("--draw", type=int, default=2007, help="seed of the drawn pools")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    policies = {
        name: [Path(folder) for folder in folders.split(",")]
        for name, _, folders in (each.partition("=") for each in given.policy)
    }
    rows = play(params, policies, given.draw)
    first = next(iter(policies))
    table = summarise(rows, params.evaluate, reference=first)
    shares = best_calls(rows, params)
    values = {name: share and share.model_dump() for name, share in shares.items()}
    found = {"draw": given.draw, "best_calls": values, **table.model_dump(mode="json")}
    print(json.dumps(found, indent=1))
    if given.out:
        for suffix, written in (
            (".json", json.dumps(found, indent=1, sort_keys=True) + "\n"),
            (".md", markdown_of(given.draw, shares, table)),
        ):
            with atomic_path(given.out.with_suffix(suffix)) as aside:
                aside.write_text(written, encoding="utf-8")


def play(params: Params, policies: dict[str, list[Path]], draw: int) -> list[Row]:
    """Rows of every policy and training seed, and of the controls of the first policy."""
    from routerr1.rollout.local import LocalGenerator

    world = build_world(params.dataset.embedded)
    known = known_facts(world)
    asked = [
        q
        for q in questions(world, params.dataset.embedded, params.dataset.seed)
        if q.split == "test"
    ]
    topic_of = partial(topic_in, known)
    pools = {question.id: drawn_pool(known, draw + place) for place, question in enumerate(asked)}
    rows: list[Row] = []
    first = next(iter(policies))
    for name, folders in policies.items():
        generators = {
            seed: LocalGenerator.load(folder) for seed, folder in enumerate(folders, start=1)
        }
        render = Workspace(params).renderer
        for policy in policies_of(generators, render, params):
            jobs = [
                (
                    replace(router, name=name if router.name == controls.POLICY else router.name),
                    question,
                )
                for question in asked
                for router in routers(
                    policy, pools[question.id], topic_of, controlled=name == first
                )
            ]
            with track(f"{name}, seed {policy.seed}", len(jobs)) as bar:
                rows += asyncio.run(
                    play_all(jobs, concurrency=params.evaluate.concurrency, progress=bar.update)
                )
    return rows


def routers(
    policy: controls.Policy, pool: SimulatedPool, topic_of: TopicOf, *, controlled: bool
) -> list[controls.Router]:
    """The policy on one question's pool, and its controls."""
    own = controls.policy_router(policy, pool, REDRAWN, 0)
    return [own, *(rerouted(policy, pool, topic_of, REDRAWN, 0) if controlled else ())]


def best_calls(rows: list[Row], params: Params) -> dict[str, Estimate | None]:
    """By router, the share of calls that go to the candidate with the highest true accuracy."""
    found = {}
    for name in sorted({row.router for row in rows}):
        matrix = ResultMatrix([row for row in rows if row.router == name])
        share = ratio_interval(
            matrix.map(lambda row: row.best_calls), matrix.map(lambda row: row.judged_calls),
            matrix.groups, within=SHARE, resamples=params.evaluate.bootstrap,
            confidence=params.evaluate.confidence, seed=params.evaluate.seed,
        )  # fmt: skip
        found[name] = Estimate.of(share) if share else None
    return found


def markdown_of(draw: int, shares: dict[str, Estimate | None], table: RouterTable) -> str:
    """The results as Markdown."""
    rows = []
    for entry in table.routers:
        share, seeds = shares[entry.router], entry.per_seed["em"]
        cell = estimate(share, 3) if share else Cell("no call")
        spread = f"{number(seeds.low, 3)} to {number(seeds.high, 3)}"
        rows.append((entry.router, cell, str(seeds.seeds), spread))
    heads = ("Router", "Calls to the best candidate", "Training seeds", "EM over seeds")
    sections = [
        Section(
            "Routers", f"Drawn pools of seed {draw}.", routers_table(table),
            parts=(how_to_read(table),),
        ),
        Section("Calls to the best candidate", table=table_of(heads, rows)),
    ]  # fmt: skip
    return markdown.render(sections)


if __name__ == "__main__":
    main()
