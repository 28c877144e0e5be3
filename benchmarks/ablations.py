"""What keeps training from collapsing onto one model: the same start, one parameter changed at a time.

Trains from the chain's present warm starts (run `dvc repro warmstart` with these seeds first), once
per variant and training seed. Each run's log gives greedy validation figures of the best step,
figures of the last tenth of the steps at the training temperature, and a first step: from there,
over ten steps, four of five calls went to the best candidate for their topic. Finished runs stay in
runs/ablations and are not trained again; several processes may share the work by seeds. The table
holds means and ranges over seeds of all finished runs. Curves are written beside it.

    python -m benchmarks.ablations [--seeds 1,2,3] [--steps 60] [--only NAME,NAME] --out docs/results/ablations
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import shared
from routerr1.config import Params, load_params
from routerr1.errors import ConfigError
from routerr1.files import atomic_path, atomic_write_text, read_json, write_json
from routerr1.jobs.progress import track
from routerr1.lineage import PATHS, hash_of
from routerr1.pool.base import Pool
from routerr1.stages.train import training_context
from routerr1.workspace import Workspace

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no KL": {"train.kl_weight": 0.0},
    "KL 0.2": {"train.kl_weight": 0.2},
    "no rehearsal": {"train.rehearsal_weight": 0.0},
    "16 questions × 8 rollouts": {"train.questions_per_step": 16, "train.rollouts_per_question": 8},
    "over the group's deviation": {"train.scale_rewards": "group"},
    "over the batch's deviation": {"train.scale_rewards": "batch"},
    "temperature 0.5": {"rollout.temperature": 0.5},
    "temperature 1": {"rollout.temperature": 1.0},
    "no cost": {"reward.cost_weight": 0.0},
    "learning rate 2e-3": {"train.learning_rate": 2e-3},
    "parts by themselves": {"train.multi_objective_aggregation": "normalize_then_sum"},
    "half of the pools redrawn": {"pool.redraw": 0.5},
    "every pool redrawn": {"pool.redraw": 1.0},
}
RUNS = PATHS.runs / "ablations"
SHOWN = (
    "em",
    "best_model_share",
    "top_model_share",
    "calls",
    "format_valid",
    "no_call_rate",
    "entropy",
    "kl",
    "zero_variance_groups",
)
_WINDOW, _ENOUGH = 10, 0.8


def main() -> None:
    """Parse, train, write."""
    parser = shared.parser(__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", default="1", help="training seeds with commas between")
    parser.add_argument("--only", default=",".join(VARIANTS), help="names with commas between")
    parser.add_argument(
        "--out", type=Path, required=True, help="writes OUT.json, OUT.md and OUT.csv"
    )
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(VARIANTS):
        raise ConfigError(f"--only: no variant {min(unknown)!r}; there are {', '.join(VARIANTS)}")
    workspace = Workspace(params)
    pool = workspace.open_pool(workspace.cards)
    for seed in map(int, given.seeds.split(",")):
        for name in wanted:
            train_once(params, pool, name, seed, given.steps)
            write(given.out, params, given.steps)


def run_file(params: Params, name: str, seed: int, steps: int) -> Path:
    """Where the log of a run is kept; its name says what the run depends on."""
    about = Workspace(varied(params, VARIANTS[name], steps)).inputs("train", seed)
    return RUNS / f"{hash_of(about)}-seed-{seed}.json"


def varied(params: Params, changes: dict[str, Any], steps: int) -> Params:
    """`params` with dotted keys replaced, and validated again."""
    values = params.model_dump()
    for key, value in {**changes, "train.steps": steps, "train.checkpoint_every": steps}.items():
        section, _, field = key.partition(".")
        values[section][field] = value
    return Params.model_validate(values)


def train_once(params: Params, pool: Pool, name: str, seed: int, steps: int) -> None:
    """Train one variant with one seed and keep its log, unless that is there."""
    from routerr1.train.grpo import train

    file = run_file(params, name, seed, steps)
    if file.is_file():
        return
    context = training_context(Workspace(varied(params, VARIANTS[name], steps)), pool, seed)
    start = PATHS.warmstart / f"seed-{seed}"
    with tempfile.TemporaryDirectory() as folder, track(f"{name}, seed {seed}", steps) as bar:
        done = train(
            start, context, Path(folder),
            progress=lambda row: bar.update(int(row["step"]), note=f"EM {row['em']:.2f}"),
        )  # fmt: skip
    write_json(file, {"rows": done.rows, "start": dict(done.start), "best_step": done.best_step})


def figures(run: Mapping[str, Any]) -> dict[str, Any]:
    """Of the kept step, of the last tenth, and when most calls first went where they should."""
    rows = run["rows"]
    last = rows[-max(1, len(rows) // 10) :]
    kept = next((row for row in rows if row["step"] == run["best_step"]), run["start"])
    shares = [row.get("best_model_share", 0.0) for row in rows]
    routed = [
        i + 1 for i in range(len(rows) - _WINDOW + 1) if fmean(shares[i : i + _WINDOW]) >= _ENOUGH
    ]
    return {
        "last": {key: fmean(row.get(key, 0.0) for row in last) for key in SHOWN},
        "validation": {key: kept[name] for key in SHOWN if (name := f"validation/{key}") in kept},
        "best_step": run["best_step"],
        "routes_from_step": routed[0] if routed else None,
    }


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One line a variant: mean, and the range over seeds where there are several."""
    lines = [
        "# Ablations",
        "",
        "Command: `python -m benchmarks.ablations --out docs/results/ablations`. The pool is a simulation.",
        "",
    ]
    heads = (
        "variant", "seeds", "validation EM", "calls to the best", "top-model share", "calls", "EM, last tenth",
        "well formed", "entropy", "KL", "groups without variance", "routes from step",
    )  # fmt: skip
    rows = []
    for name, runs in found.items():
        kept = [run["validation"] for run in runs]
        last = [run["last"] for run in runs]
        cells = [
            _range([run[key] for run in kept])
            for key in ("em", "best_model_share", "top_model_share", "calls")
        ]
        cells += [
            _range([run[key] for run in last])
            for key in ("em", "format_valid", "entropy", "kl", "zero_variance_groups")
        ]
        routed = [str(run["routes_from_step"] or "never") for run in runs]
        rows.append((name, f"{len(runs)}", *cells, ", ".join(routed)))
    return "\n".join([*lines, shared.table(heads, rows)]) + "\n"


def _range(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def write(out: Path, params: Params, steps: int) -> None:
    """All runs that are there; after every run, so that a killed one keeps what it has."""
    import pandas as pd

    found: dict[str, list[dict[str, Any]]] = {}
    curves = []
    seeds = sorted(int(folder.name[5:]) for folder in PATHS.warmstart.glob("seed-*"))
    for name in VARIANTS:
        for seed in seeds:
            file = run_file(params, name, seed, steps)
            if not file.is_file():
                continue
            run = read_json(file)
            found.setdefault(name, []).append({"seed": seed, **figures(run)})
            curves += [{"variant": name, "seed": seed, **row} for row in run["rows"]]
    values = {"steps": steps, "changed": VARIANTS, "variants": found}
    atomic_write_text(out.with_suffix(".json"), json.dumps(values, indent=1, sort_keys=True) + "\n")
    atomic_write_text(out.with_suffix(".md"), table(found))
    frame = pd.DataFrame(curves)
    columns = ["variant", "seed", "step", *(key for key in SHOWN if key in frame)]
    with atomic_path(out.with_suffix(".csv")) as aside:
        frame[columns].to_csv(aside, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
