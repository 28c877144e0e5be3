"""Clients that others wrote on top of OpenAI's protocol: LangChain's ChatOpenAI and LiteLLM."""

import pytest

from routerr1.pool.base import Call
from routerr1.serve.store import RequestRow
from routerr1.simulation.pool import SimulatedPool
from tests.serve.conftest import FRANCE, Running, Start

pytestmark = pytest.mark.slow  # the libraries take seconds to import


async def expected(pool: SimulatedPool) -> str:
    return (await pool.ask(Call("Atlas", FRANCE))).text.strip()


async def test_langchain_asks_streams_and_meets_an_error(start: Start, pool: SimulatedPool) -> None:
    pytest.importorskip("langchain_openai")
    import openai
    from langchain_openai import ChatOpenAI

    running = start()

    def model(name: str) -> ChatOpenAI:
        return ChatOpenAI(
            model=name, base_url=f"{running.url}/v1", api_key="none", max_retries=0,
            stream_usage=True, extra_body={"spend": 7},
        )  # fmt: skip

    said = await expected(pool)
    found = await model("routerr1").ainvoke([("system", "Be short."), ("human", FRANCE)])
    assert found.response_metadata["system_fingerprint"] == "routerr1@7"
    assert found.usage_metadata is not None
    assert found.usage_metadata["output_tokens"] > 0
    pieces = [piece async for piece in model("routerr1").astream(FRANCE)]
    assert "".join(str(piece.content) for piece in pieces) == said
    usages = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert usages[-1]["total_tokens"] > 0
    assert model("routerr1").invoke(FRANCE).content == said
    with pytest.raises(openai.NotFoundError, match="'nobody' does not exist"):
        model("nobody").invoke(FRANCE)
    kept = flushed(running)
    assert {row.spend for row in kept} == {7.0}


@pytest.mark.filterwarnings("ignore")  # LiteLLM's own
async def test_litellm_asks_streams_and_meets_an_error(
    start: Start, pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks GitHub for prices
    litellm = pytest.importorskip("litellm")
    running = start()
    asked = {
        "messages": [{"role": "user", "content": FRANCE}],
        "api_base": f"{running.url}/v1",
        "api_key": "none",
        "num_retries": 0,
    }
    said = await expected(pool)
    found = litellm.completion(model="openai/routerr1", **asked)
    assert found.choices[0].message.content == said
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    options = {"stream": True, "stream_options": {"include_usage": True}}
    stream = await litellm.acompletion(model="openai/routerr1", **asked, **options)
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == said
    with pytest.raises(litellm.NotFoundError, match="'nobody' does not exist"):
        litellm.completion(model="openai/nobody", **asked)
    assert [row.status for row in flushed(running)] == [200, 200]


def flushed(running: Running) -> list[RequestRow]:
    running.gateway.flush()
    return running.gateway.store.requests()
