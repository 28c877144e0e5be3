"""Public benchmarks in the layouts of their authors, in miniature."""

import gzip
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from routerr1.baselines.frames import read_frame
from routerr1.baselines.published import read_benchmark
from routerr1.errors import DataError


def _result(
    folder: Path, dataset: str, model: str, scores: dict[int, float | None], **given
) -> Path:
    """A results file of LLMRouterBench, with the fields of its data_collector."""
    stamp = given.pop("stamp", "20250901_120000")
    values = {
        "dataset_name": dataset, "split": "test", "model_name": model, "demo": False,
        "performance": 0.5, "time_taken": 3.2, "counts": len(scores), "prompt_tokens": 90,
        "completion_tokens": 30, "cost": 0.3,
        "records": [
            {
                "index": index, "origin_query": f"{dataset} question {index}", "prompt": f"Solve: {index}",
                "prediction": f"{model} says", "raw_output": [f"{model} says"], "ground_truth": ["x"],
                "score": score, "prompt_tokens": 9, "completion_tokens": 3, "cost": 0.1,
            }
            for index, score in scores.items()
        ],
    }  # fmt: skip
    path = folder / "bench" / dataset / "test" / model / f"{dataset}-{stamp}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**values, **given}))
    return path


def test_llmrouterbench_gives_the_questions_that_all_models_answered(tmp_path):
    _result(tmp_path, "aime", "small", {1: 0.0, 2: 1.0})
    _result(tmp_path, "aime", "large", {1: 1.0, 2: 1.0, 3: 1.0})
    _result(tmp_path, "mmlu", "small", {1: None})
    _result(tmp_path, "mmlu", "large", {1: 0.5})
    found = read_benchmark("llmrouterbench", tmp_path)
    assert found.candidates == ("large", "small")
    assert found.questions == ("aime question 1", "aime question 2", "mmlu question 1")
    assert found.topics == ("aime", "aime", "mmlu")
    assert found.quality.tolist() == [[1.0, 0.0], [1.0, 1.0], [0.5, 0.0]]
    assert found.cost.tolist() == [[0.1, 0.1]] * 3
    assert found.replies[0] == ("large says", "small says")
    alone = read_benchmark("llmrouterbench", tmp_path, models=["large"])
    assert len(alone.questions) == 4


def test_llmrouterbench_takes_the_newest_file_and_no_demonstration(tmp_path):
    _result(tmp_path, "aime", "m", {1: 0.0}, stamp="20250902_000000")
    _result(tmp_path, "aime", "m", {1: 1.0}, stamp="20250903_000000")
    _result(tmp_path, "aime", "m", {1: 0.5}, stamp="20250904_000000", demo=True)
    assert read_benchmark("llmrouterbench", tmp_path).quality.tolist() == [[1.0]]


def test_what_is_wrong_with_a_benchmark_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no results file of LLMRouterBench"):
        read_benchmark("llmrouterbench", tmp_path)
    _result(tmp_path, "aime", "m", {1: 1.0})
    _result(tmp_path, "aime", "n", {2: 1.0})
    with pytest.raises(DataError, match=r"no question in common \(m 1, n 1\); name some"):
        read_benchmark("llmrouterbench", tmp_path)
    with pytest.raises(DataError, match="has no model x; there are m, n"):
        read_benchmark("llmrouterbench", tmp_path, models=["x"])
    bad = _result(tmp_path, "aime", "m", {1: 7.0})
    with pytest.raises(DataError, match=rf"{bad.name}: the score 7.0 is outside"):
        read_benchmark("llmrouterbench", tmp_path, models=["m"])
    bad.write_text('{"dataset_name": "aime"}')
    with pytest.raises(
        DataError, match=rf"{bad.name}: is no results file .* \(split: Field required"
    ):
        read_benchmark("llmrouterbench", tmp_path)


def _wide(count: int = 4) -> pd.DataFrame:
    """RouterBench's wide table: scores, replies and costs of two models, and the authors' own oracle."""
    places = range(count)
    return pd.DataFrame({
        "sample_id": [f"mbpp.dev.{place}" for place in places],
        "prompt": [f"['Write a function {place}.', 'Be brief.']" for place in places],
        "eval_name": ["mbpp"] * count,
        "gpt-4-1106-preview": [1.0] * count,
        "mistralai/mistral-7b-chat": [float(place % 2) for place in places],
        "gpt-4-1106-preview|model_response": ["[\"It's done\"]"] * count,
        "mistralai/mistral-7b-chat|model_response": [np.nan] * count,
        "gpt-4-1106-preview|total_cost": [0.01] * count,
        "mistralai/mistral-7b-chat|total_cost": [0.001] * count,
        "oracle_model_to_route_to": ["mistralai/mistral-7b-chat"] * count,
    })  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "pkl", "pkl of objects"])
def test_routerbench_is_read_from_csv_and_pickle(tmp_path, kind):
    table = _wide()
    if kind == "csv":
        table.to_csv(tmp_path / "mbpp_test.csv")
    else:
        table = table.astype(object) if "objects" in kind else table
        table.to_pickle(tmp_path / "routerbench_0shot.pkl")
    found = read_benchmark("routerbench", tmp_path)
    assert found.candidates == ("gpt-4-1106-preview", "mistralai/mistral-7b-chat")
    assert found.questions[0] == "Write a function 0.\nBe brief."
    assert found.quality.tolist() == [[1.0, 0.0], [1.0, 1.0]] * 2
    assert found.cost.tolist() == [[0.01, 0.001]] * 4
    assert found.replies[0] == ("It's done", "")
    assert found.topics == ("mbpp",) * 4
    fewer = read_benchmark("routerbench", tmp_path, limit=2, seed=1)
    assert len(fewer.questions) == 2
    assert fewer.questions == read_benchmark("routerbench", tmp_path, limit=2, seed=1).questions


def test_a_table_without_its_columns_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no table of RouterBench"):
        read_benchmark("routerbench", tmp_path)
    _wide().drop(columns="eval_name").to_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: is no table of RouterBench"):
        read_benchmark("routerbench", tmp_path)
    table = _wide()
    table["gpt-4-1106-preview"] = "good"
    table.to_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: 'good' is no number"):
        read_benchmark("routerbench", tmp_path)


def test_a_log_is_read_by_its_own_score_and_only_where_it_is_complete(tmp_path):
    path = tmp_path / "some_2llm.jsonl.gz"
    rows = [
        {"query_id": query, "task": "t", "query": f"{query}?", "model": model, "response": None,
         "score": score, "cost_usd": cost}
        for query, model, score, cost in (
            ("q1", "a", 1.0, 0.1), ("q1", "b", 0.5, None), ("q2", "a", 0.0, 0.1), ("q2", "b", 1.0, 0.2),
            ("q3", "a", 1.0, 0.1),
        )
    ]  # fmt: skip
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    found = read_benchmark("log", path)
    assert (found.questions, found.candidates) == (("q1?", "q2?"), ("a", "b"))
    assert found.quality.tolist() == [[1.0, 0.5], [0.0, 1.0]]
    assert found.cost.tolist() == [[0.1, 0.0], [0.1, 0.2]]
    path.write_bytes(gzip.compress(b'{"query_id": "q"}'))
    with pytest.raises(DataError, match=r"gz, line 1: has no query"):
        read_benchmark("log", path)


LOGS = Path(__file__).parents[3] / "shared/data/logs"


@pytest.mark.skipif(not LOGS.is_dir(), reason="the logs are not here")
@pytest.mark.parametrize(
    ("name", "questions", "models"),
    [
        ("routellm_gsm8k_2llm", 1319, 2),
        ("routerarena_2llm", 808, 2),
        ("fireact_hotpotqa_3llm", 464, 3),
    ],
)
def test_public_logs_are_read(name, questions, models):
    found = read_benchmark("log", LOGS / f"{name}.jsonl.gz")
    assert found.quality.shape == (questions, models)


class _Malicious:
    def __reduce__(self):
        return os.system, ("touch malicious-was-here",)


def test_a_pickle_that_would_run_a_command_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "routerbench_raw.pkl"
    path.write_bytes(pickle.dumps(_Malicious()))
    with pytest.raises(
        DataError, match=r"routerbench_raw\.pkl: cannot be read .*system, which a table"
    ):
        read_benchmark("routerbench", tmp_path)
    assert not (tmp_path / "malicious-was-here").exists()
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="holds a list, not a table"):
        list(read_frame(path))
    path.write_bytes(b"no pickle")
    with pytest.raises(DataError, match="cannot be read as a pickled table"):
        list(read_frame(path))


def test_a_second_reply_of_a_model_to_a_question_is_refused(tmp_path):
    path = _result(tmp_path / "results", "aime", "m", {1: 0.0})
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"records": values["records"] * 2}))
    with pytest.raises(DataError, match=rf"{path.name}: a second reply of m to aime/test/1; keep"):
        read_benchmark("llmrouterbench", tmp_path / "results")
    (tmp_path / "wide").mkdir()
    for shots in (0, 5):
        _wide().to_csv(tmp_path / f"wide/{shots}shot.csv")
    with pytest.raises(
        DataError, match=r"5shot\.csv: a second reply of gpt-4-1106-preview to mbpp"
    ):
        read_benchmark("routerbench", tmp_path / "wide")
    row = {"query_id": "q1", "query": "?", "model": "a", "score": 1.0}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row | {'score': 0.0})}\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: a second reply of a to q1; keep"):
        read_benchmark("log", tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["llmrouterbench", "routerbench", "log"])
def test_what_is_not_there_is_named(tmp_path, name):
    with pytest.raises(DataError, match="absent: not found"):
        read_benchmark(name, tmp_path / "absent")


def test_a_table_of_routerbench_is_in_a_folder(tmp_path):
    _wide().to_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: is no folder; name the one"):
        read_benchmark("routerbench", tmp_path / "a.csv")
