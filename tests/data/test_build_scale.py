"""The stages stream: memory is bounded by a batch, not by the rows, and the benchmark says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import ROOT, dataset_params, worded

pytestmark = pytest.mark.slow


def test_the_benchmark_measures_both_stages_and_draws_the_curve(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.data",
        "--rows",
        "500",
        "4000",
        "--out",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    small, large = json.loads((tmp_path / "data-scale.json").read_text())["curve"]
    assert (small["read"], large["read"]) == (500, 4000)
    assert small["expectations"] == small["passed"] == large["passed"] == 21
    # One training row in 100 repeats the one before it, one in 200 resembles a held-out one.
    assert 30 <= large["refused"]["duplicate"] <= 60
    assert 10 <= large["refused"]["near_duplicate"] <= 20
    for stage in ("dataset", "checks"):
        assert large[stage]["peak_mib"] < 1024
    assert (tmp_path / "data-scale.svg").read_text().startswith("<?xml")


def traced_peak(folder: Path, num_rows: int) -> int:
    """Bytes that Python held at most while it built `num_rows` long questions."""
    import tracemalloc

    from routerr1.data.build import build_dataset

    (folder / "nq").mkdir(parents=True)
    long = "and so on " * 100
    with (folder / "nq" / "train.jsonl").open("w") as file:
        for row in worded(num_rows):
            told = {"id": row.id, "question": f"{row.question} {long}", "golden_answers": ["x"]}
            file.write(json.dumps(told) + "\n")
    sets = {"nq": {"train": {"source": "train", "rows": None}}}
    at = {"folder": folder, "repo": "owner/name", "revision": "0" * 40, "sets": sets}
    params = dataset_params(source="benchmarks", benchmarks=at)
    tracemalloc.start()
    build_dataset(params, folder / "out")
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def test_a_further_row_costs_its_numbers_and_not_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("routerr1.data.build", "routerr1.data.splits"):
        monkeypatch.setattr(f"{place}.GROUP_ROWS", 256)
    traced_peak(tmp_path / "warm", 100)  # imports are not the rows' fault
    few, many = traced_peak(tmp_path / "few", 2000), traced_peak(tmp_path / "many", 6000)
    # A question has 1,050 characters here; keys, rank and place have 42 bytes, doubled while they grow.
    assert (many - few) / 4000 < 200
