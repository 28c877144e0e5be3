"""From sources to split files: cleaned, de-duplicated, drawn, and the same bytes wherever it runs."""

import gzip
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from routerr1.config import DatasetParams
from routerr1.data.build import build_dataset, wanted_rows
from routerr1.data.embedded import TOPICS
from routerr1.data.splits import read_questions, split_path
from routerr1.errors import ConfigError, DataError
from routerr1.files import sha256
from routerr1.types import SPLITS, Question
from tests.data.conftest import QA, ROOT, dataset_params, import_of, worded

Row = dict[str, Any]


def draw(source: str, rows: int | None = None) -> Row:
    return {"source": source, "rows": rows}


def benchmarks(folder: Path | None, sets: Row, **more: Any) -> DatasetParams:
    at = {"folder": folder, "repo": "owner/name", "revision": "0" * 40, "sets": sets}
    return dataset_params(source="benchmarks", benchmarks=at | more)


def row(number: int, question: str, *golds: str, **more: Any) -> Row:
    return {
        "id": f"r{number}",
        "question": question,
        "golden_answers": list(golds or ["x"]),
        **more,
    }


def put(folder: Path, place: str, rows: list[Row]) -> None:
    path = folder / f"{place}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def texts(folder: Path, split: str) -> list[str]:
    return [question.question for question in read_questions(folder, split)]  # type: ignore[arg-type]


def refusals(folder: Path) -> list[tuple[str, int, str]]:
    lines = (folder / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    return [(Path(one["file"]).name, one["line"], one["reason"]) for one in told]


def test_the_copy_in_the_most_reserved_split_stays(tmp_path: Path) -> None:
    put(tmp_path, "nq/train", [
        row(1, "Who wrote the Odyssey?"), row(2, "who   WROTE “Ulysses”"), row(3, "Who wrote Emma?"),
        row(3, "Another question with the id of the last?"), row(4, "who wrote emma"),
    ])  # fmt: skip
    put(tmp_path, "nq/dev", [row(5, "Who painted the Night Watch?"), row(6, "WHO WROTE ULYSSES")])
    put(tmp_path, "popqa/test", [row(1, "Who wrote Ulysses?"), row(2, "Who wrote Emma now?", "--")])
    sets = {
        "nq": {"train": draw("train"), "validation": draw("dev")},
        "popqa": {"test": draw("test")},
    }
    metrics = build_dataset(benchmarks(tmp_path, sets), tmp_path / "out")
    assert texts(tmp_path / "out", "test") == ["Who wrote Ulysses?"]
    assert texts(tmp_path / "out", "validation") == ["Who painted the Night Watch?"]
    assert texts(tmp_path / "out", "train") == ["Who wrote the Odyssey?", "Who wrote Emma?"]
    assert metrics["read"] == {"nq": 7, "popqa": 2}
    assert metrics["refused"] == {
        "nq": {"duplicate": 3, "duplicate_id": 1},
        "popqa": {"answers_say_nothing": 1},
    }
    assert sorted(refusals(tmp_path / "out")) == [
        ("dev.jsonl", 2, "duplicate"),
        ("test.jsonl", 2, "answers_say_nothing"),
        ("train.jsonl", 2, "duplicate"),
        ("train.jsonl", 4, "duplicate_id"),
        ("train.jsonl", 5, "duplicate"),
    ]


def test_training_questions_that_resemble_a_held_out_one_are_dropped(tmp_path: Path) -> None:
    put(tmp_path, "nq/train", [
        row(1, "who sings if this world were mine with luther vandross"),
        row(2, "who sings something else with luther vandross"),
    ])  # fmt: skip
    put(tmp_path, "nq/test", [row(3, "who sang if this world were mine with luther vandross")])
    sets = {"nq": {"train": draw("train"), "test": draw("test")}}
    metrics = build_dataset(benchmarks(tmp_path, sets), tmp_path / "out")
    assert metrics["rows"]["nq"] == {"train": 1, "validation": 0, "test": 1}
    assert metrics["refused"] == {"nq": {"near_duplicate": 1}}
    told = json.loads((tmp_path / "out" / "refused.jsonl").read_text())
    assert (told["line"], Path(told["kept"]).name) == (1, "test.jsonl, line 1")


def test_held_out_rows_of_one_template_are_not_eaten(tmp_path: Path) -> None:
    rows = [row(n, f"Who was the composer of the long song number {n}?") for n in range(40)]
    put(tmp_path, "popqa/test", rows)
    sets = {"popqa": {"validation": draw("test", 10), "test": draw("test", 30)}}
    metrics = build_dataset(benchmarks(tmp_path, sets), tmp_path / "out")
    assert metrics["rows"]["popqa"] == {"train": 0, "validation": 10, "test": 30}


def test_facts_of_the_embedded_questions_are_kept_apart_and_none_is_dropped(tmp_path: Path) -> None:
    metrics = build_dataset(dataset_params(), tmp_path)
    assert metrics["refused"] == {}
    rows = {split: read_questions(tmp_path, split) for split in SPLITS}
    asked = {
        split: {fact for row in rows[split] for fact in row.metadata["group"].split("/")}
        for split in SPLITS
    }
    assert all(asked.values())
    assert not any(asked[one] & asked[other] for one, other in combinations(SPLITS, 2))


def test_every_embedded_split_holds_every_topic_at_both_depths(tmp_path: Path) -> None:
    build_dataset(dataset_params(), tmp_path)
    for split in SPLITS:
        rows = read_questions(tmp_path, split)
        assert {row.metadata["topic"] for row in rows if row.hops == 1} == set(TOPICS)
        deep = {topic for row in rows if row.hops == 2 for topic in row.metadata["topics"]}
        assert deep == set(TOPICS)


def test_draws_are_seeded_disjoint_and_independent_of_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [row(n, q.question) for n, q in enumerate(worded(300))]
    sets = {
        "nq": {
            "train": draw("train", 200),
            "validation": draw("train", 30),
            "test": draw("train", 50),
        }
    }
    drawn = {}
    for name, some, seed in (("a", rows, 42), ("b", rows[::-1], 42), ("c", rows, 43)):
        put(tmp_path / name, "nq/train", some)
        params = benchmarks(tmp_path / name, sets).model_copy(update={"seed": seed})
        build_dataset(params, tmp_path / name / "out")
        drawn[name] = {split: set(texts(tmp_path / name / "out", split)) for split in SPLITS}
    assert {split: len(found) for split, found in drawn["a"].items()} == {
        "train": 200, "validation": 30, "test": 50,
    }  # fmt: skip
    assert len(set().union(*drawn["a"].values())) == 280
    assert drawn["a"] == drawn["b"] != drawn["c"]


@pytest.mark.parametrize("ending", [".jsonl.gz", ".csv", ".parquet"])
def test_a_folder_may_hold_other_kinds_of_files_under_other_names_of_columns(
    ending: str, tmp_path: Path
) -> None:
    rows = [{"key": f"k{n}", "ask": q.question, "gold": f"x{n}|y"} for n, q in enumerate(worded(9))]
    path = tmp_path / "nq" / f"test{ending}"
    path.parent.mkdir()
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == ".csv":
        lines = [",".join(row.values()) for row in rows]
        path.write_text("\n".join(["key,ask,gold", *lines]))
    else:
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    columns = {"id": "key", "question": "ask", "golden_answers": "gold", "separator": "|"}
    params = benchmarks(tmp_path, {"nq": {"test": draw("test")}}, columns=columns)
    build_dataset(params, tmp_path / "out")
    assert read_questions(tmp_path / "out", "test")[3] == Question(
        "k3", "nq", worded(9)[3].question, ("x3", "y"), "test", 1
    )


def test_hops_come_from_the_set_the_type_or_the_id(tmp_path: Path) -> None:
    put(tmp_path, "musique/test", [
        {**row(1, "Who was born first?"), "id": "3hop1__1_2"},
        row(2, "Who died last of them?", metadata={"source_id": "4hop2__9"}),
        row(3, "Who stayed there alone?"),
    ])  # fmt: skip
    put(tmp_path, "2wikimultihopqa/test", [
        row(1, "Which film is the older one?", metadata={"type": "bridge_comparison", "context": [1]}),
        row(2, "Which river is the longer one?", metadata={"type": "comparison"}),
    ])  # fmt: skip
    sets = {name: {"test": draw("test")} for name in ("musique", "2wikimultihopqa")}
    build_dataset(benchmarks(tmp_path, sets), tmp_path / "out")
    rows = read_questions(tmp_path / "out", "test")
    assert [row.hops for row in rows] == [3, 4, None, 4, 2]
    assert rows[3].metadata == {"type": "bridge_comparison"}


def test_the_hub_loader_reads_a_repository_of_the_same_layout(tmp_path: Path) -> None:
    # `datasets` takes a folder where it takes a repository's name; no hub can be reached from a test.
    put(tmp_path, "nq/test", [row(1, "Who is it?", metadata={"a": 1}), row(2, "Where is it?")])
    sets = {"nq": {"test": draw("test")}}
    params = benchmarks(None, sets, repo=str(tmp_path))
    build_dataset(params, tmp_path / "out")
    assert texts(tmp_path / "out", "test") == ["Who is it?", "Where is it?"]
    assert f"{tmp_path} at {'0' * 40}" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        ("nq/dev", '{"id": 1}', "nq/test.jsonl: row 1 cannot be read"),
        ("nq/test", '{"question": "q"}', "nq/test.jsonl: no column 'golden_answers'"),
        ("nq/test", '{"question": "q", "golden_answers": ["a"]}\n{"half', "nq/test.jsonl: row"),
    ],
)
def test_a_hub_file_that_is_missing_or_malformed_is_named(
    place: str, content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{place}.jsonl"
    path.parent.mkdir()
    path.write_text(content)
    params = benchmarks(None, {"nq": {"test": draw("test")}}, repo=str(tmp_path))
    with pytest.raises(DataError, match=message):
        build_dataset(params, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_hub_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    params = dataset_params(source="benchmarks")
    with pytest.raises(DataError, match=r"FlashRAG_datasets@[0-9a-f]{40}/nq/test\.jsonl: .*folder"):
        build_dataset(
            params.model_copy(update={"benchmarks": params.benchmarks.model_copy(
                update={"sets": {"nq": params.benchmarks.sets["nq"]}})}),
            tmp_path / "out",
        )  # fmt: skip


def test_the_default_mix_is_the_paper_s() -> None:
    wanted = wanted_rows(dataset_params(source="benchmarks"))
    assert {name: rows["train"] for name, rows in wanted.items() if rows["train"]} == {
        "nq": 7000, "hotpotqa": 7000,
    }  # fmt: skip
    assert {rows["test"] for name, rows in wanted.items() if name != "bamboogle"} == {500}
    assert {rows["validation"] for name, rows in wanted.items() if name != "bamboogle"} == {100}
    assert wanted["bamboogle"] == {"train": 0, "validation": 0, "test": None}
    assert len(wanted) == 7


def test_an_unpinned_revision_and_an_unknown_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="revision"):
        benchmarks(tmp_path, {}, revision="main")
    with pytest.raises(ConfigError, match=r"unknown set qn \(there are: nq, "):
        wanted_rows(benchmarks(tmp_path, {"qn": {"test": draw("test")}}))
    with pytest.raises(ConfigError, match="imported: is empty"):
        wanted_rows(dataset_params(source="imported"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"question": "q", "golden_answers": ["a"]}\n{"half',
            r"test\.jsonl, line 2: is not JSON",
        ),
        (b"\xff\n", r"test\.jsonl, line 1: is not UTF-8"),
        (b"", r"test\.jsonl: holds no row"),
        (None, r"nq: not found: test\{\.jsonl"),
    ],
)
def test_a_broken_source_leaves_the_data_that_were_there(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    build_dataset(dataset_params(), tmp_path / "out")
    before = {path.name: sha256(path) for path in (tmp_path / "out").iterdir()}
    (tmp_path / "nq").mkdir()
    if content is not None:
        (tmp_path / "nq" / "test.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        build_dataset(benchmarks(tmp_path, {"nq": {"test": draw("test")}}), tmp_path / "out")
    assert {path.name: sha256(path) for path in (tmp_path / "out").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"nq", "out"}


def test_rows_that_are_all_refused_are_an_error(tmp_path: Path) -> None:
    put(tmp_path, "nq/test", [row(1, "?")])
    with pytest.raises(DataError, match=r"no usable row in any source \(1 no_question\)"):
        build_dataset(benchmarks(tmp_path, {"nq": {"test": draw("test")}}), tmp_path / "out")


_BUILD = """
import json, sys
from pathlib import Path
from routerr1.config import DatasetParams
from routerr1.data.build import build_dataset
build_dataset(DatasetParams.model_validate(json.loads(sys.argv[1])), Path("out"))
"""


@pytest.mark.slow
def test_two_folders_and_two_hash_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    own = import_of(tmp_path, worded(100))
    params = dataset_params(imported=[own]).model_dump_json()
    digests = []
    for name, seed in (("one", "1"), ("two", "4242")):
        (tmp_path / name).mkdir()
        subprocess.run(
            [sys.executable, "-c", _BUILD, params],
            cwd=tmp_path / name,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        out = tmp_path / name / "out"
        digests.append({path.name: sha256(path) for path in out.iterdir()})
    assert digests[0] == digests[1]
    assert set(digests[0]) == {
        "train.parquet", "validation.parquet", "test.parquet",
        "card.md", "metrics.json", "refused.jsonl",
    }  # fmt: skip


def test_the_card_tells_digests_licences_and_what_was_left_out(tmp_path: Path) -> None:
    put(
        tmp_path,
        "nq/test",
        [row(1, "Who is it?"), row(2, "Who is it"), row(3, "Where is it?", "b")],
    )
    build_dataset(benchmarks(tmp_path, {"nq": {"test": draw("test")}}), tmp_path / "out")
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| nq | test | 2 | 1: 2 | 11 / 12 | 1.0 | squad |" in card  # 10 and 12 characters
    assert "CC BY-SA 3.0" in card
    assert "| nq | duplicate | 1 |" in card
    assert sha256(split_path(tmp_path / "out", "test")) in card


@pytest.mark.skipif(not QA.is_dir(), reason="real rows not found: ../shared/data/qa is absent")
@pytest.mark.slow
def test_all_seven_real_sets_pass_dataset_and_checks(tmp_path: Path) -> None:
    from routerr1.data.checks import run_checks
    from tests.data.conftest import checks_params

    both = {"train": draw("train"), "validation": draw("train", 100), "test": draw("test", 500)}
    alone = ("triviaqa", "popqa", "2wikimultihopqa", "musique", "bamboogle")
    sets = {"nq": both, "hotpotqa": both, **{name: {"test": draw("test")} for name in alone}}
    params = benchmarks(QA, sets)
    metrics = build_dataset(params, tmp_path / "questions")
    assert {
        name: tuple(rows[split] for split in SPLITS) for name, rows in metrics["rows"].items()
    } == {
        "nq": (1896, 100, 500),  # one answer is N/A
        "hotpotqa": (1900, 100, 500),
        "triviaqa": (0, 0, 500),
        "popqa": (0, 0, 499),
        "2wikimultihopqa": (0, 0, 500),
        "musique": (0, 0, 500),
        "bamboogle": (0, 0, 125),
    }
    # One question is in TriviaQA and PopQA; three of NQ's training rows resemble a held-out one.
    assert metrics["refused"] == {
        "nq": {"answer_is_missing": 1, "near_duplicate": 3},
        "popqa": {"duplicate": 1},
    }
    found = run_checks(tmp_path / "questions", params, checks_params(), tmp_path / "checks")
    assert found["passed"] == 21
    assert found["leaks"]["2wikimultihopqa"]["test"] == 179
