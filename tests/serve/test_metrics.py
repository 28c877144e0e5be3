"""The series of the gateway, and the dashboard that shows them."""

import json
import re
from pathlib import Path

import httpx2
import pytest

from routerr1.serve.metrics import best_single, single_usd
from routerr1.types import Card
from tests.serve.conftest import Start
from tests.serve.test_openai_client import ASK, client

DASHBOARD = Path(__file__).parents[2] / "launch/grafana-gateway.json"


def page(url: str) -> str:
    return httpx2.get(f"{url}/metrics", timeout=30).text


def value(shown: str, series: str) -> float:
    """The value of one series."""
    (found,) = (line for line in shown.splitlines() if line.startswith(f"{series} "))
    return float(found.split()[-1])


def test_requests_calls_and_dollars_are_counted(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        found = openai_client.chat.completions.create(**ASK)
    shown = page(running.url)
    labels = 'model="routerr1",spend="10",status="200",version="routerr1@7"'
    assert f"routerr1_requests_total{{{labels}}} 1.0" in shown
    labels = 'model="routerr1",spend="10",version="routerr1@7"'
    for name in ("request_seconds", "first_token_seconds", "request_usd"):
        assert f"routerr1_{name}_count{{{labels}}} 1.0" in shown
    called = 'spend="10",version="routerr1@7"'
    cost = value(shown, f'routerr1_usd_total{{candidate="Atlas",{called}}}')
    assert cost == pytest.approx(found.usage.cost)
    assert f'routerr1_calls_total{{candidate="Atlas",outcome="ok",{called}}} 1.0' in shown
    assert f'routerr1_call_seconds_count{{candidate="Atlas",{called}}} 1.0' in shown
    for kind, tokens in (
        ("prompt", found.usage.prompt_tokens),
        ("completion", found.usage.completion_tokens),
    ):
        of_each = [
            value(shown, f'routerr1_tokens_total{{candidate="{name}",kind="{kind}",{called}}}')
            for name in ("Atlas", "policy")
        ]
        assert min(of_each) > 0
        assert sum(of_each) == tokens
    assert 'routerr1_serving{version="routerr1@7"} 1.0' in shown


def test_every_series_of_the_dashboard_exists(start: Start) -> None:
    running = start()
    with client(running) as openai_client:
        openai_client.chat.completions.create(**ASK)
    known = set(re.findall(r"^# TYPE (\w+)", page(running.url), re.M))
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    named = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"routerr1_\w+", target["expr"])
    }
    assert len(named) > 12
    assert {name.removesuffix("_bucket") for name in named} <= known


def test_savings_are_against_the_most_accurate_candidate_the_cheaper_one_on_ties() -> None:
    cards = [
        Card("cheap", completion_usd_per_mtok=1.0, performance={"a": 0.5}),
        Card("dear", completion_usd_per_mtok=9.0, performance={"a": 0.9, "b": 0.7}),
        Card("good", completion_usd_per_mtok=4.0, performance={"a": 0.8}, completion_tokens=10.0),
        Card("new"),
    ]
    best = best_single(cards)
    assert best is not None
    assert best.name == "good"
    assert single_usd(best, "What?", "That.") == pytest.approx(40e-6)
    assert best_single(cards[3:]) is None
