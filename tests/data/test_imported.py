"""Own questions: what is kept, what is refused and why, and how the chain uses them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from routerr1.cli.data import app
from routerr1.config import ColumnsParams, DatasetParams
from routerr1.data.build import build_dataset
from routerr1.data.checks import run_checks
from routerr1.data.imported import KNOWN, Imported, Shares, import_file, remember, require_known
from routerr1.data.splits import read_file, read_questions, write_questions
from routerr1.errors import CheckFailed, DataError
from routerr1.files import read_json, sha256
from routerr1.types import SPLITS
from tests.data.conftest import ROOT, checks_params, dataset_params, worded

COLUMNS = ColumnsParams(id="id", question="q", golden_answers="a", hops="h", metadata=None)


def imported(path: Path, **changes: Any) -> Imported:
    given: dict[str, Any] = {"out": path.parent / "out", "shares": Shares(0.2, 0.1)}
    return import_file(path, "mine", COLUMNS, **given | changes)


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "q": f"Question number {number}?", "a": ["x"], "h": 1} | changes


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("no_question", {"q": None}),
        ("no_question", {"q": "  "}),
        ("no_question", {"q": "?!"}),
        ("no_question", {"q": 7}),
        ("no_question", {"q": "NULL"}),
        ("no_answer", {"a": []}),
        ("no_answer", {"a": None}),
        ("no_answer", {"a": "  "}),
        ("answers_say_nothing", {"a": ["---", "The"]}),
        ("answers_as_text", {"a": "['Paris', 'Lutetia']"}),
        ("answers_as_text", {"a": ["['Paris']"]}),
        ("answers_as_text", {"a": "{'text': array(['Paris'])}"}),
        ("answers_as_text", {"a": "('Paris', 'Lutetia')"}),
        ("answer_is_missing", {"a": "nan"}),
        ("answer_is_missing", {"a": ["NULL", "#N/A"]}),
        ("answer_is_missing", {"a": float("nan")}),
        ("answer_is_missing", {"a": "NaT"}),
        ("answer_is_missing", {"a": "\\N"}),
        ("answer_is_missing", {"a": "#DIV/0!"}),
        ("answer_is_missing", {"a": [None]}),
        ("answer_is_missing", {"a": [None, float("nan")]}),
        ("answers_as_text", {"a": "Counter({'Paris': 1})"}),
        ("answers_as_text", {"a": "np.float64(3.0)"}),
        ("answers_as_text", {"a": "np.str_('Paris')"}),
        ("answers_as_text", {"a": "Timestamp('2020-01-01 00:00:00')"}),
        ("answers_as_text", {"a": "datetime.date(2020, 1, 1)"}),
        ("answers_as_text", {"a": "Decimal('3.5')"}),
        ("answers_as_text", {"a": "frozenset({'Paris'})"}),
        ("answers_as_text", {"a": "b'Paris'"}),
        ("answers_as_text", {"a": "<Answer object at 0x7f3a>"}),
        ("answers_not_text", {"a": [{"start": 3}]}),
        ("answers_not_text", {"a": float("inf")}),
        ("hops_not_a_number", {"h": "two"}),
        ("hops_not_a_number", {"h": 0}),
        ("hops_not_a_number", {"h": 1.5}),
        ("hops_not_a_number", {"h": 2**31}),
        ("hops_not_a_number", {"h": 10**400}),
        ("answers_as_text", {"a": "[" * 100_000 + "]" * 100_000}),
        ("no_id", {"id": " "}),
        ("no_id", {"id": None}),
        ("duplicate_id", {"id": 1}),
        ("duplicate", {"q": "QUESTION number １ ..."}),
        ("not_unicode", {"q": "half a \ud83d character"}),
    ],
)
def test_a_row_that_cannot_be_used_is_counted_with_its_line(
    reason: str, change: dict[str, Any], tmp_path: Path
) -> None:
    found = imported(jsonl(tmp_path, row(1), row(2) | change, row(3)))
    assert found.refused == {reason: 1}
    assert found.rows.total() == 2
    (told,) = map(json.loads, found.report.read_text(encoding="utf-8").splitlines())
    assert (told["line"], told["reason"]) == (2, reason)
    assert [kept.id for kept in read_file(found.path)] == ["1", "3"]


def test_a_line_of_ten_megabytes_is_refused(tmp_path: Path) -> None:
    found = imported(jsonl(tmp_path, row(1), row(2, q="x" * 10_000_000), row(3)))
    assert found.refused == {"line_too_long": 1}
    assert found.rows.total() == 2


@pytest.mark.parametrize(
    ("cell", "separator", "golds"),
    [
        ("Paris", None, ("Paris",)),
        ('["Paris", "Lutetia"]', None, ("Paris", "Lutetia")),
        ('{"text": ["Paris"]}', None, ("Paris",)),
        ([{"text": "Paris", "answer_start": 3}], None, ("Paris",)),
        ({"value": "Paris", "aliases": ["Lutetia"]}, None, ("Paris", "Lutetia")),
        ("(1997)", None, ("(1997)",)),
        ("f(3)", None, ("f(3)",)),
        ("Paris (at 0)", None, ("Paris (at 0)",)),
        (["Paris", None, "nan", float("nan")], None, ("Paris",)),
        ({"Value": "Paris", "Aliases": ["Lutetia"], "Type": "x"}, None, ("Paris", "Lutetia")),
        ("3 x 24 = 72 #### 72", None, ("3 x 24 = 72 #### 72",)),
        (1889.0, None, ("1889",)),
        ("Paris|  Lutetia", "|", ("Paris", "Lutetia")),
        ("Paris|Paris|the", "|", ("Paris",)),
        (["Paris", 1889], None, ("Paris", "1889")),
        (1889, None, ("1889",)),
        (2.5, None, ("2.5",)),
        (True, None, ("yes",)),
        ([False], None, ("no",)),
        (10**400, None, ("1" + 400 * "0",)),
    ],
)
def test_answers_come_as_a_list_as_json_or_in_one_cell(
    cell: object, separator: str | None, golds: tuple[str, ...], tmp_path: Path
) -> None:
    columns = COLUMNS.model_copy(update={"separator": separator})
    path = jsonl(tmp_path, row(1, a=cell))
    found = import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0))
    assert next(read_file(found.path)).golden_answers == golds


def test_a_parquet_file_is_taken_too_and_ids_are_made_where_there_are_none(tmp_path: Path) -> None:
    table = pa.table({"q": ["Who?", "What?"], "a": [["x"], ["y"]], "h": [None, 2.0]})
    pq.write_table(table, tmp_path / "own.parquet")
    found = imported(tmp_path / "own.parquet")
    assert [(kept.id, kept.hops) for kept in read_file(found.path)] == [
        ("mine_1", None),
        ("mine_2", 2),
    ]


def test_a_gap_makes_floats_of_whole_numbers_and_they_are_read_as_whole(tmp_path: Path) -> None:
    """As pandas writes a column of whole numbers in which one is missing."""
    path = tmp_path / "own.csv"
    path.write_text("id,q,a,h\n7.0,Who?,x,2.0\n8,What?,y,\n9,Where?,z,nan\n10,When?,u, 3 \n")
    assert [kept.hops for kept in read_file(imported(path).path)] == [2, None, None, 3]
    table = pa.table({"id": [7.0, 8.0], "q": ["Who?", "What?"], "a": ["x", "y"], "h": [1, 1]})
    pq.write_table(table, tmp_path / "own.parquet")
    assert [kept.id for kept in read_file(imported(tmp_path / "own.parquet").path)] == ["7", "8"]


def test_a_topic_that_is_missing_is_none(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,a,t\nWho?,x,nan\nWhat?,y,\nWhere?,z,NULL\nWhen?,u,time\n")
    columns = ColumnsParams(question="q", golden_answers="a", topic="t")
    found = import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0))
    assert [kept.metadata.get("topic") for kept in read_file(found.path)] == [None] * 3 + ["time"]


def test_a_question_may_have_fewer_options_than_the_others(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,A,B,C,a\nWho?,x,y,z,C\nWhat?,x,y,,B\nWhere?,x,,z,A\nWhen?,x,,,A\n")
    columns = ColumnsParams(question="q", golden_answers="a", options=("A", "B", "C"))
    found = import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0))
    kept = list(read_file(found.path))
    assert [each.question for each in kept] == ["Who? A) x B) y C) z", "What? A) x B) y"]
    assert found.refused == {"options_unclear": 2}  # a gap among the options, and one option alone


FOUR = ["0", "4", "2", "6"]


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (FOUR, 1, "B"),  # MMLU of the hub
        (FOUR, 1.0, "B"),
        (FOUR, "3", "D"),
        (FOUR, "6", "6"),  # an option's text
        (FOUR, "C", "C"),
        (json.dumps(FOUR), 0, "A"),
        ({"text": FOUR, "label": ["A", "B", "C", "D"]}, "B", "B"),  # ARC
        ({"text": FOUR, "label": ["1", "2", "3", "4"]}, "4", "D"),
        ({"text": FOUR, "label": [1, 2, 3, 4]}, " 1 ", "A"),
        ({"text": FOUR, "label": [1, 2, 3, 4]}, 1.0, "A"),
        ({"text": FOUR, "label": ["A", "B", "C", "D"]}, "6", "6"),
        (json.dumps({"text": FOUR, "label": ["1", "2", "3", "4"]}), "1", "A"),  # ARC in a cell
        (json.dumps({"text": FOUR, "label": ["P", "Q", "R", "S"]}), "Q", "B"),
        (FOUR, "2", "2"),  # number and text of one option
    ],
)
def test_one_column_can_hold_all_options(
    options: object, answer: object, letter: str, tmp_path: Path
) -> None:
    columns = COLUMNS.model_copy(update={"options": ("choices",)})
    path = jsonl(tmp_path, row(1, choices=options, a=answer))
    (kept,) = read_file(import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0)).path)
    assert kept.question == "Question number 1? A) 0 B) 4 C) 2 D) 6"
    assert kept.golden_answers == (letter,)
    assert kept.metadata["options"] == FOUR


@pytest.mark.parametrize(
    ("options", "answer", "letter"), [(["False", "TRUE"], True, "B"), (["Yes", "no", "?"], False, "B")]
)  # fmt: skip
def test_a_boolean_chooses_the_option_that_says_it(
    options: list[str], answer: bool, letter: str, tmp_path: Path
) -> None:
    columns = COLUMNS.model_copy(update={"options": ("choices",)})
    path = jsonl(tmp_path, row(1, choices=options, a=answer))
    (kept,) = read_file(import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0)).path)
    assert kept.golden_answers == (letter,)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["Paris", "Paris", "Rome"], 1),
        (["B", "A", "C"], "A"),  # the letter of one, the text of another
        (["AA", "Aa", "aa"], "aa"),
        (FOUR, True), (FOUR, 4), (FOUR, -1), ("['0' '4' '2' '6']", 1), ("four", 1), (["one"], 0), (None, 0),
        (["3", "0", "1"], "1"),  # as a number 0, as text 1
        ({"text": FOUR, "label": ["A", "B", "C"]}, "B"),
        (json.dumps({"text": FOUR, "label": []}), "B"),
        ({"text": FOUR, "label": "ABCD"}, "B"),
        ({"text": FOUR, "label": ["1", "2", "3", "4"]}, 0),
    ],
)  # fmt: skip
def test_options_that_are_no_list_refuse_their_row(
    options: object, answer: object, tmp_path: Path
) -> None:
    columns = COLUMNS.model_copy(update={"options": ("choices",)})
    path = jsonl(tmp_path, row(1, choices=options, a=answer), row(2, choices=FOUR, a=1))
    found = import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0))
    assert found.refused == {"options_unclear": 1}


@pytest.mark.parametrize(
    ("task", "options", "answer"),
    [(None, FOUR, "E"), (None, FOUR, "4 and 2"), ("number", None, "a dozen")],
)
def test_an_answer_that_no_reply_could_match_refuses_its_row(
    task: str | None, options: list[str] | None, answer: str, tmp_path: Path
) -> None:
    names = ("choices",) if options else ()
    columns = COLUMNS.model_copy(update={"options": names, "task": task})
    path = jsonl(tmp_path, row(1, choices=options, a=answer), row(2, choices=FOUR, a="2"))
    found = import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0))
    assert found.refused == {"answer_never_right": 1}


def test_a_task_that_no_verifier_knows_refuses_its_row(tmp_path: Path) -> None:
    columns = COLUMNS.model_copy(update={"metadata": "more"})
    tasks = ("billing", 3, "short")
    path = jsonl(tmp_path, *(row(n, more={"task": task}) for n, task in enumerate(tasks)))
    found = import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0))
    assert found.refused == {"unknown_task": 2}


def test_the_answer_can_follow_a_marker_as_in_gsm8k(tmp_path: Path) -> None:
    columns = COLUMNS.model_copy(update={"marker": "####"})
    path = jsonl(tmp_path, row(1, a="24 boxes of 3 hold 24 * 3 = 72.\n#### 72"))
    found = import_file(path, "mine", columns, out=tmp_path, shares=Shares(0, 0))
    assert next(read_file(found.path)).golden_answers == ("72",)


def test_every_imported_row_carries_the_rule_it_is_matched_by(tmp_path: Path) -> None:
    (kept,) = read_file(imported(jsonl(tmp_path, row(1))).path)
    assert kept.matching == "text"
    (kept,) = read_file(imported(jsonl(tmp_path, row(1)), matching="squad").path)
    assert (kept.matching, kept.metadata) == ("squad", {})


@pytest.mark.slow
def test_an_empty_split_is_named_by_the_import_and_refused_by_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the list of imported files is written there
    path = jsonl(tmp_path, *(row(number) for number in range(12)))
    out = tmp_path / "out"
    told = CliRunner().invoke(
        app,
        ["import", str(path), "--name", "mine", "--question", "q", "--answers", "a",
         "--validation", "0", "--out", str(out)],
    ).output  # fmt: skip
    assert "no question in validation: the checks will refuse that" in told
    params = dataset_params(source="imported", imported=[str(out / "mine.parquet")])
    remember(out / "mine.parquet")
    build_dataset(params, tmp_path / "questions")
    with pytest.raises(CheckFailed, match="expectation splits_not_empty does not hold"):
        run_checks(tmp_path / "questions", params, checks_params(), tmp_path / "checks")


def test_nothing_is_written_if_the_file_breaks_off(tmp_path: Path) -> None:
    path = jsonl(tmp_path, row(1), row(2))
    path.write_text(path.read_text() + '{"id": 3, "q"')
    with pytest.raises(DataError, match=r"own\.jsonl, line 3: is not JSON"):
        imported(path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_without_one_usable_row_is_an_error_that_tells_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable row; 2 refused: there is no answer"):
        imported(jsonl(tmp_path, row(1, a=[]), row(2, a=[])))


@pytest.mark.parametrize("name", ["nq", "embedded", "a/b", "", "../x"])
def test_a_name_that_is_taken_or_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--name"):
        import_file(jsonl(tmp_path, row(1)), name, COLUMNS, out=tmp_path, shares=Shares(0, 0))


def test_a_column_of_splits_is_obeyed_and_checked(tmp_path: Path) -> None:
    columns = {"split_column": "s"}
    found = imported(jsonl(tmp_path, row(1, s="test"), row(2, s="train")), **columns)
    assert found.rows == {"test": 1, "train": 1}
    with pytest.raises(
        DataError, match=r"line 2: s is 'dev', must be one of train, validation, test"
    ):
        imported(jsonl(tmp_path, row(1, s="test"), row(2, s="dev")), **columns)


def test_the_split_of_a_question_does_not_depend_on_the_other_rows(tmp_path: Path) -> None:
    many = [row(number) for number in range(2000)]
    found = imported(jsonl(tmp_path, *many))
    # 2000 rows, a fifth and a tenth of them: within four standard deviations (18 and 13.4).
    assert abs(found.rows["test"] - 400) < 72
    assert abs(found.rows["validation"] - 200) < 54
    splits = {kept.id: kept.split for kept in read_file(found.path)}
    again = imported(jsonl(tmp_path, *many[1000:][::-1]))
    assert {kept.id: kept.split for kept in read_file(again.path)}.items() <= splits.items()


@pytest.mark.slow
def test_the_command_line_imports_and_one_line_of_params_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").symlink_to(ROOT / "params.yaml")
    lines = [f'{q.id},"{q.question}",{q.golden_answers[0]},2' for q in worded(200)]
    Path("own.csv").write_text("\n".join(["key,ask,gold,facts", *lines, "bad,Who?,[x],1", ""]))
    said = CliRunner().invoke(
        app,
        [
            "import",
            "own.csv",
            "--name",
            "mine",
            "--id",
            "key",
            "--question",
            "ask",
            "--answers",
            "gold",
            "--hops",
            "facts",
        ],
        catch_exceptions=False,
    )
    assert said.exit_code == 0
    assert "data/imported/mine.parquet: 200 questions" in said.output
    assert "refused 1: the answers are a list or an object written out" in said.output
    assert "imported: [data/imported/mine.parquet]" in said.output
    mine = Path("data/imported/mine.parquet")
    assert read_json(KNOWN) == {str(mine): sha256(mine)}
    require_known([mine])
    with pytest.raises(DataError, match=r"^other\.parquet: is not in data/imported\.json"):
        require_known([Path("other.parquet")])
    params = dataset_params(source="imported", imported=["data/imported/mine.parquet"])
    metrics = build_dataset(params, Path("questions"))
    assert sum(metrics["rows"]["mine"].values()) == 200
    assert run_checks(Path("questions"), params, checks_params(), Path("checks"))["passed"] == 21
    assert {q.hops for split in SPLITS for q in read_questions(Path("questions"), split)} == {2}


def test_show_tells_rows_hops_sources_licences_and_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    build_dataset(dataset_params(), tmp_path / "questions")
    command = [
        "show",
        "--params",
        str(ROOT / "params.yaml"),
        "--folder",
        str(tmp_path / "questions"),
    ]
    said = CliRunner().invoke(app, command, catch_exceptions=False).output
    for told in (
        "embedded",
        "validation",
        "1: ",
        "CC BY 4.0",
        "airportsdata",
        "train.parquet",
        "DVC digest",
    ):
        assert told in said


def test_an_import_prints_all_files_that_params_yaml_is_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the list of imported files is written there
    text = (
        (ROOT / "params.yaml").read_text().replace("imported: []", "imported: [data/first.parquet]")
    )
    (tmp_path / "params.yaml").write_text(text)
    path = jsonl(tmp_path, *(row(number) for number in range(12)))
    command = [
        "import",
        str(path),
        "--name",
        "mine",
        "--question",
        "q",
        "--answers",
        "a",
        "--no-meaning",
    ]
    said = CliRunner().invoke(app, command, catch_exceptions=False).output
    assert "imported: [data/first.parquet, data/imported/mine.parquet]" in said


def with_topic(folder: Path, name: str, questions: list[str], shares: Shares) -> str:
    """A file of questions with the topic NAME and ids from 0; no two of them have one meaning."""
    folder.joinpath(name).mkdir()
    rows = [row(n, q=q, a=[f"{name} {n}"], topic=name) for n, q in enumerate(questions)]
    return str(
        import_file(
            jsonl(folder / name, *rows), name, COLUMNS.replace(topic="topic"),
            out=folder, shares=shares, embed=lambda texts: np.eye(len(texts), dtype=np.float32),
        ).path
    )  # fmt: skip


def past_and_new(folder: Path) -> DatasetParams:
    """Three training questions and three test questions of another file; the first and last are nearly alike."""
    past = ["How do I reset my password?", "Where is my invoice?", "Can I pay by card at the door?"]
    new = ["How do I reset my password please?", "Is it open?", "Could I pay by card at the door?"]
    return dataset_params(
        source="imported",
        imported=[
            with_topic(folder, "past", past, Shares(0.0, 0.0)),
            with_topic(folder, "new", new, Shares(1.0, 0.0)),
        ],
    )


def test_near_duplicates_in_files_with_topics_are_left_out_of_training(tmp_path: Path) -> None:
    params = past_and_new(tmp_path)
    metrics = build_dataset(params, tmp_path / "out")
    (kept,) = read_questions(tmp_path / "out", "train")
    assert kept.question == "Where is my invoice?"
    assert len(read_questions(tmp_path / "out", "test")) == 3
    assert metrics["refused"] == {"past": {"near_duplicate": 2}}
    assert "| past | near_duplicate | 2 |" in (tmp_path / "out" / "card.md").read_text()
    told = (tmp_path / "out" / "refused.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["kept"]).name for line in told] == [
        "new.parquet, line 1", "new.parquet, line 3",
    ]  # fmt: skip


def test_the_checks_find_near_duplicates_between_files_with_topics(tmp_path: Path) -> None:
    params = past_and_new(tmp_path)
    rows = [each for path in params.imported for each in read_file(path)]
    write_questions(tmp_path / "bad", rows)
    with pytest.raises(CheckFailed, match=r"no_near_overlap .*my password please") as error:
        run_checks(tmp_path / "bad", params, checks_params(), tmp_path / "checks")
    near = read_json(tmp_path / "checks" / "metrics.json")["near"]
    assert near == {"compared": 3, "held_out": 3, "found": 2}
    # Either file has the ids, and so the groups, 0 to 2: those of a file are its own.
    assert "no_fact_overlap" not in str(error.value)


def test_questions_of_one_template_in_a_file_with_topics_are_all_kept(tmp_path: Path) -> None:
    questions = [f"Where is the parcel of order {n}?" for n in range(20)]
    path = with_topic(tmp_path, "mine", questions, Shares(0.3, 0.3))
    params = dataset_params(source="imported", imported=[path])
    assert build_dataset(params, tmp_path / "q")["refused"] == {}
    checked = run_checks(tmp_path / "q", params, checks_params(), tmp_path / "checks")
    assert "no_near_overlap" in checked["not_applicable"]
