"""Answers say what the question is about, and whether the router knows such questions."""

import json
import threading
from collections.abc import Sequence

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray

from routerr1.baselines.embed import Embedder, TfidfEmbedder
from routerr1.baselines.likeness import KnownQuestions, open_known
from routerr1.config import Params
from routerr1.serve.topics import Topics
from tests.serve.conftest import FRANCE, Start
from tests.serve.test_metrics import page

KNOWN = {f"What is the capital of {name}?": "places" for name in ("Peru", "Chile", "Norway")} | {
    f"Which year did {name} end?": "history" for name in ("the war", "the strike", "the plague")
}
UNLIKE = "Please rewrite my cover letter"


def asked(url: str, question: str, **fields: object) -> httpx2.Response:
    messages = [{"role": "user", "content": question}]
    body = {"model": "routerr1", "messages": messages, **fields}
    return httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=30)


@pytest.fixture
def topics() -> Topics:
    return Topics(KnownQuestions(KNOWN, TfidfEmbedder()))


def test_an_answer_names_topic_and_share_and_says_if_the_question_is_unlike(
    start: Start, topics: Topics
) -> None:
    running = start(topics=topics)
    whole = asked(running.url, FRANCE).json()["routerr1"]
    *_, last, done = asked(running.url, FRANCE, stream=True).text.split("\n\n")[:-1]
    assert done == "data: [DONE]"
    streamed = json.loads(last.removeprefix("data: "))["routerr1"]
    for found in (whole, streamed):
        assert (found["topic"], found["topic_share"], found["unlike"]) == ("places", 0.5, False)
    body = {"model": "routerr1", "input": UNLIKE}
    other = httpx2.post(f"{running.url}/v1/responses", json=body, timeout=30).json()
    assert other["routerr1"]["unlike"] is True
    shown = page(running.url)
    labels = 'topic="places",unlike="false",version="routerr1@7"'
    assert f"routerr1_questions_total{{{labels}}} 2.0" in shown
    assert 'unlike="true",version="routerr1@7"} 1.0' in shown


def test_without_known_questions_and_for_a_candidate_by_name_nothing_is_said(
    start: Start, topics: Topics
) -> None:
    for running, model in (
        (start(), "routerr1"),
        (start(topics=topics, candidates="all"), "Atlas"),
    ):
        found = asked(running.url, FRANCE, model=model).json()["routerr1"]
        assert (found["topic"], found["topic_share"], found["unlike"]) == (None, None, None)
        assert "routerr1_questions_total{" not in page(running.url)


class Held:
    """An embedder that embeds questions only once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun = threading.Event()

    def fit(self, texts: Sequence[str]) -> Embedder:  # noqa: ARG002 - of the interface
        return self

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(texts) == 1:
            self.begun.set()
            assert self.may.wait(30)
        return np.ones((len(texts), 1), dtype=np.float32)


def test_the_server_answers_others_while_a_question_is_compared(start: Start) -> None:
    held = Held()
    running = start(topics=Topics(KnownQuestions(KNOWN, held)))
    status: list[int] = []

    def ask() -> None:
        status.append(asked(running.url, FRANCE).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert held.begun.wait(30)
    assert httpx2.get(f"{running.url}/healthz", timeout=10).status_code == 200
    assert not status
    held.may.set()
    asking.join(30)
    assert status == [200]


def test_a_host_without_the_embedder_serves_without_topics(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    section = params.baselines.replace(embedder="./no-such-model")
    assert open_known(KNOWN, section, seed=0) is None
    assert "answers name no topic" in caplog.text
    assert open_known({}, section, seed=0) is None
