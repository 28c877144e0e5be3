"""What keeps training from collapsing onto one model: the same start, one parameter changed at a time.

Trains from the warm start of the chain as it stands (run `dvc repro warmstart` first) once per variant, all
with the same training seed, and reads the run's own log: figures of the last tenth of the steps at the
training temperature, greedy validation figures of the best step, and the first step from which on, over
ten steps, four calls in five went to the candidate that is best on their topic. Curves of every variant
are written beside the table.

    python benchmarks/ablations.py [--steps 100] [--seed 1] [--only NAME,NAME] --out docs/results/ablations
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from routerr1 import stages
from routerr1.config import Params, load_params
from routerr1.files import atomic_path, atomic_write_text
from routerr1.pool.interface import Pool
from routerr1.progress import track

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "temperature 0.5": {"rollout.temperature": 0.5},
    "temperature 1": {"rollout.temperature": 1.0},
    "16 questions, 8 rollouts": {"train.questions_per_step": 16, "train.rollouts_per_question": 8},
    "over the group's deviation": {"train.scale_rewards": "group"},
    "over the batch's deviation": {"train.scale_rewards": "batch"},
    "parts by themselves": {"train.multi_objective_aggregation": "normalize_then_sum"},
    "no KL": {"train.kl_weight": 0.0},
    "KL 0.2": {"train.kl_weight": 0.2},
    "learning rate 2e-3": {"train.learning_rate": 2e-3},
    "no cost": {"reward.cost_weight": 0.0},
    "redrawn pools": {"pool.redraw": 1.0},
}
SHOWN = (
    "em",
    "best_model_share",
    "top_model_share",
    "calls",
    "formed",
    "no_call_rate",
    "entropy",
    "kl",
)
_WINDOW, _ENOUGH = 10, 0.8


def main() -> None:
    """Parse, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(VARIANTS), help="names with commas between")
    parser.add_argument(
        "--out", type=Path, required=True, help="writes OUT.json, OUT.md and OUT.csv"
    )
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    pool = stages.open_pool(params, stages.read_cards())
    found, curves = {}, []
    for name in given.only.split(","):
        rows = trained_rows(varied(params, VARIANTS[name], given.steps), pool, given.seed, name)
        found[name] = {"changed": VARIANTS[name], **figures(rows)}
        curves += [{"variant": name, **row} for row in rows]
        write(given.out, {"steps": given.steps, "seed": given.seed, "variants": found}, curves)
    print(table(found))


def varied(params: Params, changes: dict[str, Any], steps: int) -> Params:
    """`params` with dotted keys replaced, and validated again."""
    values = params.model_dump()
    for key, value in {**changes, "train.steps": steps, "train.checkpoint_every": steps}.items():
        section, _, field = key.partition(".")
        values[section][field] = value
    return Params.model_validate(values)


def trained_rows(params: Params, pool: Pool, seed: int, name: str) -> list[dict[str, float]]:
    """The log of one training run."""
    from routerr1.train.grpo import train

    setting = stages.train_setting(params, pool, seed)
    start = stages.WARMSTART / f"seed-{seed}"
    with tempfile.TemporaryDirectory() as folder, track(name, params.train.steps) as bar:
        done = train(
            start, setting, Path(folder),
            progress=lambda row: bar.update(int(row["step"]), note=f"EM {row['em']:.2f}"),
        )  # fmt: skip
    return done.rows


def figures(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Of the last tenth, of the best validation, and when most calls first went where they should."""
    last = rows[-max(1, len(rows) // 10) :]
    validated = [row for row in rows if "validation/reward" in row]
    best = max(validated, key=lambda row: (row["validation/reward"], row["step"]), default=None)
    shares = [row.get("best_model_share", 0.0) for row in rows]
    routed = [
        i + 1 for i in range(len(rows) - _WINDOW + 1) if fmean(shares[i : i + _WINDOW]) >= _ENOUGH
    ]
    return {
        "last": {key: fmean(row.get(key, 0.0) for row in last) for key in SHOWN},
        "validation": {key: best.get(f"validation/{key}") for key in SHOWN} if best else None,
        "routes_from_step": routed[0] if routed else None,
    }


def table(found: dict[str, Any]) -> str:
    """One line a variant."""
    lines = [
        "| variant | validation EM | calls to the best | top-model share | calls | EM, last tenth | well formed | "
        "entropy | KL | routes from step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in found.items():
        held, last = entry["validation"] or {}, entry["last"]
        cells = [
            _number(held.get(key)) for key in ("em", "best_model_share", "top_model_share", "calls")
        ]
        cells += [_number(last[key]) for key in ("em", "formed", "entropy", "kl")]
        lines.append(f"| {name} | {' | '.join(cells)} | {entry['routes_from_step'] or 'never'} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def write(out: Path, found: dict[str, Any], curves: list[dict[str, Any]]) -> None:
    """After every variant, so that a killed run keeps what it has."""
    import pandas as pd

    atomic_write_text(out.with_suffix(".json"), json.dumps(found, indent=1, sort_keys=True) + "\n")
    atomic_write_text(out.with_suffix(".md"), table(found["variants"]))
    with atomic_path(out.with_suffix(".csv")) as aside:
        frame = pd.DataFrame(curves)
        frame[["variant", "step", *(key for key in SHOWN if key in frame)]].to_csv(
            aside, index=False, float_format="%.4g"
        )


if __name__ == "__main__":
    main()
