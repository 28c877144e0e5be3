"""How often a shortened training collapses, with and without each guard, over many seeds.

    python -m benchmarks.collapse [--seeds 10] [--only NAME,NAME] [--work runs/collapse]
        [--out docs/results/collapse]

Run it where the stage profile has run. A seed has one short warm start, from which every variant
trains; a variant changes the parameters that VARIANTS names. Validation questions are then played
greedily by the last policy and by the warm start: on the training pool, on drawn pools, and on the
training pool with one or two candidates down that lead a topic. A
training has collapsed if on the training pool one candidate gets more than .9 of the calls, more
than half of the questions are answered without a call, or exact match is below the warm start's.

Each training leaves a JSON file in WORK and is not repeated, also if parameters or code have changed
since: take another folder then. Several processes may share the work by --only. Prints one JSON
object of all finished trainings; --out also writes it to OUT.json and puts its tables into OUT.md,
between the markers.
"""

import asyncio
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from benchmarks import shared
from routerr1.config import Params, load_params
from routerr1.errors import CheckpointError, ConfigError, DataError
from routerr1.evaluate.results import Result
from routerr1.jobs.progress import track
from routerr1.lineage import PATHS
from routerr1.pool.base import Pool
from routerr1.pool.drawn import with_outages
from routerr1.pool.profile import wilson
from routerr1.rollout.local import LocalGenerator
from routerr1.stages.train import training_context
from routerr1.stages.warmstart import demonstrations, validation
from routerr1.train.checkpoint import read_manifest
from routerr1.train.context import TrainingContext
from routerr1.train.grpo import train
from routerr1.train.rollouts import RolloutWorker
from routerr1.train.validation import validate
from routerr1.train.warmstart import warm_start
from routerr1.workspace import Workspace

MARKS = "<!-- tables of collapse.json -->", "<!-- end of the tables -->"
DEFAULT = "the default"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "no rehearsal": {"train.rehearsal_weight": 0.0},
    "KL 0.04 in place of rehearsal": {"train.rehearsal_weight": 0.0, "train.kl_weight": 0.04},
    "each part of the reward normalised": {
        "train.multi_objective_aggregation": "normalize_then_sum"
    },
    "one fixed pool": {"pool.redraw": 0.0},
}
SHORTENED: dict[str, Any] = {
    "warmstart.steps": 300,
    "train.steps": 40,
    "train.checkpoint_every": 40,
    "train.validate_every": 40,
}
MOST_SHARE, MOST_WITHOUT_CALL = 0.9, 0.5
POOLS = {
    "own": "EM, training pool",
    "drawn": "EM, drawn pools",
    "down": "EM, candidates down",
}
DIFFERENCE = 0.05  # of exact match, for which the number of seeds is computed


class Figures(Result):
    """Greedy figures on the validation questions, shares in [0, 1]."""

    em: float
    format_valid: float
    top_model_share: float
    no_call_rate: float


class Played(Result):
    """A policy on the training pool, on a drawn pool for each question, and with candidates down.

    Attributes:
        down: on the training pool, one or two leaders of a topic do not answer; others for each question.
    """

    own: Figures
    drawn: Figures
    down: Figures


class Training(Result):
    """One seed of one variant."""

    seed: int
    start: Played
    end: Played

    @property
    def collapse(self) -> str | None:
        """Why it counts as collapsed; None if it does not."""
        if self.end.own.top_model_share > MOST_SHARE:
            return "one model"
        if self.end.own.no_call_rate > MOST_WITHOUT_CALL:
            return "no calls"
        return "below the start" if self.end.own.em < self.start.own.em else None


def main() -> None:
    """Parse, train, write."""
    parser = shared.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 1")
    parser.add_argument("--only", default=",".join(VARIANTS), help="names with commas between")
    parser.add_argument(
        "--work", type=Path, default=PATHS.runs / "collapse", help="of finished trainings"
    )
    parser.add_argument("--out", type=Path, help="writes OUT.json and the tables of OUT.md")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(VARIANTS):
        raise ConfigError(f"--only: no variant {min(unknown)!r}; there are {', '.join(VARIANTS)}")
    params = varied(load_params(Path("params.yaml")), SHORTENED)
    for seed in range(1, given.seeds + 1):
        for name in wanted:
            train_once(params, name, seed, given.work)
    done = dict(finished(given.work))
    if not done:
        raise DataError(
            f"{given.work}: holds no finished training; ask for at least one with --seeds"
        )
    found = summary(done)
    shared.report(found, given.out)
    if given.out:
        shared.fill(given.out.with_suffix(".md"), MARKS, tables(found))


def varied(params: Params, changes: Mapping[str, Any]) -> Params:
    """`params` with dotted keys replaced, and validated again."""
    values = params.model_dump()
    for key, value in changes.items():
        section, _, field = key.partition(".")
        values[section][field] = value
    return Params.model_validate(values)


def train_once(params: Params, name: str, seed: int, work: Path) -> None:
    """Train one variant with one seed and keep its figures, unless they are there."""
    file = _file(work, name, seed)
    if file.is_file():
        return
    start = warm_started(params, seed, work / "warmstart" / f"seed-{seed}")
    workspace = Workspace(varied(params, VARIANTS[name]))
    pool = workspace.open_pool(workspace.cards)
    context = training_context(workspace, pool, seed)
    own, drawn = (_validated_on(params, pool, seed, redraw) for redraw in (0.0, 1.0))
    outages = [
        replace(task, pool=with_outages(task.pool, place, share=1.0))
        for place, task in enumerate(own.validation)
    ]
    down = replace(own, validation=outages)
    policy = LocalGenerator.load(start, context.load, lockstep=context.lockstep, trained=True)

    def played() -> Played:
        return Played(
            own=figures(own, policy), drawn=figures(drawn, policy), down=figures(down, policy)
        )

    before = played()
    label = f"{name}, seed {seed}"
    with tempfile.TemporaryDirectory() as folder, track(label, context.train.steps) as bar:
        train(
            start, context, Path(folder), policy=policy,
            progress=lambda row: bar.update(int(row["step"]), note=f"EM {row['em']:.2f}"),
        )  # fmt: skip
    Training(seed=seed, start=before, end=played()).write(file)
    asyncio.run(pool.aclose())


def warm_started(params: Params, seed: int, folder: Path) -> Path:
    """The warm start of a seed; it is made if it is not there."""
    try:
        read_manifest(folder)
    except CheckpointError:
        workspace = Workspace(params)
        held, pool = validation(workspace)
        warm_start(
            demonstrations(workspace), held, pool, params, seed, folder, render=workspace.renderer
        )
    return folder


def _validated_on(params: Params, pool: Pool, seed: int, redraw: float) -> TrainingContext:
    return training_context(Workspace(varied(params, {"pool.redraw": redraw})), pool, seed)


def figures(context: TrainingContext, policy: LocalGenerator) -> Figures:
    """Greedy figures of `policy` on the validation questions of `context`."""
    found, _ = validate(context, RolloutWorker(context, policy), nullcontext(policy), None)
    return Figures(**{name: found[name] for name in Figures.model_fields})


def finished(work: Path) -> Iterator[tuple[str, list[Training]]]:
    """The finished trainings of each variant, by seed."""
    for name in VARIANTS:
        files = work.glob(f"seed-*/{_file(work, name, 0).name}")
        if found := [Training.read(file) for file in files]:
            yield name, sorted(found, key=lambda each: each.seed)


def _file(work: Path, name: str, seed: int) -> Path:
    return work / f"seed-{seed}" / f"{name.replace(' ', '-')}.json"


def summary(found: Mapping[str, Sequence[Training]]) -> dict[str, Any]:
    """Rates, means and paired differences from the default; every interval is of 95 %."""
    baseline = {each.seed: each for each in found.get(DEFAULT, ())}
    variants = {}
    for name, trainings in found.items():
        collapsed = [each for each in trainings if each.collapse]
        low, high = wilson(len(collapsed), len(trainings))
        variants[name] = {
            "seeds": len(trainings),
            "collapsed": len(collapsed),
            "collapsed_interval": [round(low, 3), round(high, 3)],
            "why": dict(sorted(Counter(str(each.collapse) for each in collapsed).items())),
            **{
                f"em_{pools}": _spread([getattr(each.end, pools).em for each in trainings])
                for pools in POOLS
            },
            "most_top_model_share": round(max(t.end.own.top_model_share for t in trainings), 3),
            "least_format_valid": round(min(t.end.own.format_valid for t in trainings), 3),
            **{
                f"difference_{pools}": _mean_interval(
                    [
                        getattr(each.end, pools).em - getattr(baseline[each.seed].end, pools).em
                        for each in trainings
                        if each.seed in baseline
                    ]
                )
                for pools in POOLS
                if name != DEFAULT
            },
        }
    spread = [each.end.own.em for each in found.get(DEFAULT, ())]
    return {
        "steps": SHORTENED["train.steps"],
        "variants": variants,
        "seeds_for_a_difference": {
            "difference": DIFFERENCE,
            "seeds_of_each": seeds_needed(stdev(spread), DIFFERENCE) if len(spread) > 1 else None,
        },
        "trainings": {name: [each.model_dump() for each in rows] for name, rows in found.items()},
    }


def seeds_needed(deviation: float, difference: float) -> int:
    """Seeds of each of two settings for a power of .8 at a level of .05, two-sided (normal approximation)."""
    quantiles = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    return max(2, math.ceil(2 * (quantiles * deviation / difference) ** 2))


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"mean": fmean(values), "least": min(values), "most": max(values)}
    if len(values) > 1:
        found["deviation"] = stdev(values)
    return {key: round(value, 3) for key, value in found.items()}


def _mean_interval(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and t-interval; None of fewer than two values."""
    if len(values) < 2:
        return None
    mean, half = fmean(values), stdev(values) / math.sqrt(len(values))
    half *= float(stats.t.ppf(0.975, len(values) - 1))
    return {
        key: round(v, 3)
        for key, v in zip(("mean", "low", "high"), (mean, mean - half, mean + half), strict=True)
    }


def tables(found: Mapping[str, Any]) -> str:
    """Two tables: rates of collapse, and exact match."""
    rates, matches = [], []
    for name, each in found["variants"].items():
        low, high = each["collapsed_interval"]
        reasons = [f"{count} {why}" for why, count in each["why"].items()]
        why = f" ({', '.join(reasons)})" if reasons else ""
        rates.append(
            [
                name,
                f"{each['collapsed']} of {each['seeds']} [{low:.2f}, {high:.2f}]{why}",
                f"{each['most_top_model_share']:.2f}",
                f"{each['least_format_valid']:.2f}",
            ]
        )
        matches.append(
            [
                name,
                *(
                    cell
                    for pools in POOLS
                    for cell in (
                        _mean(each[f"em_{pools}"]),
                        _difference(each.get(f"difference_{pools}")),
                    )
                ),
            ]
        )
    heads = [head for title in POOLS.values() for head in (title, "difference")]
    return "\n\n".join(
        (
            shared.table(["variant", "collapsed", "top model's share", "valid format"], rates),
            shared.table(["variant", *heads], matches),
        )
    )


def _mean(each: Mapping[str, float]) -> str:
    return f"{each['mean']:.2f} ({each['least']:.2f} to {each['most']:.2f})"


def _difference(each: Mapping[str, float] | None) -> str:
    return "–" if each is None else f"{each['mean']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]"


if __name__ == "__main__":
    main()
