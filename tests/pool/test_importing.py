"""Logs made elsewhere."""

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas
import pytest

from routerr1.data.contracts import evaluation_breaches
from routerr1.errors import PoolError
from routerr1.evaluate.rows import row_of
from routerr1.pool.base import Call
from routerr1.pool.importing import import_log
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.recording import open_replay
from routerr1.pool.records import read_records
from routerr1.rollout.loop import trajectory_of
from routerr1.types import Answer, Ask, Generation, Question, Turn

ROOT = Path(__file__).parents[2]
LOG = ROOT.parent / "shared" / "data" / "logs" / "llmrouter_nq_6llm.jsonl.gz"
PAPER = read_pool_file(ROOT / "pools" / "paper.yaml")

ROW = {
    "query_id": "nq_1", "query": "who?", "model": "google/gemma-2-27b-it", "response": "me",
    "golden_answers": ["me"], "score": 1.0, "prompt_tokens": None, "completion_tokens": 2,
    "cost_usd": 1.6e-6,
}  # fmt: skip


def log(path: Path, *rows: dict[str, Any] | str) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


async def test_an_imported_row_answers_as_the_candidate_of_its_model(tmp_path: Path):
    store = tmp_path / "calls.jsonl"
    rows = (
        ROW,
        {**ROW, "query": "what?", "response": None},
        {**ROW, "query": "empty?", "response": " "},
    )
    done = import_log(log(tmp_path / "log.jsonl", *rows), store, PAPER)
    assert (done.added, done.without_text) == (2, 1)
    pool = open_replay(store, PAPER.cards, request=PAPER.request)
    reply = await pool.ask(Call("Gemma-2-27B-Instruct", "who?"))
    assert (reply.text, reply.completion_tokens, reply.cost_usd) == ("me", 2, 1.6e-6)
    assert reply.prompt_tokens == 1  # four letters
    assert reply.note == "imported; the log does not tell latency_s; estimated: prompt_tokens"
    assert (await pool.ask(Call("Mistral-7B-Instruct", "who?"))).failure == "not_recorded"
    assert (await pool.ask(Call("Gemma-2-27B-Instruct", "empty?"))).failure == "unavailable"


async def test_a_log_that_tells_no_prices_can_be_evaluated(tmp_path: Path):
    unknown = {"prompt_tokens": None, "completion_tokens": None, "cost_usd": None}
    path = log(tmp_path / "log.jsonl", {**ROW, **unknown, "query": "who is the tallest?"})
    import_log(path, tmp_path / "calls.jsonl", PAPER)
    pool = open_replay(tmp_path / "calls.jsonl", PAPER.cards, request=PAPER.request)
    reply = await pool.ask(Call("Gemma-2-27B-Instruct", "who is the tallest?"))
    # 19 letters are 5 tokens, 2 are 1; a million cost 0.8 dollars both ways.
    assert (reply.prompt_tokens, reply.completion_tokens) == (5, 1)
    assert reply.cost_usd == pytest.approx(6 * 0.8e-6)
    asked = Ask("Gemma-2-27B-Instruct", "who is the tallest?")
    turns = [
        Turn(Generation("<search>"), asked, reply, "<information>me</information>"),
        Turn(Generation("<answer>me</answer>"), Answer("me")),
    ]
    question = Question("q", "mine", "who is the tallest?", ("me",), "test")
    row = row_of(
        trajectory_of(question, (), turns, "answered"),
        pool="training", router="policy", seed=1, cards=PAPER.cards,
    )  # fmt: skip
    assert evaluation_breaches(asdict(row), PAPER.cards) == []


async def test_zeros_beside_a_text_are_estimated_and_thoughts_are_kept_apart(tmp_path: Path):
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "cost_usd": 0}
    rows = ({**ROW, **nothing, "response": "<think>you?</think>me"},)
    import_log(log(tmp_path / "log.jsonl", *rows), tmp_path / "calls.jsonl", PAPER)
    pool = open_replay(tmp_path / "calls.jsonl", PAPER.cards, request=PAPER.request)
    reply = await pool.ask(Call("Gemma-2-27B-Instruct", "who?"))
    assert (reply.text, reply.thoughts) == ("me", "you?")
    # By length 1 token of the question, 1 of the thoughts, 1 of the answer; a million cost 0.8 dollars.
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens) == (1, 2, 1)
    assert reply.cost_usd == pytest.approx(3 * 0.8e-6)
    assert reply.note is not None
    assert reply.note.endswith("estimated: prompt_tokens, completion_tokens, cost_usd")


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "xlsx"])
async def test_every_kind_of_table_is_a_log_and_its_gaps_are_estimated(tmp_path: Path, kind: str):
    """A table of pandas: whole numbers with a gap are floats, and an id may be a number."""
    gap = {**ROW, "query": "what?", "prompt_tokens": 12, "completion_tokens": None}
    frame = pandas.DataFrame([{**ROW, "query_id": 1}, {**gap, "query_id": 2}])
    frame = frame.drop(columns="golden_answers")
    path = tmp_path / f"log.{kind}"
    match kind:
        case "json":
            frame.to_json(path, orient="records")
        case "jsonl":
            frame.to_json(path, orient="records", lines=True)
        case "csv":
            frame.to_csv(path, encoding="utf-16")
        case "parquet":
            frame.to_parquet(path)
        case "xlsx":
            frame.to_excel(path)
    assert import_log(path, tmp_path / "calls.jsonl", PAPER).added == 2
    pool = open_replay(tmp_path / "calls.jsonl", PAPER.cards, request=PAPER.request)
    who, what = [await pool.ask(Call("Gemma-2-27B-Instruct", each)) for each in ("who?", "what?")]
    # By length a token each.
    assert (who.text, who.prompt_tokens, who.completion_tokens) == ("me", 1, 2)
    assert (what.text, what.prompt_tokens, what.completion_tokens) == ("me", 12, 1)


@pytest.mark.parametrize(("kind", "mark"), [("csv", ","), ("tsv", "\t")])
def test_an_empty_cell_of_text_is_no_response(tmp_path: Path, kind: str, mark: str):
    path = tmp_path / f"log.{kind}"
    said = ["me", "", "  ", "NULL", "nan", "None"]  # "None" can be an answer
    lines = [f"{n},q{n}?,{ROW['model']},{text}" for n, text in enumerate(said)]
    text = "\n".join(["query_id,query,model,response", *lines]).replace(",", mark)
    path.write_text(text, encoding="utf-8")
    done = import_log(path, tmp_path / "calls.jsonl", PAPER)
    assert (done.added, done.without_text) == (2, 4)
    assert [each.reply.text for each in read_records(tmp_path / "calls.jsonl")] == ["me", "None"]


def test_bad_rows_within_the_limit_are_put_aside_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    bad = [{**ROW, "model": "gemma"}, {**ROW, "cost_usd": -1}]
    path = log(tmp_path / "log.jsonl", ROW, *bad, {**ROW, "query": "what?"})
    done = import_log(path, tmp_path / "calls.jsonl", PAPER, max_rejected=0.5)
    assert (done.added, done.rejected) == (2, 2)
    aside = (tmp_path / "runs/rejected/import.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["where"] for line in aside] == [f"{path}, line 2", f"{path}, line 3"]
    assert "cost_usd" in json.loads(aside[1])["why"]
    with pytest.raises(
        PoolError, match=r"line 3: .* 2 of 4 are put aside .* max_rejected \(0\.25\)"
    ):
        import_log(path, tmp_path / "more.jsonl", PAPER, max_rejected=0.25)
    assert not (tmp_path / "more.jsonl").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_part_of_a_log(tmp_path: Path, packed: bool):
    content = b"\xef\xbb\xbf" + json.dumps(ROW).encode()
    path = tmp_path / ("log.jsonl.gz" if packed else "log.jsonl")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    assert import_log(path, tmp_path / "calls.jsonl", PAPER).added == 1


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_log_without_rows_is_an_error_and_makes_no_store(tmp_path: Path, content: bytes):
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(PoolError, match=r"log\.jsonl: holds no row"):
        import_log(tmp_path / "log.jsonl", tmp_path / "calls.jsonl", PAPER)
    assert not (tmp_path / "calls.jsonl").exists()


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("{", "line 2: is not JSON"),
        ({**ROW, "model": "gemma"}, "line 2: .* has no candidate with model 'gemma'"),
        ({**ROW, "cost_usd": -1}, "line 2: cost_usd: "),
        ({**ROW, "completion_tokens": "many"}, "line 2: completion_tokens: "),
        ({**ROW, "completion_tokens": 10**9}, "line 2: completion_tokens: "),
        ({**ROW, "response": ["me"]}, "line 2: response: "),
        ({"query_id": "x"}, "line 2: query: Field required"),
        ("[]", "line 2: "),
        ("[" * 100_000, "line 2: is not JSON"),
        ('{"query": "q", "query": "r"}', "line 2: two columns have the name 'query'"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_added(
    tmp_path: Path, bad: dict[str, Any] | str, problem: str
):
    path, store = log(tmp_path / "log.jsonl", ROW, bad), tmp_path / "calls.jsonl"
    with pytest.raises(PoolError, match=problem) as caught:
        import_log(path, store, PAPER)
    assert str(caught.value).startswith(str(path))
    assert not store.exists()


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path):
    for name, content in (
        ("a.jsonl.gz", b"no gzip"),
        ("b.jsonl", b"\xff"),
        ("c.jsonl.gz", gzip.compress(b"{", mtime=0)[:9]),
        ("d.log", b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PoolError, match=name):
            import_log(tmp_path / name, tmp_path / "calls.jsonl", PAPER)
    with pytest.raises(PoolError, match="absent"):
        import_log(tmp_path / "absent.jsonl", tmp_path / "calls.jsonl", PAPER)


@pytest.mark.skipif(not LOG.is_file(), reason=f"real log not found: {LOG}")
async def test_the_real_log_imports_whole_once_and_answers_every_question(tmp_path: Path):
    store = tmp_path / "calls.jsonl"
    told: list[tuple[int, int]] = []
    done = import_log(LOG, store, PAPER, progress=lambda *done: told.append(done))
    assert (done.added, done.already_there, done.without_text) == (3000, 0, 0)
    assert (told[0], told[-1]) == ((1, 3000), (3000, 3000))
    before = store.read_bytes()
    again = import_log(LOG, store, PAPER)
    assert (again.added, again.already_there) == (0, 3000)
    assert store.read_bytes() == before
    pool = open_replay(store, PAPER.cards, request=PAPER.request)
    names = {row.model: row.name for row in PAPER.candidates}
    with gzip.open(LOG, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            reply = await pool.ask(Call(names[row["model"]], row["query"]))
            assert (reply.text, reply.cost_usd) == (row["response"], row["cost_usd"])
            assert reply.completion_tokens == row["completion_tokens"]
    assert len(list(read_records(store))) == 3000
