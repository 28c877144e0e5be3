"""A registered version is used as any MLflow model: loaded, asked, served over HTTP, traced.

The policy calls candidates and does little else; its text does not matter here.
"""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import BudgetParams, Params
from routerr1.errors import BudgetExceeded, ConfigError, PoolError
from routerr1.pool.build import open_budget
from routerr1.pool.cards import read_cards
from routerr1.pool.profile import ProbeRow, Profile, write_profile
from routerr1.registry import promotion, versions
from routerr1.registry.contents import Outputs
from routerr1.serve.build import Choices, version_engine
from routerr1.serve.champion import Named, find_version
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.pool import SimulatedPool
from routerr1.tracking.store import experiment_id, open_client, tracking_uri
from routerr1.types import Card
from tests.chain import put_policy
from tests.servers import free_port, write_pool_file

pytestmark = pytest.mark.slow

CHAMPION = "models:/routerr1@champion"
QUESTION = "What is the capital of France?"
SERVED = {
    "answer", "refused", "version", "pool", "cost_usd", "calls", "topic", "topic_share", "unlike",
    "trajectory",
}  # fmt: skip


def make_champion(chain: Params, policy: Path, *, price: float = 0.0, **pool: Any) -> Params:
    """Register and promote a real policy with the cards that it was made for.

    Args:
        price: on the cards, in USD per million prompt tokens.
        pool: changes of the parameters' section.
    """
    put_policy(policy, price)
    params = chain.model_copy(update={"pool": chain.pool.model_copy(update=pool)})
    versions.register(params)
    assert promotion.promote(params).record is not None
    return params


@pytest.fixture
def load() -> Iterator[Callable[..., Any]]:
    """Loads the champion as a user does."""
    import mlflow

    with ExitStack() as opened:

        def load_champion(*, demo: bool = True, **settings: Any) -> Any:
            settings["demo"] = demo
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what MLflow says while it loads is not under test
                model = mlflow.pyfunc.load_model(CHAMPION, model_config=settings)
            opened.callback(model.unwrap_python_model().close)
            return model

        yield load_champion


def ask_all(model: Any, *questions: str) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(model.predict(list(questions)))


def failures(answers: list[dict[str, Any]]) -> list[str | None]:
    """Of every reply, why there is none."""
    turns = [turn for answer in answers for turn in answer["trajectory"]["turns"]]
    return [turn["reply"]["failure"] for turn in turns if turn["reply"]]


def test_the_champion_answers_and_is_traced(
    chain: Params, calling_policy: Path, load: Callable[..., Any]
) -> None:
    import mlflow

    make_champion(chain, calling_policy)
    with pytest.raises(ConfigError, match=r"^the candidates are simulated: their answers are made"):
        load(demo=False)
    model = load()
    with closing(sqlite3.connect("mlflow.db")) as busy:
        busy.execute("BEGIN EXCLUSIVE")  # an answer does not wait for stored traces
        answers = ask_all(model, QUESTION, "What is 2 + 2?")
        busy.rollback()
    assert [set(answer) for answer in answers] == [SERVED] * 2
    key = versions.get_version(open_client(), "routerr1", "champion").tags["routerr1.key"]
    assert {(answer["version"], answer["pool"]) for answer in answers} == {(key, "simulated")}
    assert all((answer["answer"] is None) != (answer["refused"] is None) for answer in answers)
    questions = [answer["trajectory"]["question"] for answer in answers]
    assert [question["question"] for question in questions] == [QUESTION, "What is 2 + 2?"]
    assert answers[0]["trajectory"]["turns"]
    mlflow.flush_trace_async_logging()
    client = open_client()
    experiment = experiment_id(client, "routerr1")
    traces = client.search_traces(locations=[experiment])
    spans = [{span.name: span for span in trace.data.spans} for trace in traces]
    assert all({"question", "thought 1"} <= set(found) for found in spans)
    ids = {found["question"].attributes["question_id"] for found in spans}
    assert ids == {question["id"] for question in questions}
    assert len(ids) == 2


def test_a_version_that_keeps_its_probes_says_what_a_question_is_about(
    chain: Params, calling_policy: Path, load: Callable[..., Any], tmp_path: Path
) -> None:
    questions = [QUESTION, "What is the capital of Peru?", "Which year did the war end?"]
    rows = tuple(
        ProbeRow(
            question_id=text, dataset="nq", question=text, golden_answers=["?"],
            topic="places" if "capital" in text else "history", group=text, candidate="Atlas",
            answer="", correct=0.0, em=0.0, f1=0.0, prompt_tokens=1, completion_tokens=1,
            cost_usd=0.0, latency_s=0.0, retries=0, failure=None, breaker_state=None,
        )
        for text in questions
    )  # fmt: skip
    put_policy(calling_policy)
    probed = tmp_path / "probed"
    write_profile(probed, Profile(rows, tuple(read_cards(Path("data/pool/cards.json"))), {}))
    section = chain.baselines.replace(embedder="tfidf")
    made_of = Outputs(matrix=probed / "matrix.parquet")
    versions.register(chain.replace(baselines=section), made_of)
    assert promotion.promote(chain).record is not None
    known, unlike = ask_all(load(), QUESTION, "rewrite my letter")
    assert (known["topic"], known["topic_share"], known["unlike"]) == ("places", 2 / 3, False)
    assert unlike["unlike"] is True
    (quiet,) = ask_all(load(topics=False), QUESTION)
    assert (quiet["topic"], quiet["unlike"]) == (None, None)
    version = find_version(Named("routerr1", "champion", moves=True))
    engine = version_engine(version, Choices(demo=True))
    try:
        assert engine.topics is not None
        assert engine.topics.place(QUESTION).result(60).topic == "places"
    finally:
        asyncio.run(engine.aclose())


def test_what_earlier_questions_cost_is_not_held_against_a_question(
    chain: Params,
    calling_policy: Path,
    load: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_champion(chain, calling_policy, budget=BudgetParams(question_usd=0.001, run_usd=1.0))
    model = load()
    answers = [*ask_all(model, *[QUESTION] * 3), *ask_all(model, *[QUESTION] * 3)]
    called = [answer for answer in answers if answer["calls"]]
    assert len(called) >= 2  # or there is nothing to add up
    assert "budget" not in failures(answers)
    assert "spent or set aside" not in caplog.text
    load()  # another one that serves
    limits = BudgetParams(run_usd=1.0)
    budget = open_budget(limits, {})
    assert budget is not None
    spent = budget.spent_usd()
    budget.close()
    assert len([scope for scope in spent if scope.startswith("question served/")]) == len(called)
    runs = [scope for scope in spent if scope.startswith("run ")]
    assert [scope.split()[1] for scope in runs] == ["serving"]


def test_an_answer_for_which_the_money_ran_out_is_told(
    chain: Params,
    calling_policy: Path,
    load: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_champion(chain, calling_policy, price=1.0)
    answers = ask_all(load(budget={"question_usd": 0.0}), *[QUESTION] * 4)
    assert "budget" in failures(answers)
    called = [answer for answer in answers if failures([answer])]
    assert all(answer["answer"] is None for answer in called)  # what it says then is a guess
    assert "no candidate replied (" in called[0]["refused"]
    assert "of 0.000000 USD are spent or set aside" in caplog.text
    with pytest.raises(BudgetExceeded, match=r"^run serving \w+: the next call could cost"):
        ask_all(load(budget={"run_usd": 0.0}), *[QUESTION] * 4)
    with pytest.raises(
        ConfigError, match=r"^model_config: budget: unknown key per_day; did you mean "
    ):
        load(budget={"per_day": 1.0})


def test_a_policy_of_recorded_calls_is_served_live(
    chain: Params, calling_policy: Path, load: Callable[..., Any]
) -> None:
    calls = {"calls": "replay", "store": Path("data/calls/never-made.jsonl")}
    make_champion(chain, calling_policy, **calls)
    found = failures(ask_all(load(), *[QUESTION] * 4))
    assert None in found  # at least one replied
    assert "not_recorded" not in found


def test_another_pool_file_is_asked_if_it_has_every_card(
    chain: Params, calling_policy: Path, pool: SimulatedPool, load: Callable[..., Any]
) -> None:
    from routerr1.simulation.server import build_app, serving

    candidates = default_candidates()
    gone = write_pool_file(Path("pools/gone.yaml"), "http://127.0.0.1:9", candidates)
    make_champion(chain, calling_policy, kind="http", file=gone)
    with serving(build_app(pool, time_scale=0)) as address:
        here = write_pool_file(Path("here.yaml"), address, candidates)
        found = failures(ask_all(load(pool_file=str(here)), *[QUESTION] * 4))
        part = write_pool_file(Path("part.yaml"), address, candidates[1:])
        missing = candidates[0].name
        with pytest.raises(PoolError, match=f"^the pool lacks {missing}, which the policy was"):
            load(pool_file=str(part))
        with urllib.request.urlopen(f"{address}/stats") as reply:
            assert json.load(reply)["total"]["requests"] == found.count(None) > 0


def test_a_version_carries_its_own_prompt(
    chain: Params, calling_policy: Path, load: Callable[..., Any]
) -> None:
    from transformers import AutoTokenizer

    prompt = Path("mine.txt")
    prompt.write_text("One of {names}, please.\n{cards}\nQ: {question}\n")
    section = chain.prompt.model_copy(update={"template": "file", "file": prompt})
    make_champion(chain.model_copy(update={"prompt": section}), calling_policy)
    prompt.unlink()
    (answer,) = ask_all(load(), "Who?")
    tokenizer = AutoTokenizer.from_pretrained("models/policy")
    shown = tokenizer.decode(answer["trajectory"]["prompt_ids"])
    assert shown.startswith("one of goliath, penny, ")
    assert shown.endswith("q: who?\n")  # its tokenizer lowers case


def test_a_pool_that_lacks_a_card_is_refused_when_loading() -> None:
    from routerr1.registry.serving import check_cards

    with pytest.raises(
        PoolError, match="the pool lacks Mint, which the policy was trained to call"
    ):
        check_cards([Card("Atlas")], [Card("Atlas"), Card("Mint")])


def test_the_champion_is_served_over_http(chain: Params, calling_policy: Path) -> None:
    make_champion(chain, calling_policy)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", CHAMPION]
    server = subprocess.Popen(
        [*command, "--env-manager", "local", "-p", str(port), "-h", "127.0.0.1"],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": tracking_uri(),
            "MLFLOW_PYFUNC_INFERENCE_CONFIG": json.dumps({"demo": True}),
        },
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        body = json.dumps({"inputs": [QUESTION]}).encode()
        answer = json.loads(ask(f"http://127.0.0.1:{port}/invocations", body, seconds=180))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        until_gone(server.pid, seconds=60)
    assert set(answer["predictions"][0]) == SERVED
    client = open_client()
    traces = client.search_traces(locations=[experiment_id(client, "routerr1")])
    assert len(traces) == 1  # stored though the server was ended at once


def until_gone(group: int, *, seconds: float) -> None:
    """Wait for every process of the group; what is left then is killed."""
    deadline = time.monotonic() + seconds
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


def ask(url: str, body: bytes, *, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return bytes(reply.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
