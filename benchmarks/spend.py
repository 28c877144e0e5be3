"""What a spend level buys: one policy at every level, beside best-on-cards with a price on cost.

Every test question is played at each of the eleven levels. The policy reads the level in its prompt.
The control is the same policy's text with every call sent to the candidate of the highest

    performance on the sub-question's topic - weight * usual cost of a call / that of the dearest

by its card, where the weight falls from 1 at level 0 to 0 at level 10. A front is the upper hull of
(cost, exact match) over levels, its area the mean exact match over costs up to the highest of all
(`routerr1/evaluate/pareto.py`). Intervals resample groups of questions.

Run it where the chain has run:

    python benchmarks/spend.py [--policy FOLDER]... [--out STEM]

Prints one JSON object; --out also writes it, with a table as Markdown.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from routerr1.config import Params, load_params
from routerr1.evaluate.controls import POLICY, policy_router
from routerr1.evaluate.pareto import area
from routerr1.evaluate.redrawn import CARDS, by_the_cards
from routerr1.evaluate.result_matrix import matrices_of
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import choose_questions, play_all, policies_of
from routerr1.evaluate.stats import interval
from routerr1.files import atomic_path
from routerr1.jobs.progress import track
from routerr1.notation import SPEND_LEVELS, with_spend
from routerr1.pool.recorded import answerable
from routerr1.simulation.facts import topic_in
from routerr1.workspace import Workspace

LEVELS = range(SPEND_LEVELS + 1)


def main() -> None:
    """Parse, play, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--policy",
        action="append",
        type=Path,
        metavar="FOLDER",
        help="a training seed's policy; default: those of params.yaml",
    )
    parser.add_argument(
        "--max-questions", type=int, help="of the test split; default: all that the pool can answer"
    )
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    rows = asyncio.run(play(params, given.policy, given.max_questions))
    found = {
        "seeds": len({row.seed for row in rows[0]}),
        "trained_levels": sorted(set(params.train.spend_levels)),
        **summary(rows, given.resamples),
    }
    print(json.dumps(found, indent=1))
    if given.out:
        for suffix, text in ((".json", json.dumps(found, indent=1) + "\n"), (".md", page(found))):
            with atomic_path(given.out.with_suffix(suffix)) as aside:
                aside.write_text(text, encoding="utf-8")


async def play(
    params: Params, folders: Sequence[Path] | None, limit: int | None
) -> dict[int, list[Row]]:
    """Rows by level, of every router and training seed."""
    workspace = Workspace(params)
    generators = (
        {seed: workspace.load_unchecked(folder) for seed, folder in enumerate(folders, start=1)}
        if folders
        else workspace.policies()
    )
    pool = workspace.open_pool(workspace.cards)
    questions = choose_questions(
        answerable(workspace.questions("test"), pool), limit, params.evaluate.seed
    )
    topic_of = partial(topic_in, workspace.facts)
    rows = {}
    for level in LEVELS:
        routers = [
            router
            for policy in policies_of(generators, workspace.renderer, params)
            for router in (
                policy_router(policy, pool, str(level), 0),
                by_the_cards(
                    policy, pool, topic_of, str(level), 0, weight=1 - level / SPEND_LEVELS
                ),
            )
        ]
        jobs = [
            (router, with_spend(question, level)) for question in questions for router in routers
        ]
        with track(f"level {level}", len(jobs)) as bar:
            rows[level] = await play_all(
                jobs, concurrency=params.evaluate.concurrency, progress=bar.update
            )
    await pool.aclose()
    return rows


def summary(rows: dict[int, list[Row]], resamples: int) -> dict[str, Any]:
    """Cost, exact match and calls by router and level; areas and their paired differences."""
    levels = {level: matrices_of(found) for level, found in rows.items()}
    names = list(levels[0])
    groups = levels[0][names[0]].groups
    em = {name: np.array([levels[x][name].values("em") for x in LEVELS]) for name in names}
    usd = {name: np.array([levels[x][name].values("cost_usd") for x in LEVELS]) for name in names}
    calls = {name: np.array([levels[x][name].values("calls") for x in LEVELS]) for name in names}
    most = max(float(np.mean(each, axis=(1, 2)).max()) for each in usd.values())
    places = {group: [i for i, g in enumerate(groups) if g == group] for group in set(groups)}
    ordered = sorted(places)

    def areas(chosen: Sequence[int]) -> dict[str, float]:
        return {
            name: area(
                zip(
                    usd[name][:, :, chosen].mean((1, 2)).tolist(),
                    em[name][:, :, chosen].mean((1, 2)).tolist(),
                    strict=True,
                ),
                most,
            )
            for name in names
        }

    rng = np.random.default_rng(0)
    draws = [
        areas(
            [i for g in rng.integers(len(ordered), size=len(ordered)) for i in places[ordered[g]]]
        )
        for _ in range(resamples)
    ]
    whole = areas(range(len(groups)))
    gaps = [each[POLICY] - each[CARDS] for each in draws]
    return {
        "n": len(groups),
        "groups": len(ordered),
        "levels": {
            name: [
                {
                    "level": level,
                    "usd_per_1000": 1000 * float(usd[name][level].mean()),
                    "em": _estimate(em[name][level], groups, resamples),
                    "em_by_seed": em[name][level].mean(1).tolist(),
                    "calls": float(calls[name][level].mean()),
                }
                for level in LEVELS
            ]
            for name in names
        },
        "cheapest_over_dearest_level": float(usd[POLICY][0].mean() / usd[POLICY][-1].mean()),
        "area": whole,
        "area_difference": {
            "mean": whole[POLICY] - whole[CARDS],
            "low": float(np.quantile(gaps, 0.025)),
            "high": float(np.quantile(gaps, 0.975)),
        },
    }  # fmt: skip


def _estimate(values: Any, groups: Sequence[str], resamples: int) -> dict[str, float | None]:
    found = interval(values, groups=groups, resamples=resamples)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    gap = found["area_difference"]
    lines = [
        "# What a spend level buys",
        "",
        f"{found['n']} test questions in {found['groups']} groups, {found['seeds']} training seed(s).",
        f"Levels in training: {', '.join(map(str, found['trained_levels']))}.",
        "`python benchmarks/spend.py` makes this page and says what is compared.",
        "",
        "| level | policy: USD/1000 | EM | calls | best-on-cards with a price on cost: USD/1000 | EM |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for own, other in zip(found["levels"][POLICY], found["levels"][CARDS], strict=True):
        em = own["em"]
        lines.append(
            f"| {own['level']} | {own['usd_per_1000']:.4f} | {em['mean']:.3f} [{em['low']:.3f}, {em['high']:.3f}] | "
            f"{own['calls']:.2f} | {other['usd_per_1000']:.4f} | {other['em']['mean']:.3f} |"
        )
    means = [entry["em"]["mean"] for entry in found["levels"][POLICY]]
    falls = [str(level) for level in LEVELS[1:] if means[level] < means[level - 1]]
    lines += [
        "",
        "The policy's exact match is lower than a level before at "
        + (f"level {', '.join(falls)}." if falls else "no level."),
        f"Level 0 costs {found['cheapest_over_dearest_level']:.2f} of level 10. Area under the front: policy",
        f"{found['area'][POLICY]:.3f}, best-on-cards {found['area'][CARDS]:.3f}, difference",
        f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}].",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
