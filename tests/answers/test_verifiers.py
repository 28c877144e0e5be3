"""Verifiers of tasks: what is right, and what only looks so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.answers.verifiers import choice, number, verifiers, verify
from routerr1.baselines.embed import embedder
from routerr1.cli.data import known_task
from routerr1.config import ColumnsParams
from routerr1.data.imported import Shares, import_file
from routerr1.data.splits import read_file
from routerr1.errors import DataError
from routerr1.evaluate.rows import row_of
from routerr1.rollout.loop import trajectory_of
from routerr1.types import Answer, Card, Generation, Question, Turn

CITIES = {"task": "choice", "options": ["Rome", "Paris", "Bonn", "New York"]}


@pytest.mark.parametrize(
    "said",
    [
        "B", "b)", "(B)", "**B**", "Paris", "paris.", "B) Paris", "B. Paris is the capital.",
        "The answer is B.", "The correct answer is (B).", "Answer: B", "Die Antwort ist B.",
        "I think it is Paris.", "The capital of France is Paris, of course.",
    ],
)  # fmt: skip
def test_an_option_is_named_by_letter_or_text(said: str):
    for gold in ("B", "Paris"):
        assert verify(said, [gold], "text", CITIES, whole_reply=True) == 1.0


@pytest.mark.parametrize(
    "said",
    [
        "A", "Rome", "", "A, B, C and D", "A or B", "Rome or Paris", "The answer is A. The answer is B.",
        "A) Rome B) Paris C) Bonn D) New York", "A good question; B is a letter.", "E", "Parisian",
        "I cannot tell.", "Answer: A, not B", "[A] [B]",
    ],
)  # fmt: skip
def test_several_options_or_none_are_wrong(said: str):
    assert verify(said, ["B"], "text", CITIES, whole_reply=True) == 0.0


ANIMALS = {"task": "choice", "options": ["mammal", "bird", "fish", "a reptile"]}


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("The answer is a bird", "B"), ("Answer: a reptile", "D"), ("The answer is a (small) fish", "C"),
        ("The answer is a.", "A"), ("answer: c", "C"), ("the answer is b, as it flies", "B"),
        ("Answer: b) bird", "B"), ("THE ANSWER IS B", "B"), ("Answer: b\nIt flies.", "B"),
    ],
)  # fmt: skip
def test_a_small_letter_is_an_option_only_where_no_word_follows(said: str, gold: str):
    right = [each for each in "ABCD" if verify(said, [each], "text", ANIMALS, whole_reply=True)]
    assert right == [gold]


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("18", "18"), ("She has 3 left, so she earns $18.", "18"), ("It is 1,500 m.", "1.5 km"),
        ("1'000,5", "1000.5"), ("-2", "−2"), ("50 %", "50%"), ("#### 7", "7"), ("2 h", "120 min"),
        ("The total is 12 apples", "12"), ("3.14", "3.14"), ("1e3", "1000"),
        ("Das macht 1.500 Euro", "1500"), ("1500 Euro", "1.500 Euro"), ("1.5", "1.500"), ("1.500", "1.5"),
        ("1.500", "1.500"), ("1.500.000", "1500000"), ("−1.500", "-1500"), ("1.500 m", "1.5 km"),
    ],
)  # fmt: skip
def test_a_number_is_the_last_one_with_its_unit(said: str, gold: str):
    assert number(said, [gold], "text", True, {}) == 1.0


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("18 or 19", "18"), ("1 2 3 4 5 6 7 8 9", "5"), ("1.5 kg", "1.5 km"), ("50 %", "0.5 km"), ("", "3"),
        ("15.00", "1500"), ("0.125", "125"), ("1.500", "15"), ("1.500 kg", "1500 m"),
        ("three", "3"), ("35", "3.5"), ("1.5 m", "1.5 km"), ("180", "18"),
    ],
)  # fmt: skip
def test_a_list_of_numbers_or_another_unit_is_wrong(said: str, gold: str):
    assert number(said, [gold], "text", True, {}) == 0.0


def test_a_tolerance_is_relative():
    known = {"task": "number", "tolerance": 0.01}
    assert verify("about 101", ["100"], "text", known) == 1.0
    assert verify("about 102", ["100"], "text", known) == 0.0


@given(st.text(), st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=5))
def test_verifiers_never_raise_and_stay_in_bounds(said: str, golds: list[str], options: list[str]):
    for task in verifiers():
        for whole in (True, False):
            known: dict[str, Any] = {"task": task, "options": options}
            assert 0.0 <= verify(said, golds, "text", known, whole_reply=whole) <= 1.0


def test_without_a_task_the_rules_are_those_of_before():
    assert verify("the Paris", ["Paris"], "squad", {}) == 1.0
    assert verify("It is Paris.", ["Paris"], "squad", {}) == 0.0
    assert verify("It is Paris.", ["Paris"], "squad", {}, whole_reply=True) == 1.0


def test_an_unknown_task_is_refused_by_name():
    assert known_task("choice") == "choice"
    with pytest.raises(
        DataError, match=r"--task essay: must be one of choice, code, judge, long, number, short"
    ):
        known_task("essay")


def test_a_row_of_a_policy_is_verified_by_the_task():
    question = Question("q", "own", "Which? A) Rome B) Paris", ("B",), "test", metadata=CITIES)
    turn = Turn(Generation("<think> x</think><answer> Paris</answer>"), Answer("Paris"))
    played = trajectory_of(question, (), [turn], "answered")
    row = row_of(played, pool="training", router="policy", seed=1, cards=[Card("A")])
    assert (row.em, row.f1) == (1.0, 1.0)


def test_an_import_of_mmlu_and_of_gsm8k(tmp_path: Path):
    mmlu = tmp_path / "mmlu.csv"
    mmlu.write_text("question,A,B,C,D,answer\nCapital of France?,Rome,Paris,Bonn,Kiel,B\n")
    columns = ColumnsParams(
        id=None, golden_answers="answer", metadata=None, options=("A", "B", "C", "D")
    )
    shares = Shares(1.0, 0.0)
    (row,) = read_file(import_file(mmlu, "mmlu", columns, out=tmp_path, shares=shares).path)
    assert row.question == "Capital of France? A) Rome B) Paris C) Bonn D) Kiel"
    assert row.metadata["options"] == ["Rome", "Paris", "Bonn", "Kiel"]
    assert choice("Paris", row.golden_answers, "text", True, row.metadata) == 1.0
    gsm = tmp_path / "gsm.jsonl"
    gsm.write_text('{"question": "How many?", "answer": "3 and 15 are <<3+15=18>>18.\\n#### 18"}\n')
    columns = ColumnsParams(
        id=None, golden_answers="answer", metadata=None, marker="####", task="number"
    )
    (row,) = read_file(import_file(gsm, "gsm", columns, out=tmp_path, shares=shares).path)
    assert (row.golden_answers, row.metadata["task"]) == (("18",), "number")
    assert verify("So it is 18 eggs.", row.golden_answers, "text", row.metadata, whole_reply=True)


def test_a_shared_letter_is_no_shared_answer(tmp_path: Path):
    file = tmp_path / "mmlu.csv"
    lines = [f"Which form pays invoice {n}?,w{n},x{n},y{n},z{n},B" for n in range(30)]
    file.write_text("\n".join(["question,A,B,C,D,answer", *lines]))
    columns = ColumnsParams(
        id=None, golden_answers="answer", metadata=None, options=("A", "B", "C", "D")
    )
    found = import_file(
        file, "mmlu", columns, out=tmp_path, shares=Shares(0.2, 0.1),
        embed=lambda texts: embedder("minilm", 0).embed(texts),
    )  # fmt: skip
    assert found.alike == 0


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with verifiers of its own, one of which takes a name that is taken."""
    (tmp_path / "essays.py").write_text(
        "def essay(said, references, rule, whole_reply, known):\n"
        "    return float(len(said.split()) >= int(references[0]))\n"
    )
    about = tmp_path / "essays-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: essays\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[routerr1.verifiers]\nessay = essays:essay\nshort = essays:essay\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    verifiers.cache_clear()
    yield
    verifiers.cache_clear()


@pytest.mark.usefixtures("installed")
def test_a_package_adds_a_task_and_replaces_none(tmp_path: Path):
    assert verify("three words here", ["3"], "text", {"task": "essay"}) == 1.0
    assert verify("two words", ["3"], "text", {"task": "essay"}) == 0.0
    assert verify("three words here", ["3"], "text", {}) == 0.0
    assert known_task("essay") == "essay"
    file = tmp_path / "own.csv"
    file.write_text("question,gold\nWrite about the sea.,3\n")
    columns = ColumnsParams(id=None, golden_answers="gold", metadata=None, task="essay")
    found = import_file(file, "own", columns, out=tmp_path, shares=Shares(1.0, 0.0))
    (row,) = read_file(found.path)
    assert row.metadata["task"] == "essay"
