"""`pool record`: every question to every candidate, once, against real servers over sockets."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import load_params
from routerr1.data.embedded import build_world, questions
from routerr1.errors import PoolError
from routerr1.laptop.recording import pack, record, server_named, stored_before
from routerr1.laptop.worklist import worklist
from routerr1.matching import normalise
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.pool.recorded import read_store
from tests.servers import listening

TEXT = """
prices: {{as_of: 2026-11-29, source: test}}
endpoints: {{here: {{base_url: "http://127.0.0.1:{port}/v1", max_tries: 1}}}}
servers: {{models: {{here: {{hub: a/b, file: c.gguf, sha256: "{digest}", license: none, slots: 2}}}}}}
candidates:
  - {{name: One, endpoint: here, model: one, context_window: 700,
     prompt_usd_per_mtok: 2, completion_usd_per_mtok: 10}}
  - {{name: Two, endpoint: here, model: two, context_window: 700,
     prompt_usd_per_mtok: 1, completion_usd_per_mtok: 1}}
"""
THEN: Mapping[str, Any] = {"server": "llama.cpp 1", "latency": "alone", "today": date(2026, 11, 29)}
QUESTIONS = [f"What is {number}?" for number in range(30)]


class Server:
    """Echoes, counts what it is asked, and refuses after `limit` calls."""

    def __init__(self, limit: int | None = None) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.under_way = self.most = 0
        self.limit = limit

    @contextmanager
    def running(self) -> Iterator[int]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                question = body["messages"][-1]["content"]
                outer.asked[body["model"], question] += 1
                ok = outer.limit is None or outer.asked.total() <= outer.limit
                outer.under_way += 1
                outer.most = max(outer.most, outer.under_way)
                time.sleep(0.02)
                choice = {
                    "message": {"role": "assistant", "content": f"{body['model']}: {question}"}
                }
                usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
                answer = json.dumps({"choices": [choice], "usage": usage}).encode()
                outer.under_way -= 1
                self.send_response(200 if ok else 400)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        with listening(Handler) as port:
            yield port


def pool_file(folder: Path, port: int) -> PoolFile:
    path = folder / "pool.yaml"
    path.write_text(TEXT.format(port=port, digest="0" * 64))
    return read_pool_file(path)


async def test_every_candidate_is_asked_everything_once_and_progress_is_told(
    tmp_path: Path,
) -> None:
    server, told = Server(), list[tuple[int, int]]()
    with server.running() as port:
        file = pool_file(tmp_path, port)
        done = await record(
            file, tmp_path / "log", QUESTIONS, progress=lambda *now: told.append(now)
        )
        assert (done.asked, done.failed, done.there) == (60, 0, 0)
        assert (told[0], told[-1]) == ((0, 60), (60, 60))
        again = await record(file, tmp_path / "log", QUESTIONS, progress=lambda *_: None)
        assert (again.asked, again.there) == (0, 60)
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize(("at_once", "most"), [(None, 2), (1, 1)])
async def test_a_server_is_asked_as_many_at_a_time_as_it_has_slots_or_as_was_said(
    tmp_path: Path, at_once: int | None, most: int
) -> None:
    server = Server()
    with server.running() as port:
        file = pool_file(tmp_path, port)
        await record(
            file, tmp_path / "log", QUESTIONS[:8], at_once=at_once, progress=lambda *_: None
        )
    assert server.most == most


async def test_a_recording_that_breaks_off_is_continued(tmp_path: Path) -> None:
    server = Server(limit=25)
    with server.running() as port:
        file = pool_file(tmp_path, port)
        with pytest.raises(PoolError, match=r"fails 20 times in a row .*are its servers up\?"):
            await record(file, tmp_path / "log", QUESTIONS, progress=lambda *_: None)
        server.limit = None
        done = await record(file, tmp_path / "log", QUESTIONS, progress=lambda *_: None)
    assert (done.asked, done.failed, done.there) == (35, 0, 25)


async def test_a_packed_store_holds_every_reply_and_where_it_comes_from(tmp_path: Path) -> None:
    with Server().running() as port:
        file = pool_file(tmp_path, port)
        await record(file, tmp_path / "log", QUESTIONS[:3], progress=lambda *_: None)
    out = tmp_path / "store.jsonl.gz"
    made = pack(file, tmp_path / "log", QUESTIONS, out, **THEN)
    assert (made.questions, made.replies) == (3, {"One": 3, "Two": 3})
    assert json.loads((tmp_path / "store.provenance.json").read_text())["recorded"] == "2026-11-29"
    found = read_store(out).find("Two", "what is 1")
    assert found is not None
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("two: What is 1?", 7, 5)


async def test_a_store_is_added_to_without_its_log(tmp_path: Path) -> None:
    server, out = Server(), tmp_path / "store.jsonl.gz"
    with server.running() as port:
        file = pool_file(tmp_path, port)
        await record(file, tmp_path / "first", QUESTIONS[:3], progress=lambda *_: None)
        pack(file, tmp_path / "first", QUESTIONS, out, **THEN)
        known = stored_before(file, out)
        done = await record(
            file, tmp_path / "second", QUESTIONS[:5], known=known, progress=lambda *_: None
        )
        assert (done.asked, done.there) == (4, 6)
    made = pack(file, tmp_path / "second", QUESTIONS, out, known=known, **THEN)
    assert made.replies == {"One": 5, "Two": 5}
    assert set(server.asked.values()) == {1}


async def test_replies_that_were_there_keep_their_day_and_their_server(tmp_path: Path) -> None:
    out, log = tmp_path / "store.jsonl.gz", tmp_path / "log"
    later: Mapping[str, Any] = {**THEN, "server": "llama.cpp 2", "today": date(2026, 12, 3)}
    with Server().running() as port:
        file = pool_file(tmp_path, port)
        await record(file, log, QUESTIONS[:3], progress=lambda *_: None)
        pack(file, log, QUESTIONS, out, **THEN)
        # Packed again without a new reply: nothing was recorded on that day.
        packed = pack(file, log, QUESTIONS, out, known=stored_before(file, out), **later)
        assert (packed.recorded, packed.server) == (date(2026, 11, 29), "llama.cpp 1")
        await record(file, log, QUESTIONS[:5], progress=lambda *_: None)
        made = pack(file, log, QUESTIONS, out, known=stored_before(file, out), **later)
    assert (made.recorded, made.server) == (date(2026, 12, 3), "llama.cpp 2")
    (earlier,) = made.earlier  # 3 questions to 2 candidates
    assert (earlier.recorded, earlier.server, earlier.count) == (
        date(2026, 11, 29), "llama.cpp 1", 6,
    )  # fmt: skip


async def test_a_pool_without_servers_is_recorded_if_the_software_is_named(tmp_path: Path) -> None:
    with Server().running() as port:
        file = pool_file(tmp_path, port)
        lines = file.path.read_text().splitlines()
        file.path.write_text("\n".join(line for line in lines if "servers:" not in line))
        file = read_pool_file(file.path)
        with pytest.raises(PoolError, match="--server: name the software that answers"):
            server_named(file, None)
        await record(file, tmp_path / "log", QUESTIONS[:2], progress=lambda *_: None)
    out = tmp_path / "store.jsonl.gz"
    named = {**THEN, "server": server_named(file, "Ollama 0.9")}
    made = pack(file, tmp_path / "log", QUESTIONS, out, **named)
    assert (made.server, made.models, made.questions) == ("Ollama 0.9", {}, 2)
    assert stored_before(file, out) is not None


async def test_a_store_of_other_requests_is_refused(tmp_path: Path) -> None:
    with Server().running() as port:
        file = pool_file(tmp_path, port)
        await record(file, tmp_path / "log", QUESTIONS[:1], progress=lambda *_: None)
    out = tmp_path / "store.jsonl.gz"
    pack(file, tmp_path / "log", QUESTIONS, out, **THEN)
    cheaper = file.path.read_text().replace("prompt_usd_per_mtok: 2", "prompt_usd_per_mtok: 1")
    file.path.write_text(cheaper)
    assert stored_before(read_pool_file(file.path), out) is not None
    file.path.write_text(cheaper.replace("model: two", "model: three"))
    with pytest.raises(PoolError, match="was recorded with other desks, requests or weights"):
        stored_before(read_pool_file(file.path), out)


def test_the_list_begins_with_every_fact_in_its_canonical_words() -> None:
    section = load_params(Path("params.yaml")).dataset
    rows = questions(build_world(section.embedded), section.embedded, section.seed)
    listed = worklist(rows)
    facts = {row.question for row in rows if row.id.endswith("#0") and row.hops == 1}
    assert set(listed[: len(facts)]) == facts
    assert {normalise(text) for text in listed} == {normalise(row.question) for row in rows}
    assert len(listed) == len({normalise(text) for text in listed})
    # Every sub-question, with the right answer of the step before it, is one of the facts.
    for row in rows:
        answer = ""
        for step in row.metadata["steps"]:
            asked = step.format(answer)
            assert asked in facts
            answer = next(each.golden_answers[0] for each in rows if each.question == asked)


def test_the_committed_store_fits_its_pool_file_and_holds_every_fact_for_every_candidate() -> None:
    file = read_pool_file(Path("pools/laptop.yaml"))
    store = stored_before(file, Path("pools/laptop/replies.jsonl.gz"))
    assert store is not None
    assert store.path.stat().st_size < 5_000_000
    section = load_params(Path("params.yaml")).dataset
    rows = questions(build_world(section.embedded), section.embedded, section.seed)
    needed = [
        row for row in rows if row.hops == 1 and (row.id.endswith("#0") or row.split != "train")
    ]
    assert len(needed) > 400
    for card in file.cards:
        assert all(store.find(card.name, row.question) is not None for row in needed), card.name
