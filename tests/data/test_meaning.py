"""Topics and questions of one meaning, found in embeddings."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from routerr1.baselines.embed import embedder
from routerr1.config import ColumnsParams
from routerr1.data.imported import Shares, import_file
from routerr1.data.meaning import find_topics, same_meaning
from routerr1.data.splits import read_file
from routerr1.stages.dataset import left_out

CITIES = [f"What is the capital of {name}?" for name in ("France", "Norway", "Peru", "Chile", "Kenya", "Japan", "Spain", "Egypt", "Cuba", "Iran")]  # fmt: skip
METALS = [f"Which chemical element has the symbol {name}?" for name in ("Au", "Fe", "Cr", "Ag", "Cu", "Zn", "Pb", "Sn", "Hg", "Ni")]  # fmt: skip
BILLS = [f"How do I pay the invoice of {name}?" for name in ("January", "February", "March", "April", "May", "June", "July", "August", "October", "November")]  # fmt: skip
GERMAN = [f"Wie setze ich das Passwort von {name} zurück?" for name in ("Anna", "Bernd", "Clara", "Dieter", "Emma", "Franz", "Greta", "Hans", "Ida", "Jan")]  # fmt: skip


def embed(texts):
    return embedder("minilm", 0).embed(texts)


def test_topics_are_clusters_named_by_their_words():
    asked = [*CITIES, *METALS, *BILLS, *GERMAN]
    found = find_topics(asked, embed(asked), seed=1)
    assert found is not None
    parts = [set(found[start : start + 10]) for start in range(0, 40, 10)]
    assert all(len(part) == 1 for part in parts)
    names = [part.pop() for part in parts]
    assert len(set(names)) == 4
    telling = ("capital", "element", "invoice", "passwort")
    assert all(word in name for word, name in zip(telling, names, strict=True))
    assert found == find_topics(asked, embed(asked), seed=1)


def test_a_template_with_other_names_in_it_is_one_topic():
    months = ("Januar", "Februar", "April", "Mai")
    bills = [f"Wie hoch ist die Rechnung Nummer {n} vom {m}?" for m in months for n in range(25)]
    assert find_topics(bills, embed(bills), seed=1) is None
    asked = [*bills, *CITIES, *GERMAN]
    found = find_topics(asked, embed(asked), seed=1)
    assert found is not None
    assert [len(set(part)) for part in (found[:100], found[100:110], found[110:])] == [1, 1, 1]
    assert len(set(found)) == 3


def test_conversations_are_of_the_topic_of_what_the_user_says(tmp_path: Path):
    rules = {"role": "system", "content": "Keep to the house rules of our friendly helpdesk. " * 40}
    rows = [
        {"ask": [rules, {"role": "user", "content": ask}] if n % 2 else ask, "gold": [str(n)]}
        for n, ask in enumerate([*CITIES, *METALS])
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = import_file(path, "own", COLUMNS, out=tmp_path, shares=Shares(0.2, 0.1), embed=embed)
    assert sorted(found.topics.values()) == [10, 10]
    words = set(" ".join(found.topics).split())
    assert words.isdisjoint({"system", "user", "helpdesk", "house", "rules", "friendly"})


def test_a_choice_is_of_the_topic_of_its_question_and_not_of_its_options(tmp_path: Path):
    path = tmp_path / "own.csv"
    colours, cities = ("amber", "white", "red", "blue"), ("Rome", "Paris", "Bonn", "Oslo")
    lines = [f"{ask},{','.join(colours if n % 2 else cities)},B" for n, ask in enumerate([*CITIES, *METALS])]  # fmt: skip
    path.write_text("\n".join(["ask,w,x,y,z,gold", *lines]))
    columns = COLUMNS.replace(options=("w", "x", "y", "z"))
    found = import_file(path, "own", columns, out=tmp_path, shares=Shares(0.2, 0.1), embed=embed)
    rows = sorted(read_file(found.path), key=lambda row: int(row.id.rpartition("_")[2]))
    topics = [row.metadata["topic"] for row in rows]
    assert [len(set(topics[:10])), len(set(topics[10:]))] == [1, 1]
    assert "capital" in topics[0]
    assert topics[10] == "chemical element"
    assert rows[0].question.endswith("France? A) Rome B) Paris C) Bonn D) Oslo")


def test_few_questions_and_questions_without_a_structure_have_no_topics():
    assert find_topics(CITIES, embed(CITIES), seed=1) is None
    noise = np.random.default_rng(0).normal(size=(100, 384)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert find_topics([f"Question {n}?" for n in range(100)], noise, seed=1) is None


def test_questions_are_alike_by_a_shared_answer_and_a_similar_meaning():
    asked = [
        "What is the capital of France?", "Which city is the capital of France?",
        "What is the capital of Norway?", "Who was the Greek hero that judged three goddesses?",
    ]  # fmt: skip
    answers = [["Paris"], ["paris", "Paris, France"], ["Oslo"], ["Paris"]]
    assert same_meaning(embed(asked), answers, ["text"] * 4) == [0, 0, 2, 3]


def test_a_template_with_one_answer_is_not_one_group():
    asked = [f"Is {name} a country?" for name in ["France", "Norway", "Peru", "Chile", "Kenya", "Japan", "Spain", "Egypt", "Cuba", "Iran", "Iraq", "Oman", "Fiji", "Mali", "Chad", "Togo"]]  # fmt: skip
    groups = same_meaning(embed(asked), [["yes"]] * len(asked), ["text"] * len(asked))
    assert max(Counter(groups).values()) <= 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [f"{question},{place % 20}" for place, question in enumerate([*CITIES, *METALS, *BILLS])]
    again = [f"Please tell me: {question[0].lower()}{question[1:]},{place}" for place, question in enumerate(CITIES)]  # fmt: skip
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["ask,gold", *rows, *again]))
    return path


COLUMNS = ColumnsParams(id=None, question="ask", golden_answers="gold", metadata=None)


def test_an_import_keeps_questions_of_one_meaning_in_one_split(file: Path, tmp_path: Path):
    found = import_file(
        file, "own", COLUMNS, out=tmp_path, shares=Shares(0.25, 0.25), embed=embed
    )  # fmt: skip
    assert found.alike == 10
    rows = list(read_file(found.path))
    splits = {}
    for row in rows:
        splits.setdefault(row.metadata["group"], set()).add(row.split)
    assert all(len(each) == 1 for each in splits.values())
    assert all(row.metadata["topic"] for row in rows)
    # Halves of groups may fall to either side, so shares are met within a group.
    assert abs(found.rows["test"] - 10) <= 2
    assert abs(found.rows["validation"] - 10) <= 2
    told = "\n".join(found.lines())
    assert "topics found: " in told
    assert "--topic COLUMN" in told
    assert "10 questions ask what another asks in other words" in told


def test_a_column_of_topics_overrules(tmp_path: Path):
    path = tmp_path / "own.csv"
    lines = [f"{question},{place},mine" for place, question in enumerate([*CITIES, *METALS])]
    path.write_text("\n".join(["ask,gold,kind", *lines]))
    found = import_file(
        path, "own", COLUMNS.replace(topic="kind"), out=tmp_path, shares=Shares(0.2, 0.1), embed=embed
    )  # fmt: skip
    assert {row.metadata["topic"] for row in read_file(found.path)} == {"mine"}
    assert "topics: mine (20)" in found.lines()


def test_what_the_dataset_leaves_out_is_told():
    metrics = {"read": {"own": 20}, "refused": {"own": {"near_duplicate": 3, "no_answer": 1}}}
    first, second, third = left_out(metrics)
    assert first == "own: 3 of 20 rows left out: a training question that resembles a held-out one"
    assert "1 of 20" in second
    assert "refused.jsonl" in third
    assert left_out({"read": {"own": 20}, "refused": {}}) == []


def test_a_topic_is_not_named_by_words_that_ask():
    items = ("A", "B", "C", "D", "E", "F", "G", "H", "I", "J")
    asked = [f"How many invoices are there in batch {name}?" for name in items]
    asked += [f"What is the price of plan {name}?" for name in items]
    found = find_topics(asked, embed(asked), seed=1)
    assert found is not None
    assert {"how", "many", "are", "what", "the"}.isdisjoint(" ".join(found).split())
    asked = [f"Womit und in welchem Monat muss ich Beet {name} düngen?" for name in items]
    asked += [f"Wie viel zahlt mir die Versicherung nach Schaden {name}?" for name in items]
    found = find_topics(asked, embed(asked), seed=1)
    assert found is not None
    words = set(" ".join(found).split())
    assert {"womit", "welchem", "muss", "viel", "mir", "nach"}.isdisjoint(words)
    assert words & {"versicherung", "schaden", "zahlt"}
