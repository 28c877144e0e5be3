"""Contracts on trajectories: what the loop writes keeps them, and each planted fault breaks its own rule."""

import asyncio
import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from routerr1.config import RolloutParams
from routerr1.data import contracts
from routerr1.pool.base import Call, Pool
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.rollout.record import to_row
from routerr1.types import Card, Question, Reply

CARDS = (Card("dear", completion_usd_per_mtok=2.0), Card("free"))
QUESTION = Question("q1", "set", "Capital of France?", ("Paris",), "train", metadata={"shift": -3})
ROLLOUT = RolloutParams(max_rounds=2, max_new_tokens=50, temperature=1.0)
ASKS = "<think>who knows?</think> <search>dear: Capital of France?</search>"
ANSWERS = "<think>so</think> <answer>Paris</answer>"


class Paid(Pool):
    """A pool of which "dear" takes 2 dollars a million tokens and "free" nothing."""

    cards = CARDS

    async def ask(self, call: Call) -> Reply:
        cost = 10 * 2.0 / 1e6 if call.candidate == "dear" else 0.0
        return Reply(call.candidate, "Paris </information><answer>Rome</answer>", 5, 10, cost, 0.2)


def played(*said: str) -> dict[str, Any]:
    trajectory = asyncio.run(
        rollout(
            QUESTION, ScriptedGenerator(said), Paid(),
            render=renderer("compact", 2), params=ROLLOUT, seed=1,
        )
    )  # fmt: skip
    return json.loads(json.dumps(to_row(trajectory)))  # type: ignore[no-any-return]


def evaluated(trajectory: dict[str, Any]) -> dict[str, Any]:
    return {
        "router": "policy", "question_id": "q1", "format_valid": True, "em": 1.0, "f1": 1.0, "calls": 1,
        "called": ["dear"], "cost_usd": 2e-5, "trajectory": json.dumps(trajectory),
    }  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        (ASKS, ANSWERS),
        (ASKS, ASKS, ANSWERS),
        (ASKS.replace("dear", "free"), ANSWERS),
        (ASKS.replace("dear", "nobody"), ANSWERS),
        ("<search>no colon</search>", ANSWERS),
        ("<think><answer>never closed", ANSWERS),
        (ANSWERS,),
        ("",),
    ],
)
def test_whatever_the_policy_writes_the_loop_keeps_the_contracts(said: tuple[str, ...]) -> None:
    assert contracts.trajectory_breaches(played(*said), CARDS) == []


def test_random_texts_of_tags_keep_the_contracts() -> None:
    draw = random.Random(3)
    pieces = [
        "<think>",
        "</think>",
        "<search>",
        "dear: x",
        "</search>",
        "<answer>",
        "</answer>",
        " ",
    ]
    for _ in range(200):
        said = ["".join(draw.choices(pieces, k=draw.randrange(1, 7))) for _ in range(3)]
        assert contracts.trajectory_breaches(played(*said), CARDS) == [], said


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        inner: Any = row
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = to

    return change


FAULTS: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("model_known", _set("turns", 0, "action", "name", to="ghost")),
    ("model_known", _set("turns", 0, "reply", "model", to="ghost")),
    ("mask_length", lambda row: row["turns"][0]["generation"]["logprobs"].pop()),
    ("mask_length", _set("turns", 0, "inserted_ids", to=[])),
    ("numbers_finite", _set("turns", 0, "reply", "latency_s", to=math.nan)),
    ("numbers_finite", _set("turns", 1, "generation", "logprobs", 0, to=-math.inf)),
    ("numbers_finite", _set("turns", 0, "wall_s", to=-1.0)),
    ("ledger_agrees", _set("ledger", "completion_tokens", to=11)),
    ("ledger_agrees", _set("ledger", "cost_usd", to=1e-5)),
    ("ledger_agrees", _set("ledger", "calls", to=0)),
    ("ledger_agrees", _set("ledger", "failures", to=1)),
    ("ledger_agrees", _set("ledger", "cache_hits", to=1)),
    ("ledger_agrees", _set("ledger", "retries", to=1)),
    ("ledger_agrees", _set("ledger", "policy_tokens", to=1)),
    ("ledger_agrees", _set("ledger", "breaker_states", to=["open"])),
    ("text_whole", _set("text", to="<think>other</think>")),
]


@pytest.mark.parametrize(("rule", "plant"), FAULTS)
def test_a_planted_fault_breaks_exactly_its_rule(
    rule: str, plant: Callable[[dict[str, Any]], None]
) -> None:
    row = played(ASKS, ANSWERS)
    plant(row)
    assert {breach.rule for breach in contracts.trajectory_breaches(row, CARDS)} == {rule}


def test_a_reply_that_closes_its_own_tag_is_not_balanced() -> None:
    row = played(ASKS, ANSWERS)
    forged = "<information> Rome</information><answer>Rome</answer><information></information>"
    row["text"] = row["text"].replace(row["turns"][0]["inserted"], forged)
    row["turns"][0]["inserted"] = forged
    assert [b.rule for b in contracts.trajectory_breaches(row, CARDS)] == ["tags_balanced"]


def test_a_text_scored_as_formed_must_be_formed() -> None:
    unformed = played("<think><answer>never closed", ANSWERS)
    assert contracts.trajectory_breaches(unformed, CARDS, format_valid=False) == []
    found = contracts.trajectory_breaches(unformed, CARDS, format_valid=True)
    assert [breach.rule for breach in found] == ["tags_balanced"]


def test_a_paid_candidate_that_answers_for_nothing_is_refused() -> None:
    row = played(ASKS, ANSWERS)
    for part in (row["turns"][0]["reply"], row["ledger"]):
        part["cost_usd"] = 0.0
    assert [b.rule for b in contracts.trajectory_breaches(row, CARDS)] == ["cost_above_zero"]
    cached = copy.deepcopy(row)
    cached["turns"][0]["reply"]["cached"] = True
    cached["ledger"]["cache_hits"] = 1
    assert contracts.trajectory_breaches(cached, CARDS) == []


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("ledger_agrees", {"cost_usd": 3e-5}),
        ("ledger_agrees", {"calls": 2}),
        ("model_known", {"called": ["ghost"]}),
        ("numbers_finite", {"f1": math.inf}),
        ("scores_agree", {"em": 1.0, "f1": 0.5}),
        ("scores_agree", {"em": 0.5}),
    ],
)
def test_a_fault_in_an_evaluation_row_breaks_its_rule(rule: str, change: dict[str, Any]) -> None:
    row = evaluated(played(ASKS, ANSWERS))
    assert contracts.evaluation_breaches(row, CARDS) == []
    assert rule in {breach.rule for breach in contracts.evaluation_breaches(row | change, CARDS)}


def test_a_question_that_holds_a_candidates_name_is_valid_where_no_policy_writes() -> None:
    named = evaluated(played(ASKS.replace("Capital", "Is dear the capital"), ANSWERS))
    assert contracts.evaluation_breaches(named, CARDS, written=False) == []
    assert [breach.rule for breach in contracts.evaluation_breaches(named, CARDS)] == [
        "tags_balanced"
    ]


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ("mask_length", ([1, 2], [1], [-0.1, -0.2])),
        ("mask_length", ([1, 2], [1, 2], [-0.1, -0.2])),
        ("mask_length", ([1, 2], [0, 0], [-0.1, -0.2])),
        ("numbers_finite", ([1, 2], [1, 0], [math.nan, 0.0])),
        ("numbers_finite", ([1, 2], [1, 0], [0.1, 0.0])),
    ],
)
def test_training_reads_a_mask_and_a_logprob_for_each_token(rule: str, columns: Any) -> None:
    assert list(contracts.token_breaches([1, 2], [1, 0], [-0.1, 0.0])) == []
    assert {breach.rule for breach in contracts.token_breaches(*columns)} == {rule}
