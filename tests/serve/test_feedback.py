"""From what users say to questions that a policy can learn from."""

from pathlib import Path

import httpx2
import pytest

from routerr1.data.imported import KNOWN, Shares
from routerr1.data.splits import read_file
from routerr1.errors import DataError
from routerr1.serve.feedback import TooFew, import_feedback, learned, patterns, without_personal
from routerr1.serve.keys import new_key
from routerr1.serve.store import FeedbackRow, RequestRow
from tests.serve.conftest import FRANCE, Running, Start
from tests.serve.test_openai_client import ASK, client


def say(running: Running, key: str = "none", **said: object) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(f"{running.url}/v1/feedback", json=said, headers=headers, timeout=30)


def test_confirmed_and_corrected_answers_become_rows_with_consent_only(start: Start) -> None:
    running = start(keep="full")
    ids = []
    with client(running) as openai_client:
        for question in (FRANCE, "Mail ann@example.org: why?", "Other?", FRANCE.lower(), "Wrong?"):
            body = {**ASK, "messages": [{"role": "user", "content": question}]}
            ids.append(openai_client.chat.completions.create(**body).id)
    confirmed, corrected, silent, same, wrong = ids
    assert say(running, request_id=confirmed, score=1, consent=True).status_code == 201
    assert say(running, request_id=corrected, answer="For ann@example.org", consent=True).is_success
    assert say(running, request_id=silent, answer="no").is_success
    assert say(running, request_id=same, answer="Paris", consent=True).is_success
    assert say(running, request_id=wrong, score=0, consent=True).is_success
    made, skipped = import_feedback(
        running.gateway.store, "feedback", ["email"], out=Path("data/imported"),
        shares=Shares(0.0, 0.0), seed=1,
    )  # fmt: skip
    rows = {row.question: row for row in read_file(made.path)}
    assert set(rows) == {FRANCE, "Mail [removed]: why?"}
    assert rows["Mail [removed]: why?"].golden_answers == ("For [removed]",)
    assert rows[FRANCE].metadata["version"] == "routerr1@7"
    assert (skipped.no_consent, skipped.no_answer) == (1, 1)
    assert sum(made.refused.values()) == 1  # the same question in lower case
    assert str(made.path) in KNOWN.read_text()
    with pytest.raises(TooFew, match="1 new answers, 5 are asked for"):  # the repeated question
        import_feedback(
            running.gateway.store, "feedback", [], out=Path("data/imported"),
            shares=Shares(0.0, 0.0), seed=1, at_least=5,
        )  # fmt: skip


def test_feedback_is_for_ones_own_requests(start: Start) -> None:
    running = start()
    mine, other = new_key("mine"), new_key("other")
    for _, key in (mine, other):
        running.gateway.store.add_key(key)
    with client(running, mine[0]) as openai_client:
        number = openai_client.chat.completions.create(**ASK).id
    assert say(running, mine[0], request_id=number, score=1).status_code == 201
    assert say(running, other[0], request_id=number, score=1).status_code == 404
    assert say(running, request_id=number, score=1).status_code == 401
    for bad in ({"score": 2}, {}, {"score": 1, "nonsense": 1}):
        assert say(running, mine[0], request_id=number, **bad).status_code == 400
    (kept,) = running.gateway.store.feedback()
    assert (kept.question, kept.answer) == (None, None)


@pytest.mark.parametrize("keep", ["none", "metadata", "full"])
@pytest.mark.parametrize("consent", [True, False])
def test_a_comment_is_a_text_and_kept_like_one(start: Start, keep: str, *, consent: bool) -> None:
    running = start(keep=keep)
    with client(running) as openai_client:
        number = openai_client.chat.completions.create(**ASK).id
    said = {"request_id": number, "score": 1, "answer": "Paris", "comment": "ask ann@example.org"}
    assert say(running, **said, consent=consent).status_code == 201
    (kept,) = running.gateway.store.feedback()
    texts = keep == "full" or consent
    assert (kept.score, kept.answer is not None, kept.comment is not None) == (1, texts, texts)


def test_the_latest_word_counts() -> None:
    request = RequestRow("r", 1.0, None, None, "m@v", "m", 5.0, 200, None, 0.0, 0.1, [], "Q?", "A")
    said = [
        FeedbackRow("r", 2.0, None, 1.0, None, None, True, None),
        FeedbackRow("r", 3.0, None, 0.0, None, None, True, None),
    ]
    assert learned(said, {"r": request})[0] == []
    assert [row.answer for row in learned(said[:1], {"r": request})[0]] == ["A"]


def test_the_body_of_a_request_that_was_passed_on_is_no_question(start: Start) -> None:
    running = start(keep="full", candidates="all")
    ids = []
    with client(running) as openai_client:
        for model in ("Atlas", "Atlas", "routerr1"):
            body = {**ASK, "model": model}
            ids.append(openai_client.chat.completions.create(**body).id)
    for number, question in zip(ids, (None, "Capital?", None), strict=True):
        assert say(running, request_id=number, score=1, consent=True, question=question).is_success
    running.gateway.flush()
    kept = running.gateway.store
    found, skipped = learned(kept.feedback(), {row.id: row for row in kept.requests()})
    assert [row.question for row in found] == ["Capital?", FRANCE]
    assert skipped.no_question == 1


@pytest.mark.parametrize(
    "text",
    [
        "ann.b+c@mail.example.org", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111",
        "+49 (0)30 1234567", "192.168.10.1", "sk-abcdefghijklmnop1234",
    ],
)  # fmt: skip
def test_personal_data_is_removed(text: str) -> None:
    every = patterns(["email", "iban", "card", "phone", "address", "key"])
    assert without_personal(f"Is {text} right?", every) == "Is [removed] right?"
    assert without_personal("In 1994, 3 of 10.5 million?", every) == "In 1994, 3 of 10.5 million?"


def test_a_list_of_patterns_is_refused_as_one_pattern_would_match_nothing() -> None:
    with pytest.raises(DataError, match="write --remove before each"):
        patterns(["email,iban"])


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(DataError, match=r"--remove '\(': is no regular expression"):
        patterns(["("])
