"""Files that cannot be understood are errors with file and line; no reader yields half of one."""

import gzip
import json
import math
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from routerr1.data.sources import MAX_LINE_BYTES, Raw, read_rows
from routerr1.errors import DataError

COLUMNS = ("question", "golden_answers")
GOOD = b'{"question": "q", "golden_answers": ["a"]}\n'


def rows(path: Path) -> list[Raw]:
    return list(read_rows(path, COLUMNS))


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.NDJSON.GZ", "a.csv", "a.csv.gz", "a.parquet"],
)
def test_every_kind_of_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    texts = [("Où, donc?", "ici"), ('say "x"', "1\n2")]
    values = [{"question": question, "golden_answers": answer} for question, answer in texts]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(values), path)
    elif "json" in name.lower():
        content = "\n".join(map(json.dumps, values)).encode()
    else:
        content = 'question,golden_answers\n"Où, donc?",ici\n"say ""x""","1\n2"\n'.encode()
    if not name.endswith(".parquet"):
        path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert [raw.values for raw in rows(path)] == values


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_a_file_with_tabs_may_quote_its_cells_or_not(name: str, tmp_path: Path) -> None:
    # "say ""x""" is a cell as pandas writes it; the others are as most published files have them.
    lines = 'question\tgolden_answers\nOù, "donc"?\tici\n"say ""x"""\t1\n"Hey" he said\t"2\n'
    content = lines.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [tuple((raw.values or {}).values()) for raw in rows(tmp_path / name)] == [
        ('Où, "donc"?', "ici"),
        ('say "x"', "1"),
        ('"Hey" he said', '"2'),
    ]


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\n  \n" + GOOD)
    assert [raw.line for raw in rows(tmp_path / "a.jsonl")] == [1, 4]
    (tmp_path / "a.csv").write_text('question,golden_answers\n"two\nlines",a\nq,b\n')
    assert [raw.line for raw in rows(tmp_path / "a.csv")] == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", GOOD + b'{"question": "q\xff"}\n', r"a\.jsonl, line 2: is not UTF-8 \(byte 16"),
        ("a.jsonl", GOOD + b'{"question": \n', r"a\.jsonl, line 2: is not JSON"),
        ("a.jsonl", GOOD + b"[1]\n", r"a\.jsonl, line 2: is not a JSON object"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl, line 1: is not JSON"),
        ("a.jsonl", b"[" + b"1" * 5000 + b"]", r"a\.jsonl, line 1: is not JSON"),
        ("a.jsonl", b'{"question": "q", "answer": "a"}\n',
         r"a\.jsonl, line 1: no column 'golden_answers' \(there are: question, answer\)"),
        ("a.tsv", b'question\tgolden_answers\nq\t"one\ntwo"\n',
         r"a\.tsv, line 3: has not the 2 cells of the header; a cell of a \.tsv file holds no tab or"),
        ("a.tsv", b"question,golden_answers\nq,a\n",
         r"a\.tsv: no column 'question' \(there are: question,golden_answers\); the cells of a \.tsv"),
        ("a.jsonl", b"", r"a\.jsonl: holds no row"),
        ("a.jsonl", b"\n\n", r"a\.jsonl: holds no row"),
        ("a.jsonl.gz", gzip.compress(GOOD, mtime=0)[:-9], r"a\.jsonl\.gz: is damaged or no gzip file"),
        ("a.jsonl.gz", GOOD, r"a\.jsonl\.gz: is damaged or no gzip file"),
        ("a.csv", b"question,golden_answers\nq,a\nq\xff,a\n", r"a\.csv, line 3: is not UTF-8"),
        ("a.csv", b"question,golden_answers\nq,a\nq,a,b\n", r"a\.csv, line 3: has not the 2 cells"),
        ("a.csv", b"question,golden_answers\nq,a\nq\n", r"a\.csv, line 3: has not the 2 cells"),
        ("a.csv", b'question,golden_answers\nq,"a" b\n', r"a\.csv, line 2: is not CSV"),
        ("a.csv", b"question,answer\nq,a\n", r"a\.csv: no column 'golden_answers'"),
        ("a.csv", b"question,golden_answers\n", r"a\.csv: holds no row"),
        ("a.csv", b"", r"a\.csv: holds no row"),
        ("a.csv", b"question;golden_answers\nq;a\n", r"a\.csv: no column .* separated by commas"),
        ("a.csv", "question\n".encode("utf-32"), r"a\.csv: is UTF-32; save it as UTF-8"),
        ("a.jsonl", GOOD.decode().encode("utf-16")[:-1], r"a\.jsonl: is not whole UTF-16"),
        ("a.jsonl", b'[{"question": "q"}]', r"line 1: is not a JSON object; a whole .* must end in \.json"),
        ("a.jsonl", b'{\n"question": "q"}', r"line 1: is not JSON .*; a whole .* must end in \.json"),
        ("a.jsonl", GOOD + b'{"question": "q", "golden_answers": "a", "golden_answers": "b"}',
         r"a\.jsonl, line 2: two columns have the name 'golden_answers'"),
        ("a.json", b'[{"question": "q", "golden_answers": "a", "golden_answers": "b"}]',
         r"a\.json: two columns have the name 'golden_answers'"),
        ("a.parquet", b"", r"a\.parquet: is not a Parquet file"),
        ("a.parquet", b"PAR1xxxx", r"a\.parquet: is not a Parquet file"),
        ("a.txt", GOOD, r"a\.txt: must end in one of \.jsonl"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_is_named_with_its_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: not found"):
        rows(tmp_path / "absent.jsonl")


@pytest.mark.parametrize("ending", [b"\n" + GOOD, b""])
def test_a_line_of_ten_megabytes_is_passed_over_and_not_held(ending: bytes, tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b'{"question": "' + b"x" * 10_000_000 + b'"}' + ending)
    tracemalloc.start()
    found = rows(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [raw.line for raw in found] == ([1, 2, 3] if ending else [1, 2])
    assert found[1].values is None
    assert peak < 4 * MAX_LINE_BYTES


def test_a_parquet_file_cut_short_is_no_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": ["q"] * 999, "golden_answers": ["a"] * 999}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet: is not a Parquet file"):
        rows(path)


def test_blank_lines_count_and_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\n\nquestion,golden_answers\n\nq,"a\nb"\n\nr,c\n')
    assert [raw.line for raw in rows(tmp_path / "a.csv")] == [5, 8]
    (tmp_path / "b.csv").write_text(" question , golden_answers\n   \n,\nq,a\n")
    assert rows(tmp_path / "b.csv") == [Raw(4, {"question": "q", "golden_answers": "a"})]


def test_columns_of_a_parquet_file_that_are_of_no_use_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    lost = pa.array([0], pa.timestamp("s", tz="Mars/Olympus"))
    pq.write_table(pa.table({"question": ["q"], "golden_answers": ["a"], "when": lost}), path)
    (raw,) = read_rows(path, COLUMNS, only=COLUMNS)
    assert raw.values == {"question": "q", "golden_answers": "a"}
    with pytest.raises(DataError, match=r"a\.parquet, row 1: cannot be read"):
        rows(path)
    with pytest.raises(
        DataError, match=r"a\.parquet: no column 'x' \(there are: question, golden_"
    ):
        list(read_rows(path, ["x"], only=["x"]))


def test_numbers_of_32_bits_are_as_long_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    answers = pa.array([0.1, 3.0, None, float("nan")], pa.float32())
    pq.write_table(pa.table({"question": ["q"] * 4, "golden_answers": answers}), path)
    found = [raw.values["golden_answers"] for raw in rows(path) if raw.values]
    assert found[:3] == [0.1, 3.0, None]
    assert math.isnan(found[3])


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_two_columns_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".csv"):
        path.write_text("question,golden_answers,golden_answers\nq,a,b\n")
    else:
        names = ["question", "golden_answers", "golden_answers"]
        pq.write_table(pa.table([["q"], ["a"], ["b"]], names=names), path)
    with pytest.raises(DataError, match="two columns have the name 'golden_answers'"):
        rows(path)


def test_a_long_row_of_a_csv_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"question,golden_answers\n{'x' * 2_000_000},a\nq,a\n")
    assert [raw.values is None for raw in rows(tmp_path / "a.csv")] == [True, False]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_byte_order_marks_are_read(encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "a.CSV").write_bytes(f"{mark}question,golden_answers\nOù,ici\n".encode(encoding))
    assert [raw.values for raw in rows(tmp_path / "a.CSV")] == [
        {"question": "Où", "golden_answers": "ici"}
    ]
    row = {"question": "Où", "golden_answers": "ici"}
    lines = f"{mark}{json.dumps(row)}\n\n{json.dumps(row)}"
    (tmp_path / "a.jsonl").write_bytes(lines.encode(encoding))
    assert rows(tmp_path / "a.jsonl") == [Raw(1, row), Raw(3, row)]


@pytest.mark.parametrize(
    "document",
    [
        [{"question": "q", "golden_answers": ["a"], "_id": "5a"}],  # HotpotQA
        {"data": [{"question": "q", "golden_answers": ["a"]}]},
        {
            "data": [{"paragraphs": [{"qas": [{"question": "q", "golden_answers": ["a"]}]}]}]
        },  # SQuAD
    ],
)
def test_json_documents_are_read_as_they_are_published(document: object, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.JSON.GZ", "wt") as file:
        json.dump(document, file)
    (raw,) = rows(tmp_path / "a.JSON.GZ")
    assert raw.values is not None
    assert (raw.values["question"], raw.values["golden_answers"]) == ("q", ["a"])


def test_a_csv_file_without_a_header_takes_names(tmp_path: Path) -> None:
    (tmp_path / "mmlu.csv").write_text("Which is a noble gas?,Iron,Neon,Tin,Zinc,B\n")
    (raw,) = read_rows(
        tmp_path / "mmlu.csv", ["question", "answer"], ["question", "A", "B", "C", "D", "answer"]
    )
    assert raw.values is not None
    assert raw.values["answer"] == "B"


@pytest.mark.parametrize(
    ("value", "shape", "seen"),
    [(0.5, "0%", "50%"), (0.125, "0.0%", "12.5%"), (1.0, "0.00%", "100%"), (501, "00000", "00501"),
     (501, "General", 501), (0.5, "0.00", 0.5), (True, "0%", True)],
)  # fmt: skip
def test_percentages_and_leading_zeros_of_excel_are_read_as_they_are_seen(
    value: object, shape: str, seen: object, tmp_path: Path
) -> None:
    book = openpyxl.Workbook()
    book.active.append(["question", "golden_answers"])
    book.active.append(["q", value])
    book.active["B2"].number_format = shape
    book.save(tmp_path / "a.xlsx")
    (raw,) = rows(tmp_path / "a.xlsx")
    assert raw.values == {"question": "q", "golden_answers": seen}


def test_the_first_sheet_of_an_excel_file_is_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for cells in (
        [None, None],
        ["question", "golden_answers"],
        ["q", 3.0],
        [None, None],
        ["r", "a"],
    ):
        book.active.append(cells)
    book.save(tmp_path / "a.xlsx")
    assert [(raw.line, raw.values) for raw in rows(tmp_path / "a.xlsx")] == [
        (3, {"question": "q", "golden_answers": 3}),
        (5, {"question": "r", "golden_answers": "a"}),
    ]
    (tmp_path / "b.xlsx").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"b\.xlsx: is no Excel file"):
        rows(tmp_path / "b.xlsx")
