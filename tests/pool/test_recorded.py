"""A pool that answers from a store of recorded replies."""

import gzip
from pathlib import Path

import pytest

from routerr1.config import PoolParams
from routerr1.errors import PoolError
from routerr1.pool.base import Call
from routerr1.pool.build import open_http_pool
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.pool.recorded import RecordedPool, StoredReply, answerable, read_store, write_store
from routerr1.types import Question

TEXT = """
prices: {as_of: 2026-11-29, source: test}
endpoints: {here: {base_url: "http://127.0.0.1:9/v1"}}
held_out: [Late]
candidates:
  - {name: Big, endpoint: here, model: big, context_window: 700,
     prompt_usd_per_mtok: 2, completion_usd_per_mtok: 10}
  - {name: Late, endpoint: here, model: late, context_window: 700,
     prompt_usd_per_mtok: 1, completion_usd_per_mtok: 1}
"""
QUESTION = "What is the capital of Peru?"


def row(candidate: str = "Big", question: str = QUESTION, text: str = "Lima.") -> StoredReply:
    return StoredReply(
        candidate=candidate,
        question=question,
        text=text,
        prompt_tokens=100,
        completion_tokens=3,
        latency_s=0.25,
    )


@pytest.fixture
def file(tmp_path: Path) -> PoolFile:
    path = tmp_path / "pools" / "pool.yaml"
    path.parent.mkdir()
    path.write_text(TEXT)
    return read_pool_file(path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "replies.jsonl.gz"
    write_store(path, [row(), row("Late")])
    return path


@pytest.mark.parametrize(
    "question",
    [
        QUESTION,
        "what is the  capital of peru",
        "WHAT IS THE CAPITAL OF PERU?!",
        " What is capital of Peru.",
    ],
)
async def test_a_question_is_found_whatever_its_case_blanks_and_punctuation(
    file: PoolFile, store: Path, question: str
) -> None:
    reply = await RecordedPool(file, read_store(store)).ask(Call("Big", question))
    assert (reply.text, reply.failure, reply.cached) == ("Lima.", None, True)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.latency_s) == (100, 3, 0.25)
    # 100 tokens at 2 USD and 3 at 10 USD a million
    assert reply.cost_usd == pytest.approx(230e-6)


async def test_what_was_never_recorded_says_so(file: PoolFile, store: Path) -> None:
    pool = RecordedPool(file, read_store(store))
    reply = await pool.ask(Call("Big", "What is the capital of Chad?"))
    assert (reply.text, reply.failure) == ("", "not_recorded")
    assert reply.note == "replies.jsonl.gz holds no reply of Big to this question"
    assert (await pool.ask(Call("Nobody", QUESTION))).failure == "unknown_model"


async def test_a_stage_on_recorded_replies_says_at_its_end_which_calls_failed(
    file: PoolFile, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = RecordedPool(file, read_store(store))
    for question in (QUESTION, "What is the capital of Chad?", "And of Mali?"):
        await pool.ask(Call("Big", question))
    await pool.aclose()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        f"{store}: 2 of 3 calls to Big failed: replies.jsonl.gz holds no reply of Big to this question"
    )


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    rows = [row(), row("Late"), row("Big", "Another?")]
    write_store(tmp_path / "one", rows)
    write_store(tmp_path / "two", rows[::-1])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read as a store of replies"),
        (b"no gzip", "cannot be read as a store of replies"),
        (gzip.compress(b'{"candidate": "Big"}\n', mtime=0), "line 1: question: Field required"),
        (gzip.compress(b"", mtime=0), "holds no recorded reply"),
    ],
)
def test_a_damaged_store_is_told(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "store.jsonl.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PoolError, match=rf"store\.jsonl\.gz.*{said}"):
        read_store(path)


def test_a_damaged_line_of_a_store_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "store.jsonl.gz"
    write_store(path, [row("Big", f"{number}?") for number in range(150)])
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    lines[3] = b'{"candidate": "Big", "text": "\xff"}\n'
    path.write_bytes(gzip.compress(b"".join(lines)))
    with pytest.raises(PoolError, match=r"line 4: "):
        read_store(path)
    assert len(read_store(path, max_rejected=0.01).replies) == 149
    (aside,) = Path("runs/rejected/replies.jsonl").read_text().splitlines()
    assert f"{path}, line 4" in aside


def test_a_truncated_store_is_told(store: Path) -> None:
    store.write_bytes(store.read_bytes()[:-12])
    with pytest.raises(PoolError, match="cannot be read as a store"):
        read_store(store)


def test_a_candidate_without_any_reply_is_told(file: PoolFile, tmp_path: Path) -> None:
    write_store(tmp_path / "store", [row()])
    with pytest.raises(PoolError, match="holds no reply of candidate 'Late'"):
        RecordedPool(file, read_store(tmp_path / "store"))


async def test_parameters_open_it_without_the_candidates_kept_from_training(
    file: PoolFile, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.path.parent.parent)
    params = PoolParams(
        kind="recorded",
        file=Path("pools/pool.yaml"),
        store=store,
        seed=1,
        max_reply_tokens=24,
        max_concurrency=1,
    )
    pool = open_http_pool(params, environ={})
    assert [card.name for card in pool.cards] == ["Big"]
    assert (await pool.ask(Call("Big", QUESTION))).text == "Lima."
    grown = open_http_pool(params, environ={}, held_out=True)
    assert [card.name for card in grown.cards] == ["Big", "Late"]


def test_a_recorded_pool_needs_its_store() -> None:
    with pytest.raises(ValueError, match="kind recorded needs its replies in `store`"):
        PoolParams(
            kind="recorded",
            file=Path("pools/pool.yaml"),
            seed=1,
            max_reply_tokens=24,
            max_concurrency=1,
        )


def test_probes_are_taken_from_questions_that_every_candidate_has_a_reply_to(
    file: PoolFile, store: Path
) -> None:
    write_store(store, [row(), row("Late"), row("Big", "Another?")])
    pool = RecordedPool(file, read_store(store))
    rows = [Question(text, "test", text, ("x",), "train") for text in (QUESTION, "Another?")]
    assert answerable(rows, PerturbedPool(pool, pool.cards)) == rows[:1]
