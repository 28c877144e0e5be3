"""What is written is read back, to the byte and in order; a wrong file is named with its fault."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from routerr1.data import splits
from routerr1.data.splits import read_questions, split_path, write_questions
from routerr1.errors import DataError
from routerr1.files import sha256
from routerr1.types import SPLITS, Question
from tests.data.conftest import worded

ODD = Question(
    "id\n1", "set", "¿Qué?\t\"“  🇫🇷", ("Zürich", "苏黎世"), "test", None, {"b": [1, None], "a": {"x": 0.5}}
)  # fmt: skip


def test_rows_survive_the_round_trip(tmp_path: Path) -> None:
    rows = [*worded(20), ODD]
    counts = write_questions(tmp_path, rows)
    assert counts == {
        "mine": {"train": 12, "validation": 4, "test": 4},
        "set": {"train": 0, "validation": 0, "test": 1},
    }
    for split in SPLITS:
        assert read_questions(tmp_path, split) == [row for row in rows if row.split == split]


def test_bytes_do_not_depend_on_how_the_rows_come_in(tmp_path: Path) -> None:
    rows = worded(2 * splits.GROUP_ROWS)
    write_questions(tmp_path / "whole", rows)
    with splits.SplitWriter(tmp_path / "pieces") as writer:
        for some in splits.chunks(rows, 700):
            writer.write(splits.to_table(some))
    for split in SPLITS:
        one, other = (split_path(tmp_path / name, split) for name in ("whole", "pieces"))
        assert sha256(one) == sha256(other)
    assert (
        pq.ParquetFile(split_path(tmp_path / "whole", "train")).num_row_groups == 2
    )  # 60 % of the rows


def test_a_failure_half_way_leaves_the_old_files(tmp_path: Path) -> None:
    write_questions(tmp_path, worded(10))
    before = {path.name: sha256(path) for path in tmp_path.iterdir()}

    def broken() -> Iterator[Question]:
        yield from worded(20, seed=2)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_questions(tmp_path, broken())
    assert {path.name: sha256(path) for path in tmp_path.iterdir()} == before


def test_no_rows_make_three_empty_files(tmp_path: Path) -> None:
    assert write_questions(tmp_path, []) == {}
    assert read_questions(tmp_path, "validation") == []


@pytest.mark.parametrize(
    ("problem", "table"),
    [
        ("column id is missing", pa.table({"question": ["x"]})),
        ("column hops is string, must be int32", None),
    ],
)
def test_other_columns_are_named(problem: str, table: pa.Table | None, tmp_path: Path) -> None:
    if table is None:
        table = splits.to_table(worded(5))
        place = table.schema.get_field_index("hops")
        table = table.set_column(place, "hops", pa.array(["1"] * 5))
    pq.write_table(table, split_path(tmp_path, "train"))
    with pytest.raises(DataError, match=rf"train\.parquet: .*{problem}"):
        read_questions(tmp_path, "train")


def test_a_row_with_broken_metadata_is_named(tmp_path: Path) -> None:
    write_questions(tmp_path, [replace(ODD, split="train")])
    table = pq.read_table(split_path(tmp_path, "train"))
    broken = table.set_column(table.schema.get_field_index("metadata"), "metadata", pa.array(["{"]))
    pq.write_table(broken, split_path(tmp_path, "train"))
    with pytest.raises(DataError, match=r"train\.parquet: row 'id\\n1'"):
        read_questions(tmp_path, "train")


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation\.parquet: not found"):
        read_questions(tmp_path, "validation")
