"""A registered version is used as any MLflow model: loaded, asked, served over HTTP, traced.

The policy is real but has learned nothing; what it says does not matter here.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest

from routerr1 import promotion, registry, tracking
from routerr1.config import Params
from routerr1.errors import PoolError
from routerr1.types import Card
from tests.servers import free_port

CHAMPION = "models:/routerr1@champion"


@pytest.fixture
def champion(chain: Params) -> registry.Version:
    """A version whose checkpoint and cards are whole."""
    return make_champion(chain)


def make_champion(params: Params) -> registry.Version:
    from routerr1.pool.cards import write_cards
    from routerr1.pool.simulated import default_candidates
    from routerr1.train.checkpoint import save_policy
    from routerr1.train.policy import new_model, train_tokenizer

    made = Path("made")
    tokenizer = train_tokenizer(["Atlas knows the capital of France"], 400)
    small = params.model.model_copy(update={"hidden_size": 32, "layers": 2, "heads": 4})
    new_model(small, tokenizer, 1).save_pretrained(made)
    tokenizer.save_pretrained(made)
    save_policy(made, Path("models/policy"), {"seed": 1})
    write_cards(
        Path("data/pool/cards.json"), [Card(made_up.name) for made_up in default_candidates()]
    )
    subprocess.run(["dvc", "commit", "-f", "-q"], check=True)
    registry.register(params)
    move = promotion.promote(params).move
    assert move is not None
    return registry.get_version(tracking.open_client(), "routerr1", "champion")


def test_the_champion_answers_and_is_traced(champion: registry.Version) -> None:
    import mlflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow says while it loads is not under test
        model = mlflow.pyfunc.load_model(CHAMPION)
        answers = model.predict(["What is the capital of France?", "What is 2 + 2?"])
    assert [set(answer) for answer in answers] == [
        {"answer", "cost_usd", "calls", "trajectory"}
    ] * 2
    assert answers[1]["trajectory"]["question"]["question"] == "What is 2 + 2?"
    assert answers[0]["trajectory"]["turns"]
    client = tracking.open_client()
    experiment = tracking.experiment_id(client, "routerr1")
    traces = client.search_traces(locations=[experiment])
    assert len(traces) == 2
    spans = traces[0].data.spans
    assert {span.name for span in spans} >= {"question", "thought 1"}
    assert champion.number == 1


def test_a_version_carries_its_own_prompt(chain: Params) -> None:
    import mlflow
    from transformers import AutoTokenizer

    prompt = Path("mine.txt")
    prompt.write_text("One of {names}, please.\n{cards}\nQ: {question}\n")
    section = chain.prompt.model_copy(update={"template": "file", "file": prompt})
    make_champion(chain.model_copy(update={"prompt": section}))
    prompt.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow says while it loads is not under test
        (answer,) = mlflow.pyfunc.load_model(CHAMPION).predict(["Who?"])
    shown = AutoTokenizer.from_pretrained("models/policy").decode(
        answer["trajectory"]["prompt_ids"]
    )
    assert shown.startswith("One of Atlas, Mint, ")
    assert shown.endswith("Q: Who?\n")


def test_a_pool_that_lacks_a_card_is_refused_when_loading() -> None:
    from routerr1.serving import check_cards

    with pytest.raises(
        PoolError, match="the pool lacks Mint, which the policy was trained to call"
    ):
        check_cards([Card("Atlas")], [Card("Atlas"), Card("Mint")])


@pytest.mark.slow
def test_the_champion_is_served_over_http(champion: registry.Version) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", CHAMPION]
    server = subprocess.Popen(
        [*command, "--env-manager", "local", "-p", str(port), "-h", "127.0.0.1"],
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking.tracking_uri()},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        body = json.dumps({"inputs": ["What is the capital of France?"]}).encode()
        answer = json.loads(ask(f"http://127.0.0.1:{port}/invocations", body, seconds=180))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
    assert set(answer["predictions"][0]) == {"answer", "cost_usd", "calls", "trajectory"}
    assert champion.number == 1


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
