"""Time and memory of the dataset and checks stages on made-up questions, from ten thousand to two million.

    python -m benchmarks.data --rows 10000 100000 1000000 2000000 --out docs/results

Every size runs in its own process, so that peak memory is measured per size. One row in a hundred
is held out for testing, one in two hundred for validation; one in a hundred training rows repeats
another, and one in two hundred resembles a held-out one. Writes data-scale.json and data-scale.svg.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import shared
from routerr1.files import write_json

SIZES = (10_000, 100_000, 1_000_000, 2_000_000)
_NUM_WORDS = 50_000


def made_up(num_rows: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(upstream split, row): test first, then dev, then train."""
    draw = random.Random(seed)
    letters = "abcdefghiklmnoprstuvw"
    words = ["".join(draw.choices(letters, k=draw.randrange(3, 10))) for _ in range(_NUM_WORDS)]
    num_test, num_dev = num_rows // 100, num_rows // 200
    held_out: list[str] = []
    last = ""
    for number in range(num_rows):
        split = "test" if number < num_test else "dev" if number < num_test + num_dev else "train"
        question = "who " + " ".join(draw.choices(words, k=9))
        if split == "test":
            held_out.append(question)
        elif split == "train" and number % 100 == 7:
            question = last.upper() + "?"
        elif split == "train" and number % 200 == 9:
            question = draw.choice(held_out) + " now"
        last = question
        row = {
            "id": f"{split}_{number}",
            "question": question,
            "golden_answers": [" ".join(draw.choices(words, k=2))],
            "metadata": {"source": "made up"},
        }
        yield split, row


def write(folder: Path, num_rows: int, seed: int) -> int:
    """Write the rows as JSONL; returns their bytes."""
    (folder / "nq").mkdir(parents=True)
    files = {
        split: (folder / "nq" / f"{split}.jsonl").open("w") for split in ("test", "dev", "train")
    }
    for split, row in made_up(num_rows, seed):
        files[split].write(json.dumps(row) + "\n")
    for file in files.values():
        file.close()
    return sum(Path(file.name).stat().st_size for file in files.values())


def run_one(folder: Path, work: Path) -> dict[str, Any]:
    """Both stages on the questions of `folder`; times in seconds, memory in mebibytes."""
    from routerr1.config import DatasetParams, load_params
    from routerr1.data.build import build_dataset
    from routerr1.data.checks import run_checks

    params = load_params()
    whole = params.dataset.model_dump()
    splits = {"train": "train", "validation": "dev", "test": "test"}
    sets = {"nq": {split: {"source": name, "rows": None} for split, name in splits.items()}}
    whole |= {
        "source": "benchmarks",
        "benchmarks": {**whole["benchmarks"], "folder": folder, "sets": sets},
    }
    dataset = DatasetParams.model_validate(whole)
    figures: dict[str, Any] = {}
    for stage in ("dataset", "checks"):
        wall, cpu = time.perf_counter(), time.process_time()
        if stage == "dataset":
            found = build_dataset(dataset, work / "questions")
            figures |= {"read": found["read"]["nq"], "refused": found["refused"]["nq"]}
        else:
            checks = params.checks.replace(accepted=None)
            found = run_checks(work / "questions", dataset, checks, work / "checks")
            figures |= {"expectations": found["expectations"], "passed": found["passed"]}
        figures[stage] = {
            "wall_s": round(time.perf_counter() - wall, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
    return figures


def measure(num_rows: int, seed: int) -> dict[str, Any]:
    """One size, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = write(folder / "source", num_rows, seed)
        command = [sys.executable, "-m", "benchmarks.data"]
        command += ["--one", str(folder / "source"), str(folder / "work")]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return {"rows": num_rows, "source_mib": round(size / 2**20), **json.loads(done.stdout)}


def plot(curve: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds and peak memory against rows."""
    from matplotlib.figure import Figure

    rows = [point["rows"] for point in curve]
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    for stage in ("dataset", "checks"):
        left.plot(rows, [point[stage]["cpu_s"] for point in curve], marker="o", label=stage)
        right.plot(rows, [point[stage]["peak_mib"] for point in curve], marker="o", label=stage)
    left.set(xscale="log", yscale="log", xlabel="rows", ylabel="CPU seconds")
    right.set(xscale="log", xlabel="rows", ylabel="peak memory so far, MiB", ylim=(0, 2048))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    shared.save(figure, path)


def main() -> None:
    """Measure every size, print and write."""
    parser = shared.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_one(*given.one)))
        return
    curve = []
    given.out.mkdir(parents=True, exist_ok=True)
    for num_rows in given.rows:
        curve.append(measure(num_rows, given.seed))
        print(json.dumps(curve[-1]), flush=True)
        found = {"machine": shared.machine(), "seed": given.seed, "curve": curve}
        write_json(given.out / "data-scale.json", found)
        plot(curve, given.out / "data-scale.svg")


if __name__ == "__main__":
    main()
