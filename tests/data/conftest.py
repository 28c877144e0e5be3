"""A small clean data set: embedded questions, and imported ones that are compared by wording."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import ChecksParams, DatasetParams, load_params
from routerr1.data.build import build_dataset
from routerr1.data.splits import write_questions
from routerr1.types import SPLITS, Question

ROOT = Path(__file__).parents[2]
QA = ROOT.parent / "shared" / "data" / "qa"


def dataset_params(**changes: Any) -> DatasetParams:
    """The default section, with the smallest embedded benchmark."""
    small = {"embedded": {"countries": 14, "airports": 10, "elements": 10, "test_share": 0.3,
                          "validation_share": 0.1}}  # fmt: skip
    whole = load_params(ROOT / "params.yaml").dataset.model_dump()
    return DatasetParams.model_validate(whole | small | changes)


def checks_params(**changes: Any) -> ChecksParams:
    """The default section, comparing with nothing."""
    whole = load_params(ROOT / "params.yaml").checks.model_dump()
    return ChecksParams.model_validate(whole | {"accepted": None} | changes)


def worded(num_rows: int, seed: int = 1, dataset: str = "mine") -> list[Question]:
    """Rows of eight made-up words each, none like another; 60% train, 20% validation, 20% test."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abdeiklmnorstu", k=draw.randrange(4, 9))) for _ in range(400)]
    splits = [*(["train"] * 3), "validation", "test"]
    return [
        Question(
            id=f"{dataset}_{number}",
            dataset=dataset,
            question=f"Who {' '.join(draw.choices(words, k=8))}?",
            golden_answers=(f"gold{number}",),
            split=splits[number % 5],  # type: ignore[arg-type]
            hops=1,
        )
        for number in range(num_rows)
    ]


def import_of(folder: Path, rows: Sequence[Question]) -> Path:
    """A file as `routerr1 data import` leaves it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from routerr1.data.splits import read_tables, split_path

    write_questions(folder / "split", rows)
    tables = [t for split in SPLITS for t in read_tables(split_path(folder / "split", split))]
    pq.write_table(pa.concat_tables(tables), folder / "mine.parquet")
    return folder / "mine.parquet"


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetParams]:
    """Folder and parameters of a data set that meets every expectation."""
    folder = tmp_path_factory.mktemp("clean")
    params = dataset_params(imported=[import_of(folder, worded(300))])
    build_dataset(params, folder / "questions")
    return folder / "questions", params
