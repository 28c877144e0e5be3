"""Clean data meet every expectation; each planted violation fails exactly the one it was planted for."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from routerr1.cli.data import app
from routerr1.config import DatasetParams
from routerr1.data.build import wanted_rows
from routerr1.data.checks import run_checks, validate
from routerr1.data.drift import DRIFT_RULES, Profile, accept_profile, drifts
from routerr1.data.expectations import NUM_RULES, rules
from routerr1.data.measure import measure_columns, measure_rows
from routerr1.data.splits import schema, split_path
from routerr1.errors import CheckFailed, DataError
from routerr1.types import SPLITS
from tests.data.conftest import ROOT, checks_params, worded

Rows = dict[str, list[dict[str, Any]]]
NAMES = [rule.name for rule in rules(1000)]


def read(folder: Path) -> Rows:
    return {split: pq.read_table(split_path(folder, split)).to_pylist() for split in SPLITS}


def write(folder: Path, rows: Rows, columns: pa.Schema | None = None) -> Path:
    folder.mkdir()
    for split in SPLITS:
        table = pa.Table.from_pylist(rows[split], schema=columns or schema())
        pq.write_table(table, split_path(folder, split))
    return folder


def of(rows: Rows, split: str, dataset: str) -> list[dict[str, Any]]:
    return [row for row in rows[split] if row["dataset"] == dataset]


@pytest.fixture(scope="module")
def accepted(clean: tuple[Path, DatasetParams], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accepted")
    run_checks(*clean, checks_params(), out / "checks")
    accept_profile(out / "checks", out / "accepted.json")
    return out / "accepted.json"


def test_clean_data_meet_every_expectation(
    clean: tuple[Path, DatasetParams], accepted: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = run_checks(
        *clean,
        checks_params(accepted=accepted),
        tmp_path / "checks",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1][0] == told[-1][1] == 726  # 300 worded ones, 426 embedded
    assert (found["expectations"], found["passed"], found["failed"]) == (NUM_RULES, NUM_RULES, [])
    assert found["not_applicable"] == []
    first = json.loads(
        (accepted.parent / "checks" / "checks.json").read_text()
    )  # nothing accepted yet
    assert first["not_applicable"] == list(DRIFT_RULES)
    # Worded rows, 180 for training and 120 held out, with all; the 252 and 174 embedded ones with those alone.
    assert found["near"] == {"compared": 180 + 252, "held_out": 120 + 174, "found": 0}
    assert json.loads((tmp_path / "checks" / "metrics.json").read_text())["passed"] == NUM_RULES
    assert "21 of 21 expectations hold" in (tmp_path / "checks" / "checks.md").read_text()
    pages = list((tmp_path / "checks" / "docs" / "validations").rglob("*.html"))
    assert sorted({page.relative_to(tmp_path / "checks/docs/validations").parts[0] for page in pages}) == [
        "columns", "drift", "facts", "near", "questions", "sets",
    ]  # fmt: skip


def set_in(
    column: str, value: Any, dataset: str = "mine", split: str = "train"
) -> Callable[[Rows], None]:
    def plant(rows: Rows) -> None:
        of(rows, split, dataset)[0][column] = value

    return plant


def twice_the_id(rows: Rows) -> None:
    of(rows, "test", "mine")[0]["id"] = of(rows, "train", "mine")[0]["id"]


def twice_in_a_split(rows: Rows) -> None:
    first, second, *_ = of(rows, "train", "embedded")
    second["question"] = "«" + first["question"].upper() + "!"


def twice_over_splits(rows: Rows) -> None:
    held = of(rows, "test", "mine")[0]["question"]
    of(rows, "train", "mine")[0]["question"] = held.upper().replace("?", " ...")


def nearly_twice(rows: Rows) -> None:
    held = of(rows, "test", "mine")[0]["question"]
    of(rows, "train", "mine")[0]["question"] = held.replace("Who", "Who was it that")


def held_out_fact(rows: Rows) -> None:
    groups = [json.loads(row["metadata"])["group"] for row in of(rows, "test", "embedded")]
    fact = next(group for group in groups if "/" not in group)
    row = of(rows, "train", "embedded")[0]
    row["metadata"] = json.dumps({**json.loads(row["metadata"]), "group": f"capital:X/{fact}"})


def one_row_less(rows: Rows) -> None:
    rows["train"].remove(of(rows, "train", "embedded")[0])


def gold_in_question(rows: Rows) -> None:
    for row in of(rows, "test", "mine")[:2]:  # 2 of 60 are more than 2%
        row["golden_answers"] = ["other", row["question"].split()[2]]


def longer_questions(rows: Rows) -> None:
    for row in of(rows, "train", "mine"):
        row["question"] += " That is what we asked ourselves for years, and nobody could tell."


def other_answers(rows: Rows) -> None:
    for row in of(rows, "train", "mine"):
        row["golden_answers"] = ["987654"]


def one_topic_more_often(rows: Rows) -> None:
    for row in of(rows, "train", "embedded")[: len(of(rows, "train", "embedded")) // 2]:
        row["metadata"] = json.dumps({**json.loads(row["metadata"]), "topic": "money"})


PLANTS: list[tuple[str, Callable[[Rows], None]]] = [
    ("id_not_empty", set_in("id", " ")),
    ("id_not_empty", set_in("id", None)),
    ("id_unique", twice_the_id),
    ("question_not_empty", set_in("question", "?!")),
    ("question_not_empty", set_in("question", None)),
    ("question_length", set_in("question", "Why " * 251)),
    ("question_unique", twice_in_a_split),
    ("golds_not_empty", set_in("golden_answers", [])),
    ("golds_not_empty", set_in("golden_answers", None)),
    ("golds_are_text", set_in("golden_answers", ["['Paris', 'Lutetia']"])),
    ("golds_are_text", set_in("golden_answers", ["Paris", None])),
    ("golds_survive", set_in("golden_answers", ["Paris", "The"])),
    ("golds_survive", set_in("golden_answers", ["---"])),
    ("split_of_file", set_in("split", "test")),
    ("hops_positive", set_in("hops", 0)),
    ("metadata_object", set_in("metadata", "[1]")),
    ("metadata_object", set_in("metadata", '{"half": ')),
    ("no_exact_overlap", twice_over_splits),
    ("no_fact_overlap", held_out_fact),
    ("no_near_overlap", nearly_twice),
    ("row_counts", one_row_less),
    ("row_counts", set_in("dataset", "unknown")),
    ("leakage", gold_in_question),
    ("length_drift", longer_questions),
    ("answer_type_drift", other_answers),
    ("topic_drift", one_topic_more_often),
]


def test_every_expectation_has_a_planted_violation() -> None:
    assert {name for name, _ in PLANTS} | {"schema", "splits_not_empty"} == set(NAMES)
    assert len(NAMES) == NUM_RULES == len(set(NAMES))


@pytest.mark.parametrize(("name", "plant"), PLANTS)
def test_a_planted_violation_breaks_exactly_its_expectation(
    name: str,
    plant: Callable[[Rows], None],
    clean: tuple[Path, DatasetParams],
    accepted: Path,
    tmp_path: Path,
) -> None:
    """The SQL alone: Great Expectations would take a second for each."""
    rows = read(clean[0])
    plant(rows)
    folder, database = write(tmp_path / "questions", rows), tmp_path / "questions.sqlite"
    params = checks_params(accepted=accepted)
    assert not measure_columns(folder, database)
    measure_rows(
        folder, database, params, near_duplicate=clean[1].near_duplicate,
        wanted=wanted_rows(clean[1]), accepted=Profile.read(accepted), progress=lambda *_: None,
    )  # fmt: skip
    with closing(sqlite3.connect(database)) as store:
        broken = [
            rule.name
            for rule in rules(params.max_question_chars)
            if store.execute(rule.offending.format(batch=rule.suite)).fetchone()
        ]
    assert broken == [name]


@pytest.mark.parametrize(("name", "plant"), [PLANTS[0], PLANTS[17], PLANTS[-1]])
@pytest.mark.slow
def test_a_failure_names_its_expectation_and_the_rows_that_offend(
    name: str,
    plant: Callable[[Rows], None],
    clean: tuple[Path, DatasetParams],
    accepted: Path,
    tmp_path: Path,
) -> None:
    rows = read(clean[0])
    plant(rows)
    folder = write(tmp_path / "questions", rows)
    with pytest.raises(CheckFailed, match=f"expectation {name} does not hold") as failure:
        run_checks(folder, clean[1], checks_params(accepted=accepted), tmp_path / "checks")
    found = json.loads((tmp_path / "checks" / "checks.json").read_text())
    assert found["failed"] == [name]
    offending = next(result for result in found["results"] if result["name"] == name)
    assert offending["rows"]
    for value in offending["rows"][0].values():
        assert json.dumps(value, ensure_ascii=False) in str(failure.value)
    assert "\n" not in str(failure.value)
    assert (tmp_path / "checks" / "docs" / "index.html").is_file()


def test_a_long_question_is_shown_in_part_and_its_limit_named(
    clean: tuple[Path, DatasetParams], tmp_path: Path
) -> None:
    rows = read(clean[0])
    set_in("question", "Why " * 2000)(rows)
    folder = write(tmp_path / "questions", rows)
    with pytest.raises(CheckFailed, match=r"raise checks\.max_question_chars or ") as failure:
        run_checks(folder, clean[1], checks_params(), tmp_path / "checks")
    assert len(str(failure.value)) < 1500
    assert "Why " * 2000 in (tmp_path / "checks" / "checks.md").read_text()


@pytest.mark.parametrize(
    ("problem", "columns"),
    [
        ("column hops is missing", [field for field in schema() if field.name != "hops"]),
        ("unknown column extra", [*schema(), pa.field("extra", pa.string())]),
        (
            "column golden_answers is string, must be",
            [f if f.name != "golden_answers" else pa.field(f.name, pa.string()) for f in schema()],
        ),
    ],
)
def test_another_schema_fails_the_schema_expectation(
    problem: str, columns: list[pa.Field], clean: tuple[Path, DatasetParams], tmp_path: Path
) -> None:
    rows = read(clean[0])
    for row in rows["train"] + rows["validation"] + rows["test"]:
        row["golden_answers"] = (
            str(row["golden_answers"]) if "is string" in problem else row["golden_answers"]
        )
    folder = write(tmp_path / "questions", rows, pa.schema(columns))
    with pytest.raises(CheckFailed, match="expectation schema does not hold") as failure:
        run_checks(folder, clean[1], checks_params(), tmp_path / "checks")
    assert problem in str(failure.value)
    assert json.loads((tmp_path / "checks" / "checks.json").read_text())["failed"] == ["schema"]


def test_a_suite_that_lost_an_expectation_is_no_suite(
    clean: tuple[Path, DatasetParams], tmp_path: Path
) -> None:
    measure_columns(clean[0], tmp_path / "db")
    with pytest.raises(RuntimeError, match="hold 20 expectations, not 21"):
        validate(tmp_path / "db", rules(1000)[:-1], tmp_path / "docs")


def test_sql_that_cannot_run_is_not_taken_for_a_pass(
    clean: tuple[Path, DatasetParams], tmp_path: Path
) -> None:
    measure_columns(clean[0], tmp_path / "db")
    with closing(sqlite3.connect(tmp_path / "db")) as store, store:
        store.execute("ALTER TABLE drift DROP COLUMN measure")
    with pytest.raises(RuntimeError, match="length_drift"):
        validate(tmp_path / "db", rules(1000), tmp_path / "docs")


@pytest.mark.slow
def test_the_same_data_give_the_same_findings(
    clean: tuple[Path, DatasetParams], tmp_path: Path
) -> None:
    for out in ("one", "two"):
        run_checks(*clean, checks_params(), tmp_path / out)
    for name in ("checks.json", "metrics.json", "checks.md", "profile.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_missing_or_broken_file_is_named(
    clean: tuple[Path, DatasetParams], tmp_path: Path
) -> None:
    folder = write(tmp_path / "questions", read(clean[0]))
    split_path(folder, "test").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"test\.parquet: is not a Parquet file"):
        run_checks(folder, clean[1], checks_params(), tmp_path / "checks")
    split_path(folder, "test").unlink()
    with pytest.raises(DataError, match=r"test\.parquet: not found"):
        run_checks(folder, clean[1], checks_params(), tmp_path / "checks")
    assert not (tmp_path / "checks").exists()


def test_data_that_failed_on_more_than_drift_are_not_accepted(tmp_path: Path) -> None:
    (tmp_path / "checks.json").write_text('{"failed": ["length_drift", "id_unique"]}')
    with pytest.raises(DataError, match="id_unique did not hold"):
        accept_profile(tmp_path, tmp_path / "accepted.json")
    with pytest.raises(DataError, match="is null"):
        accept_profile(tmp_path, None)


@pytest.mark.slow
def test_the_command_line_accepts_what_was_checked(
    clean: tuple[Path, DatasetParams], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_checks(*clean, checks_params(), tmp_path / "checks")
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["accept", "--checks", "checks"], catch_exceptions=False)
    assert said.exit_code == 0
    assert "data/accepted.json: written" in said.output
    accepted = Profile.read(Path("data/accepted.json"))
    assert accepted.lengths["mine", "train"].total() == 180  # 3 in 5 of 300


def test_chance_alone_is_no_drift_even_for_few_rows() -> None:
    profiles = []
    for seed in (1, 2):
        profile = Profile()
        for row in worded(40, seed=seed):
            profile.add("mine", "train", row.question, row.golden_answers)
        profiles.append(profile)
    now, before = profiles
    found = list(drifts(now, before, max_drift=0.0))
    assert [measure for _, _, measure, _, _ in found] == ["question_length", "answer_type"]
    assert all(distance <= limit for *_, distance, limit in found)


def test_drift_is_the_largest_gap_of_the_cumulated_shares() -> None:
    now, before = Profile(), Profile()
    for chars, profile in ((5, now), (5, now), (15, now), (25, now), (5, before), (25, before)):
        profile.add("mine", "train", "x" * chars, ["7" if chars == 25 else "name"])
    length, answer = drifts(now, before, max_drift=0.1)
    # Shares up to 10, 20, 30 characters: 1/2, 3/4, 1 against 1/2, 1/2, 1.
    assert length[:4] == ("mine", "train", "question_length", 0.25)
    # Numbers: 1 of 4 against 1 of 2.
    assert answer[:4] == ("mine", "train", "answer_type", 0.25)


def profile_of(topics: Mapping[str, int]) -> Profile:
    profile = Profile()
    for topic, count in topics.items():
        for _ in range(count):
            profile.add("mine", "train", "Why?", ["name"], topic)
    return profile


def test_drift_of_topics_is_the_share_of_questions_with_another_one(tmp_path: Path) -> None:
    profile_of({"bank": 50, "post": 50}).write(tmp_path / "accepted.json")
    before = Profile.read(tmp_path / "accepted.json")
    for now, moved in (
        ({"bank": 50, "post": 50}, 0.0),
        ({"bank": 80, "post": 20}, 0.3),
        ({"bank": 50, "rail": 50}, 0.5),  # a new topic, and one that is gone
    ):
        *_, found = drifts(profile_of(now), before, max_drift=0.1)
        assert found[:3] == ("mine", "train", "topic")
        assert found[3] == pytest.approx(moved)
        # Two topics of 100 questions: sqrt(1/50) * (.4 * 2 * .5 + 1.25) is .233.
        assert (found[3] > found[4]) is (moved == 0.5)
        if "post" in now:
            assert found[4] == pytest.approx(0.333, abs=0.02)
    for renamed in ({"clients": 100}, {}):
        measures = [
            measure for _, _, measure, *_ in drifts(profile_of(renamed), before, max_drift=0.1)
        ]
        assert "topic" not in measures


@pytest.mark.parametrize("count", [2, 12, 80])
def test_chance_alone_is_no_drift_of_topics_however_many(count: int) -> None:
    rng = Random(0)
    names = [f"topic {place}" for place in range(count)]
    over = 0
    for _ in range(300):
        now, before = (profile_of(Counter(rng.choices(names, k=100))) for _ in range(2))
        *_, found = drifts(now, before, max_drift=0.0)
        over += found[3] > found[4]
    assert over <= 2


def test_topics_that_only_one_side_has_are_not_applicable(tmp_path: Path) -> None:
    """An accepted profile of before topics were counted still compares lengths and answers."""
    profile_of({"bank": 3}).write(tmp_path / "new.json")
    text = json.loads((tmp_path / "new.json").read_text())
    del text["mine"]["train"]["topic"]
    (tmp_path / "old.json").write_text(json.dumps(text))
    old = Profile.read(tmp_path / "old.json")
    assert (old.lengths["mine", "train"].total(), old.topics) == (3, {})
