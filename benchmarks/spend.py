"""What a spend level buys: one policy at every level, beside routers with the same price on cost.

Every test question is played at each of the eleven levels. The policy reads the level in its prompt.
The controls are the same policy's text with every call sent elsewhere: to the candidate of the highest

    figure - price of the level * usual cost of a call / that of the dearest

where the figure is that of its card on the sub-question's topic (best-on-cards), or the mean over the
nearest probes (kNN); the prices are `notation.price_at`. A front is the upper hull of (cost, exact
match) over levels, its area the mean exact match over costs up to the highest of all
(`routerr1/evaluate/pareto.py`). Intervals resample groups of questions.

Run it where the chain has run:

    python -m benchmarks.spend [--policy FOLDER]... [--out STEM]

Prints one JSON object; --out also writes it, with a table as Markdown and a plot.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import shared
from routerr1.baselines.embed import embedder
from routerr1.baselines.few_probes import with_price
from routerr1.baselines.learned import ScoredChooser, knn
from routerr1.baselines.matrix import read_matrix
from routerr1.config import BaselineParams, Params, load_params
from routerr1.evaluate.controls import POLICY, Policy, Router, policy_router
from routerr1.evaluate.pareto import area
from routerr1.evaluate.redrawn import CARDS, by_the_cards
from routerr1.evaluate.result_matrix import matrices_of
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import choose_questions, play_all, policies_of
from routerr1.evaluate.stats import interval
from routerr1.jobs.progress import track
from routerr1.lineage import PATHS
from routerr1.notation import SPEND_LEVELS, with_spend
from routerr1.pool.base import Pool
from routerr1.pool.recorded import answerable
from routerr1.simulation.facts import topic_in
from routerr1.types import Question, Trajectory
from routerr1.workspace import Workspace

LEVELS = range(SPEND_LEVELS + 1)
KNN = "knn"


def main() -> None:
    """Parse, play, print."""
    parser = shared.parser(__doc__)
    shared.add_policy(parser)
    parser.add_argument(
        "--max-questions", type=int, help="of the test split; default: all that the pool can answer"
    )
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="writes OUT.json, OUT.md and OUT.svg")
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    rows = asyncio.run(play(params, given.policy, given.max_questions))
    found = {
        "seeds": len({row.seed for row in rows[0]}),
        "trained_levels": sorted(set(params.train.spend_levels)),
        **summary(rows, given.resamples),
    }
    shared.report(found, given.out, page(found))
    if given.out:
        plot(found, given.out.with_suffix(".svg"))


async def play(
    params: Params, folders: Sequence[Path] | None, limit: int | None
) -> dict[int, list[Row]]:
    """Rows by level, of every router and training seed."""
    workspace = Workspace(params)
    generators = shared.generators_of(workspace, folders)
    pool = workspace.open_pool(workspace.cards)
    questions = choose_questions(
        answerable(workspace.questions("test"), pool), limit, params.evaluate.seed
    )
    topic_of = partial(topic_in, workspace.facts)
    near = neighbours(params.baselines, params.seeds[0])
    rows = {}
    for level in LEVELS:
        routers = [
            router
            for policy in policies_of(generators, workspace.renderer, params)
            for router in (
                policy_router(policy, pool, str(level), 0),
                by_the_cards(policy, pool, topic_of, str(level), 0, level=level),
                by_neighbours(policy, pool, near, level),
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


def neighbours(section: BaselineParams, seed: int) -> ScoredChooser:
    """kNN over the probes, which remembers what it predicts: the same queries come at every level."""
    fitted = knn(
        read_matrix(PATHS.matrix), embedder(section.embedder, seed), neighbours=section.neighbours
    )
    return ScoredChooser(fitted.matrix, lru_cache(maxsize=None)(fitted.predict))


def by_neighbours(policy: Policy, pool: Pool, near: ScoredChooser, level: int) -> Router:
    """kNN with the level's price, for each sub-question of the policy."""
    chooser = with_price(near, level)

    async def play(question: Question, *, player: str) -> Trajectory:
        return await policy.play(
            question, pool, seed=0, player=player, reroute=lambda ask: chooser.choose(ask.query)
        )

    return Router(KNN, policy.seed, str(level), pool, play)


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
            name: {
                "mean": whole[POLICY] - whole[name],
                "low": float(np.quantile([each[POLICY] - each[name] for each in draws], 0.025)),
                "high": float(np.quantile([each[POLICY] - each[name] for each in draws], 0.975)),
            }
            for name in names
            if name != POLICY
        },
    }  # fmt: skip


def _estimate(values: Any, groups: Sequence[str], resamples: int) -> dict[str, float | None]:
    found = interval(values, groups=groups, resamples=resamples)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = {POLICY: "policy", KNN: "kNN", CARDS: "best-on-cards"}
    own = found["levels"][POLICY]
    em = [entry["em"]["mean"] for entry in own]
    falls = {level: em[level - 1] - em[level] for level in LEVELS[1:] if em[level] < em[level - 1]}
    most = max(each["usd_per_1000"] for levels in found["levels"].values() for each in levels)
    seeds = "one training seed" if found["seeds"] == 1 else f"{found['seeds']} training seeds"
    prose = [
        f"**Level 0 costs {found['cheapest_over_dearest_level']:.2f} of level 10, and has {em[0]:.3f} exact match "
        f"instead of {em[-1]:.3f}.** From one level to the next, exact match falls at "
        + (
            f"level{'s' * (len(falls) > 1)} {' and '.join(map(str, falls))}, by at most {max(falls.values()):.3f}. "
            if falls
            else "no level. "
        )
        + f"Training sees level {', '.join(map(str, found['trained_levels']))} only.",
        f"{found['n']} test questions in {found['groups']} groups, {seeds}; 95 % intervals over groups of questions.",
        "All three routers have the policy's text. kNN and best-on-cards send each call to the candidate whose "
        "share of right answers, less the [price of the level](../explanation/method.md#the-short-form-of-the-small-policy), "
        "is highest. The share is that of the nearest probes (kNN) or of the card (best-on-cards).",
    ]  # fmt: skip
    fronts = (
        "A front is the upper hull of a router's levels. Its area is the mean exact match over costs from 0 to "
        f"{most:.4f} USD per 1000 questions, the highest cost of all levels. A front is flat beyond its highest "
        "level, so a router that can spend more can gain more."
    )
    lines = ["# What a spend level buys", ""]
    for paragraph in prose:
        lines += [shared.wrapped(paragraph, hyphens=False), ""]
    lines += [
        "```bash",
        "python -m benchmarks.spend --out docs/results/spend",
        "```",
        "",
        "![Cost and exact match at every level](spend.svg)",
        "",
        "EM is exact match, USD are per 1000 questions.",
        "",
    ]
    heads = ("level", "policy: EM", "USD", "calls", "kNN: EM", "USD", "best-on-cards: EM", "USD")
    rows = [
        (f"{entry['level']}", shared.ranged(entry["em"]), f"{entry['usd_per_1000']:.4f}", f"{entry['calls']:.2f}",
         *(cell for each in others for cell in (f"{each['em']['mean']:.3f}", f"{each['usd_per_1000']:.4f}")))
        for entry, *others in zip(*(found["levels"][name] for name in names), strict=True)
    ]  # fmt: skip
    lines += [
        shared.table(heads, rows),
        "",
        "## Area under the front",
        "",
        shared.wrapped(fronts, hyphens=False),
        "",
        "| router | area | policy minus router |",
        "| --- | --- | --- |",
        f"| policy | {found['area'][POLICY]:.3f} | |",
    ]
    lines += [
        f"| {names[name]} | {found['area'][name]:.3f} | {shared.ranged(found['area_difference'][name], '+')} |"
        for name in (KNN, CARDS)
    ]
    return "\n".join([*lines, ""])


def plot(found: dict[str, Any], path: Path) -> None:
    """Cost against exact match, one curve a router, with the policy's intervals."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    styles = {POLICY: ("trained policy", "o", "#0072b2"), CARDS: ("best-on-cards", "s", "#d55e00"),
              KNN: ("kNN", "^", "#009e73")}  # fmt: skip
    for name, (label, marker, colour) in styles.items():
        levels = found["levels"][name]
        usd = [each["usd_per_1000"] for each in levels]
        em = [each["em"]["mean"] for each in levels]
        axes.plot(usd, em, marker=marker, color=colour, label=label, linewidth=1.2, markersize=5)
        if name == POLICY:
            low, high = ([each["em"][end] for each in levels] for end in ("low", "high"))
            axes.vlines(usd, low, high, color=colour, alpha=0.35)
            for each in levels[::5]:
                axes.annotate(
                    f"level {each['level']}", (each["usd_per_1000"], each["em"]["mean"]),
                    textcoords="offset points", xytext=(6, -12), fontsize=8, color=colour,
                )  # fmt: skip
    axes.set(xlabel="US dollars per 1000 questions", ylabel="exact match", ylim=(0, 1))
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    shared.save(figure, path)


if __name__ == "__main__":
    main()
