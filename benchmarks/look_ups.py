"""What a policy could reach that follows the figures of look-ups: a script that asks the highest first.

    python -m benchmarks.look_ups [--out docs/results/look-ups]

Run it where the stage profile has run. The script takes an embedded question apart as the demonstrations do. For each
part it looks the topic up, asks the candidate with the highest figure, and while that one is not sure or does not
answer it looks again. So its exact match is that of the figures: nothing is learned and nothing sampled. It is
played with several values of `notation.LEFT`; 0 shows the share of right replies. The splits are validation, by
which the value was chosen, and test; the pools are the pool itself, and the candidates that are kept from training.

Prints one JSON object; --out also writes it to OUT.json and a table to OUT.md, between the markers.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import shared
from routerr1 import notation
from routerr1.answers.short_answer import is_unsure
from routerr1.config import Params, load_params
from routerr1.evaluate.stats import SHARE, interval
from routerr1.jobs.progress import track
from routerr1.matching import exact_match
from routerr1.pool.base import Pool
from routerr1.pool.build import open_http_pool
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import profile, sample_probes
from routerr1.pool.recorded import answerable
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import FAILED, rollout
from routerr1.types import Question, Split, Trajectory
from routerr1.workspace import Workspace

MARKS = "<!-- table of look-ups.json -->", "<!-- end of the table -->"
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


async def measure(params: Params) -> dict[str, Any]:
    """Exact match and calls for every value, split and pool."""
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
    return {"shipped": notation.LEFT, **found}


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


def _figures(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    right = [exact_match(each.answer or "", each.question.golden_answers) for each in trajectories]
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


if __name__ == "__main__":
    main()
