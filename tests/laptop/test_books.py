"""Books and desks: which notes a desk finds, and what it asks its model."""

import json
from pathlib import Path

import httpx
import pytest

from routerr1.config import load_params
from routerr1.data.embedded import build_world
from routerr1.errors import PoolError
from routerr1.laptop.books import Fact, Notes, passages, read_facts
from routerr1.laptop.desks import ChatRequest, Message, OpenDesk, build_app
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.servers import Book, Desk

POOL = Path("pools/laptop.yaml")
FACTS = Path("pools/laptop/facts.jsonl")
TEXTS = (
    "The capital of Chad is Ndjamena.",
    "The capital of Peru is Lima.",
    "The capital of Cuba is Havana.",
    "The capital of Fiji is Suva.",
    "The capital of Iran is Tehran.",
    "The capital of Laos is Vientiane.",
    "The country of the airport LIM is Peru.",
    "The country of the airport HAV is Cuba.",
)


def asked(question: str, model: str = "desk") -> ChatRequest:
    return ChatRequest(model=model, messages=[Message(role="user", content=question)])


def test_the_best_note_is_the_one_on_the_subject() -> None:
    assert Notes(TEXTS).search("Name the capital city of Peru.", 1) == [TEXTS[1]]


def test_a_question_that_shares_no_word_with_the_book_finds_nothing() -> None:
    assert Notes(TEXTS).search("Who wrote Faust?", 3) == []


def test_notes_below_the_least_score_are_not_shown() -> None:
    notes = Notes(TEXTS)
    assert notes.search("What is the capital of Kenya?", 3) != []
    assert notes.search("What is the capital of Kenya?", 3, least_score=0.5) == []
    assert notes.search("What is the capital of Peru?", 1, least_score=0.5) == [TEXTS[1]]


def test_a_book_holds_its_share_of_each_topic() -> None:
    facts = [Fact(topic, f"{topic} {i}") for topic in ("a", "b", "c") for i in range(9)]
    held = passages(Book(topics=("a", "b"), share=0.67, seed=1), facts)
    # round(0.67 * 9) = 6 of each of two topics
    assert [sum(text.startswith(topic) for text in held) for topic in "abc"] == [6, 6, 0]


def test_books_of_one_seed_hold_the_same_facts_of_a_topic_they_share() -> None:
    facts = [Fact(topic, f"{topic} {i}") for topic in ("a", "b") for i in range(9)]
    one, both, other = (
        set(passages(Book(topics=topics, share=0.67, seed=seed), facts))
        for topics, seed in ((("a",), 1), (("b", "a"), 1), (("a",), 2))
    )
    assert one < both
    assert one != other


def test_a_topic_without_facts_is_named() -> None:
    with pytest.raises(PoolError, match="topic 'sport'"):
        passages(Book(topics=("sport",), share=1), [Fact("a", "x")])


def test_a_damaged_line_of_facts_is_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"topic": "a", "text": "x"}\n{"topic": "a"}\n')
    with pytest.raises(PoolError, match=r"facts\.jsonl, line 2: must be a JSON object"):
        read_facts(path)


def test_the_committed_facts_are_those_of_the_embedded_benchmark() -> None:
    world = build_world(load_params(Path("params.yaml")).dataset.embedded)
    relations = world.relations
    expected = {
        (
            relations[step.relation].topic,
            relations[step.relation].statement.format(step.subject, found),
        )
        for step, found in world.facts.items()
    }
    assert set(read_facts(FACTS)) == expected


def test_books_of_the_laptop_pool_hold_about_two_thirds_of_their_topics() -> None:
    file = read_pool_file(POOL)
    assert file.servers is not None
    facts = read_facts(FACTS)
    for server in file.servers.desks.values():
        for desk in (each for each in server.desks.values() if each.book):
            assert desk.book is not None
            total = sum(fact.topic in desk.book.topics for fact in facts)
            assert len(passages(desk.book, facts)) / total == pytest.approx(0.67, abs=0.02)


def test_a_chat_desk_puts_its_notes_before_the_question() -> None:
    desk = Desk(model="m", instruction="Be short.", book=Book(topics=("t",), share=1, notes=1))
    found = OpenDesk(desk, Notes(TEXTS), "http://m/v1", "served")
    path, body = found.request(asked("Capital of Peru?"), found.found("Capital of Peru?"))
    assert path == "/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": f"Notes:\n- {TEXTS[1]}\nQuestion: Capital of Peru?"},
    ]


def test_a_completing_desk_continues_its_examples() -> None:
    desk = Desk(model="m", form="complete", examples="Question: 1?\nAnswer: 1\n")
    path, body = OpenDesk(desk, None, "http://m/v1", "served").request(asked("2?"), [])
    assert (path, body["stop"]) == ("/completions", ["\n"])
    assert body["prompt"] == "Question: 1?\nAnswer: 1\n\nQuestion: 2?\nAnswer:"


def model_server(status: int = 200) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        question = json.loads(request.content)["messages"][-1]["content"]
        choice = {"message": {"content": f" {question}! "}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}
        return httpx.Response(status, json={"choices": [choice], "usage": usage})

    return httpx.MockTransport(answer)


async def post(desk: OpenDesk, question: str, model: httpx.MockTransport) -> httpx.Response:
    app = build_app({"desk": desk}, transport=model)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://desks") as client,
    ):
        return await client.post("/v1/chat/completions", json=asked(question).model_dump())


async def test_a_reply_carries_the_tokens_that_the_models_server_counted() -> None:
    reply = (
        await post(OpenDesk(Desk(model="m"), None, "http://m/v1", "served"), "Hm", model_server())
    ).json()
    assert reply["choices"][0]["message"]["content"] == "Hm!"
    assert reply["usage"] == {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}


async def test_a_desk_with_a_least_score_refuses_without_asking_its_model() -> None:
    book = Book(topics=("t",), share=1, least_score=0.5)
    desk = OpenDesk(Desk(model="m", book=book), Notes(TEXTS), "http://m/v1", "served")
    reply = (await post(desk, "What is the capital of Kenya?", model_server(500))).json()
    assert reply["choices"][0]["message"]["content"] == "Not in my notes."
    assert reply["usage"]["total_tokens"] == 0


async def test_a_models_server_that_fails_makes_the_desk_fail() -> None:
    reply = await post(
        OpenDesk(Desk(model="m"), None, "http://m/v1", "served"), "Hm", model_server(500)
    )
    assert (reply.status_code, reply.json()["detail"]) == (
        502,
        "the model's server answers with status 500",
    )
