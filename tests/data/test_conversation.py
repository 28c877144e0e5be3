"""Conversations as questions: chat logs, and follow-ups that only the whole conversation answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import ColumnsParams, EmbeddedParams, RolloutParams
from routerr1.data.conversation import as_question, asked_in, gist, messages_in
from routerr1.data.embedded import build_world, questions
from routerr1.data.imported import Imported, Shares, import_file
from routerr1.data.splits import read_file
from routerr1.evaluate.rows import row_of
from routerr1.pool.base import Call, Pool
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.serve.requests import Message, question_of
from routerr1.types import Card, Question, Reply

COLUMNS = ColumnsParams(
    id=None, question="messages", golden_answers="messages", metadata=None, task="long"
)
CHAT = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "What is the capital of Peru?"},
    {"role": "assistant", "content": "Lima."},
    {"role": "user", "content": [{"type": "text", "text": "And how many\npeople live there?"}]},
    {"role": "assistant", "content": "About ten million."},
    {"role": "user", "content": "Thanks!"},
]


def imported(tmp_path: Path, rows: list[Any], columns: ColumnsParams = COLUMNS) -> Imported:
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return import_file(file, "chats", columns, out=tmp_path, shares=Shares(1.0, 0.0))


def test_a_chat_log_becomes_questions_with_the_assistants_last_answer(tmp_path: Path):
    found = imported(tmp_path, [{"messages": CHAT, "model": "x"}])
    (row,) = read_file(found.path)
    assert row.question == (
        "system: You are helpful.\nuser: What is the capital of Peru?\nassistant: Lima.\n"
        "user: And how many\npeople live there?"
    )
    assert row.golden_answers == ("About ten million.",)
    assert [each["role"] for each in row.metadata["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert row.metadata["task"] == "long"


def test_the_gateway_writes_the_same_text(tmp_path: Path):
    (row,) = read_file(imported(tmp_path, [{"messages": CHAT}]).path)
    asked = [Message.model_validate(each) for each in CHAT[:4]]
    assert question_of(asked) == row.question
    (single,) = read_file(imported(tmp_path, [{"messages": CHAT[1:3]}]).path)
    assert question_of([Message.model_validate(CHAT[1])]) == single.question == CHAT[1]["content"]


def test_a_column_of_answers_goes_with_a_conversation_as_json_in_a_cell(tmp_path: Path):
    file = tmp_path / "chats.csv"
    cell = json.dumps(CHAT[:4]).replace('"', '""')
    file.write_text(f'messages,gold\n"{cell}",10 million\n')
    columns = COLUMNS.replace(golden_answers="gold", task="number")
    found = import_file(file, "chats", columns, out=tmp_path, shares=Shares(1.0, 0.0))
    (row,) = read_file(found.path)
    assert (row.golden_answers, row.question.endswith("people live there?")) == (
        ("10 million",),
        True,
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (CHAT[:2], "no_answer"),
        ([CHAT[0], CHAT[2]], "no_question"),
        ([{"role": "assistant", "content": "Hello!"}], "no_answer"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, CHAT[2]], "no_question"),
        ([CHAT[1], {"role": "assistant", "content": None, "tool_calls": []}], "no_answer"),
        ([], "no_question"),
        ([{"role": "robot", "content": "?"}], "no_question"),
    ],
)
def test_what_is_no_question_and_answer_is_refused(tmp_path: Path, messages: object, reason: str):
    found = imported(tmp_path, [{"messages": messages}, {"messages": CHAT}])
    assert messages_in("[{broken") is None
    assert dict(found.refused) == {reason: 1}


CAPITAL = "What is the capital of "


def follow_ups() -> list[tuple[str, list[tuple[str, str]], str]]:
    """Follow-up questions on the embedded facts: (country, messages, capital).

    The last message alone has no answer.
    """
    section = EmbeddedParams(
        countries=12, airports=4, elements=4, test_share=0.2, validation_share=0.1
    )
    asked = questions(build_world(section), section, 42)
    found = {
        row.question.removeprefix(CAPITAL).rstrip("?"): row.golden_answers[0]
        for row in asked
        if row.question.startswith(CAPITAL)
    }
    return [
        (
            country,
            [
                ("user", f"Which continent is {country} on?"),
                ("assistant", "One moment, please."),
                ("user", "And what is its capital?"),
            ],
            capital,
        )
        for country, capital in found.items()
    ]


class Knows(Pool):
    """A candidate that knows capitals, if it is told of which country."""

    def __init__(self, capitals: dict[str, str]) -> None:
        self.cards = [Card("Atlas", performance={"geography": 1.0})]
        self._capitals = capitals

    async def ask(self, call: Call) -> Reply:
        named = [
            capital for country, capital in self._capitals.items() if f" {country} " in call.query
        ]
        text = f"Its capital is {named[0]}." if named else "The capital of which country?"
        return Reply(call.candidate, text, 5, 5, 1e-6)


@pytest.mark.parametrize(
    ("query", "right"), [("@question", 1.0), ("And what is its capital?", 0.0)]
)
async def test_follow_ups_are_answered_by_passing_the_conversation_through(
    query: str, right: float
):
    rows = follow_ups()
    assert len(rows) >= 10
    pool = Knows({country: capital for country, _, capital in rows})
    render = renderer("compact", 4)
    for place, (_, said, gold) in enumerate(rows):
        question = Question(
            f"q{place}", "chats", as_question(said), (gold,), "test",
            metadata={"matching": "text", "messages": [{"role": r, "content": t} for r, t in said]},
        )  # fmt: skip
        script = [
            f"<think> t</think><search> Atlas: {query}</search>",
            "<think> done</think><answer> @1</answer>",
        ]
        played = await rollout(
            question, ScriptedGenerator(script), pool, render=render,
            params=RolloutParams(max_rounds=3, max_new_tokens=100, temperature=1.0), seed=0,
        )  # fmt: skip
        assert row_of(played, pool="p", router="policy", seed=1, cards=pool.cards).em == right


FOLLOW_UP = as_question(
    [
        ("system", "You are helpful.\nBe brief."),
        ("user", "What is the capital of Peru?"),
        ("assistant", "Lima.\nIt lies on the coast."),
        ("user", "And how many\npeople live there?"),
    ]
)


def within(most: int) -> Callable[[str], bool]:
    return lambda text: len(text) <= most


@pytest.mark.parametrize(
    "question",
    [
        "Capital of Peru?",
        "user: what is that?",
        "Explain this log:\nuser: root\nsystem: Debian",
        "assistant: Hello.\nassistant: How are you?",
        "",
    ],
)
def test_a_question_that_is_no_conversation_is_embedded_as_it_is(question: str):
    assert asked_in(question) == [question]
    assert gist(question, within(100)) == question


def test_of_a_conversation_what_the_user_says_is_embedded():
    assert gist(FOLLOW_UP) == "What is the capital of Peru?\nAnd how many\npeople live there?"
    alone = as_question([("system", "You are helpful."), ("user", "Capital of Peru?")])
    assert gist(alone) == "Capital of Peru?"


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (60, "What is the capital of Peru?\nAnd how many\npeople live there?"),  # 28 + 1 + 31
        # 28 before the last 32: twelve and twelve around the three that say what is cut.
        (59, "What is the  … tal of Peru?\nAnd how many\npeople live there?"),
        (37, "W … ?\nAnd how many\npeople live there?"),
        (36, "And how many\npeople live there?"),
        (31, "And how many\npeople live there?"),
        (25, "And how man … live there?"),
    ],
)
def test_what_the_user_said_last_is_kept_before_the_earlier(most: int, kept: str):
    assert gist(FOLLOW_UP, within(most)) == kept


def test_earlier_messages_are_kept_from_the_last_to_the_first():
    said = [("user", f"{number:04}") for number in range(6)]
    assert gist(as_question(said), within(14)) == "0003\n0004\n0005"
