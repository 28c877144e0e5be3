"""Exact match on changed pools and other wordings, seed by seed, from the rows of the stage generalize.

Run it where the chain has run with several seeds, for example

    dvc repro -s train generalize          # after `seeds: [1, 2, 3]`
    python -m benchmarks.changes [--out docs/results/changes]

Prints one JSON object; --out STEM also writes it to STEM.json and puts its tables into STEM.md, between the
markers. `ratio` is the policy's exact match over that of best-on-cards on the same pool (`worst_ratio` in
`routerr1/evaluate/generalize.py`), `of_own` over its own on the questions as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks import shared
from routerr1.data.rewording import WORDINGS
from routerr1.evaluate.controls import POLICY
from routerr1.evaluate.generalize import worst_ratio
from routerr1.evaluate.rows import Row, read_rows
from routerr1.evaluate.run import TRAINING_POOL
from routerr1.lineage import PATHS

MARKS = "<!-- tables of changes.json -->", "<!-- end of the tables -->"
Figures = Mapping[str, Mapping[str, float]]  # of one seed, by change


def main() -> None:
    """Read, compute, print."""
    parser = shared.parser(__doc__)
    parser.add_argument("--rows", type=Path, default=PATHS.generalize / "rows.parquet")
    parser.add_argument("--out", type=Path, metavar="STEM")
    arguments = parser.parse_args()
    rows = read_rows(arguments.rows)
    seeds = {str(seed): figures(rows, seed) for seed in sorted({row.seed for row in rows})}
    found = {
        "questions": len({(row.dataset, row.question_id) for row in rows}),
        "smallest": {seed: smallest(each) for seed, each in seeds.items()},
        "seeds": seeds,
    }
    shared.report(found, arguments.out)
    if arguments.out:
        tables = f"{table(seeds, 'ratio')}\n\n{table(seeds, 'of_own')}"
        shared.fill(arguments.out.with_suffix(".md"), MARKS, tables)


def figures(rows: Sequence[Row], seed: int) -> dict[str, dict[str, float]]:
    """Exact match of one seed's policy by change, with its ratio to the control or to its own."""
    by_pool: dict[str, list[Row]] = {}
    for row in rows:
        if row.seed == seed:
            by_pool.setdefault(row.pool, []).append(row)
    em = {
        name: fmean(row.em for row in each if row.router == POLICY)
        for name, each in by_pool.items()
    }
    found = {}
    for name, each in by_pool.items():
        entry = {"em": round(em[name], 4)}
        ratio = worst_ratio(each)
        if name in WORDINGS:
            entry["of_own"] = round(em[name] / em[TRAINING_POOL], 4)
        elif ratio is not None:
            entry["ratio"] = round(ratio.ratio, 4)
        found[name] = entry
    return found


def smallest(found: Figures) -> dict[str, str | float]:
    """The change of the smallest ratio; the pool of training is none."""
    ratios = {
        name: entry["ratio"]
        for name, entry in found.items()
        if "ratio" in entry and name != TRAINING_POOL
    }
    name = min(ratios, key=lambda each: ratios[each])
    return {"change": name, "ratio": ratios[name]}


def table(seeds: Mapping[str, Figures], field: str) -> str:
    """A row for each change that has `field`, the smallest over seeds first."""
    names = {name for found in seeds.values() for name, entry in found.items() if field in entry}
    order = sorted(names, key=lambda name: (min(seeds[seed][name][field] for seed in seeds), name))
    what = "change" if field == "ratio" else "wording"
    return shared.table(
        (what, *(f"seed {seed}" for seed in seeds)),
        [
            (name, *(f"{each[name]['em']:.2f}, {each[name][field]:.2f}" for each in seeds.values()))
            for name in order
        ],
    )


if __name__ == "__main__":
    main()
