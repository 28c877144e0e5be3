"""What a policy could reach that follows the figures of look-ups: a script that asks the highest first.

    python -m benchmarks.look_ups [--out docs/results/look-ups]

Run it where the stage profile has run. The script takes an embedded question apart as the demonstrations do. For each
part it looks the topic up, asks the candidate with the highest figure, and while that one is not sure or does not
answer it looks again. So its exact match is that of the figures: nothing is learned and nothing sampled. It is
played with several values of `notation.LEFT`; 0 shows the share of right replies. The splits are validation, by
which the value was chosen, and test; the pools are the pool itself, and the candidates that are kept from training.

A second table has cards of few probes: with shares smoothed towards what all topics say (`notation.figure_on`) and with
the shares as they are, each on the same ten draws of probes. Its pools are the pool itself, and the simulated one in
which nobody is good.

Prints one JSON object; --out also writes it to OUT.json and the tables to OUT.md, between the markers.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import shared
from routerr1 import notation
from routerr1.answers.short_answer import is_unsure
from routerr1.config import Params, load_params
from routerr1.data.embedded import TOPICS
from routerr1.evaluate.stats import SHARE, interval, paired_difference
from routerr1.jobs.progress import track
from routerr1.matching import exact_match
from routerr1.pool.base import Pool
from routerr1.pool.build import open_http_pool
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import profile, sample_probes
from routerr1.pool.recorded import answerable
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import FAILED, rollout
from routerr1.simulation.candidates import middling_candidates
from routerr1.simulation.pool import profiled_pool
from routerr1.types import Question, Split, Trajectory
from routerr1.workspace import Workspace

MARKS = "<!-- table of look-ups.json -->", "<!-- end of the table -->"
FEW_MARKS = "<!-- few probes of look-ups.json -->", "<!-- end of few probes -->"
PROBES = (8, 20, 40, 120)  # over all topics
DRAWS = 10
LEFT = (0.0, 0.8, 0.85, 0.9, 0.95, 0.98)
SPLITS: tuple[Split, ...] = ("validation", "test")
_ENTRY = re.compile(r"\b([0-9]+)% (m[1-9][0-9]*)\b")
_DONE = "<think> done</think><answer> @{}</answer>"


def main() -> None:
    """Parse, play, print."""
    parser = shared.parser(__doc__)
    parser.add_argument("--out", type=Path, help="writes OUT.json and the table of OUT.md")
    given = parser.parse_args()
    found = asyncio.run(measure(load_params(Path("params.yaml"))))
    shared.report(found, given.out)
    if given.out:
        shared.fill(given.out.with_suffix(".md"), MARKS, table(found))
        shared.fill(given.out.with_suffix(".md"), FEW_MARKS, few_table(found["few_probes"]))


async def measure(params: Params) -> dict[str, Any]:
    """Exact match and calls for every value, split and pool; exact match by number of probes."""
    workspace = Workspace(params)
    section = params.profile_pool
    every = open_http_pool(params.pool, held_out=True, max_rejected=params.max_rejected)
    async with aclosing(every):
        probes = sample_probes(
            answerable(workspace.questions(section.split), every), section.probes, section.seed
        )
        cards = (await profile(probes, every, store=None)).cards
        own = {card.name for card in workspace.cards}
        pools = {
            "own": PerturbedPool(every, [card for card in cards if card.name in own]),
            "kept": PerturbedPool(every, [card for card in cards if card.name not in own]),
        }
        played = {split: _of_facts(workspace.spending(split)) for split in SPLITS}
        total = len(LEFT) * len(pools) * sum(map(len, played.values()))
        found: dict[str, Any] = {split: {name: [] for name in pools} for split in SPLITS}
        with track("look-ups", total) as bar:
            for left, (split, questions), (name, pool) in product(
                LEFT, played.items(), pools.items()
            ):
                with _left(left):
                    trajectories = [
                        await _play(question, pool, workspace, place)
                        for place, question in enumerate(questions)
                    ]
                bar.update(len(questions))
                found[split][name].append({"left": left, **_figures(trajectories)})
        few = await _few_probes(workspace, pools["own"], played)
    return {"shipped": notation.LEFT, **found, "few_probes": few}


async def _few_probes(
    workspace: Workspace, own: Pool, played: Mapping[Split, Sequence[Question]]
) -> list[dict[str, Any]]:
    known = answerable(workspace.questions(workspace.params.profile_pool.split), own)

    async def recorded(count: int, draw: int) -> Pool:
        cards = (await profile(sample_probes(known, count, draw), own, store=None)).cards
        return PerturbedPool(own, cards)

    async def middling(count: int, draw: int) -> Pool:
        return profiled_pool(
            middling_candidates(), workspace.facts, draw, round(count / len(TOPICS))
        )

    of_pool = {"own": recorded, "middling": middling}
    cells = [*product(SPLITS, of_pool, PROBES)]
    found = []
    with track("few probes", len(cells) * DRAWS) as bar:
        for split, name, count in cells:
            questions = played[split]
            scores: dict[str, list[list[float]]] = {"smoothed": [], "as_they_are": []}
            for draw in range(1, DRAWS + 1):
                pool = await of_pool[name](count, draw)
                shown = {
                    "smoothed": pool,
                    "as_they_are": PerturbedPool(
                        pool, [replace(card, probes={}) for card in pool.cards]
                    ),
                }
                for what, each in shown.items():
                    scores[what].append(
                        [
                            _right(await _play(question, each, workspace, place))
                            for place, question in enumerate(questions)
                        ]
                    )
                bar.update(1)
            found.append(
                {"split": split, "pool": name, "probes": count, **_gain(scores, questions)}
            )
    return found


def _gain(scores: Mapping[str, list[list[float]]], questions: Sequence[Question]) -> dict[str, Any]:
    """Means over draws, and their paired difference; groups of questions are drawn again, draws are not."""
    smooth_DQ, plain_DQ = np.array(scores["smoothed"]), np.array(scores["as_they_are"])
    groups = [str(question.metadata["group"]) for question in questions]
    gap = paired_difference(smooth_DQ.mean(axis=0).tolist(), plain_DQ.mean(axis=0).tolist(), groups)
    by_draw = smooth_DQ.mean(axis=1) - plain_DQ.mean(axis=1)
    return {
        "smoothed": float(smooth_DQ.mean()),
        "as_they_are": float(plain_DQ.mean()),
        "gain": {"mean": gap.mean, "low": gap.low, "high": gap.high},
        "draws": len(by_draw),
        "draws_better": int((by_draw > 0).sum()),
        "draws_worse": int((by_draw < 0).sum()),
        "n": len(questions),
        "groups": len(set(groups)),
    }


def _of_facts(questions: Sequence[Question]) -> list[Question]:
    return [question for question in questions if "steps" in question.metadata]


@contextmanager
def _left(value: float) -> Iterator[None]:
    shipped = notation.LEFT
    notation.LEFT = value
    try:
        yield
    finally:
        notation.LEFT = shipped


async def _play(question: Question, pool: Pool, workspace: Workspace, seed: int) -> Trajectory:
    params = workspace.params.rollout
    generator = ScriptedGenerator(highest_first(question, params.max_rounds))
    return await rollout(
        question, generator, pool, render=workspace.renderer, params=params, seed=seed
    )


def highest_first(question: Question, max_rounds: int) -> Callable[[str, Sequence[str]], str]:
    """The next generation from what was inserted so far."""
    steps, topics = question.metadata["steps"], question.metadata["topics"]
    part, replies, bridge, looking = 0, 0, 0, False

    def say(_: str, inserted: Sequence[str]) -> str:
        nonlocal part, replies, bridge, looking
        if looking:
            looking = False
            shown = [(int(figure), handle) for figure, handle in _ENTRY.findall(inserted[-1])]
            figure, handle = max(shown)
            query = notation.THE_QUESTION if len(steps) == 1 else steps[part].format(f"@{bridge}")
            return f"<think> {figure}% {handle}</think><search> {handle}: {query}</search>"
        if inserted:
            replies += 1
            failed = any(why in inserted[-1] for why in FAILED.values())
            if not failed and not is_unsure(inserted[-1]):
                part, bridge = part + 1, replies
        if part == len(steps) or replies == max_rounds:
            return _DONE.format(replies)
        looking = True
        return f"<think> {topics[part]}</think><search> cards: {topics[part]}</search>"

    return say


def _right(trajectory: Trajectory) -> float:
    return exact_match(trajectory.answer or "", trajectory.question.golden_answers)


def _figures(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    right = [_right(each) for each in trajectories]
    groups = [str(each.question.metadata["group"]) for each in trajectories]
    found = interval(right, groups, within=SHARE)
    return {
        "em": {"mean": found.mean, "low": found.low, "high": found.high},
        "calls": sum(each.ledger.calls for each in trajectories) / len(trajectories),
        "n": found.n,
        "groups": found.groups,
    }


def table(found: Mapping[str, Any]) -> str:
    """A row for each value, a column for each split and pool."""
    columns = {f"{split}, {name}": rows for split in SPLITS for name, rows in found[split].items()}
    lines = [
        [
            f"{left:g}",
            *(
                f"{shared.ranged(rows[place]['em'])}, {rows[place]['calls']:.2f} calls"
                for rows in columns.values()
            ),
        ]
        for place, left in enumerate(LEFT)
    ]
    return shared.table(["LEFT", *columns], lines)


def few_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each split, pool and number of probes."""
    heads = [
        "Split",
        "Pool",
        "Probes",
        "Shares as they are",
        "Smoothed",
        "Difference",
        "Draws: better, worse",
    ]
    lines = [
        [
            each["split"], each["pool"], str(each["probes"]), f"{each['as_they_are']:.3f}",
            f"{each['smoothed']:.3f}", shared.ranged(each["gain"], "+"),
            f"{each['draws_better']}, {each['draws_worse']} of {each['draws']}",
        ]
        for each in rows
    ]  # fmt: skip
    return shared.table(heads, lines)


if __name__ == "__main__":
    main()
