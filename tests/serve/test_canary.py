"""A version for a share of users, which returns by itself."""

import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest

from routerr1.config import CanaryParams, Params
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.prompt import renderer
from routerr1.rollout.generate import Generator, ScriptedGenerator
from routerr1.serve.beside import CanarySeat
from routerr1.serve.build import policy_route
from routerr1.serve.canary import Canary, has_returned
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.store import RequestRow
from routerr1.simulation.pool import SimulatedPool
from tests.serve.conftest import Running, Start, calls_atlas
from tests.serve.test_feedback import say
from tests.serve.test_openai_client import ASK, client, until
from tests.serve.test_shadow import Answers


def with_canary(
    start: Start,
    pool: SimulatedPool,
    params: Params,
    folder: Path,
    generator: Generator,
    *,
    every_s: float = 10.0,
    min_requests: int = 10,
    **section: object,
) -> tuple[Running, Canary]:
    running = start(**section)
    budget = Budget(folder / "canary.sqlite", Limits(), run="canary")
    engine = Engine(
        Identity("routerr1", "8", "policy", "simulated"),
        policy_route(generator, renderer("compact", 4), params),
        BudgetedPool(pool, budget, max_reply_tokens=100),
        budget,
    )
    chosen = CanaryParams(version="8", share=0.5, min_requests=min_requests, max_latency_ratio=100)
    canary = Canary(running.gateway, engine, chosen, every_s=every_s)
    running.gateway.beside.append(engine)
    running.gateway.choose = canary.choose
    running.gateway.observers.append(canary.observe)
    running.gateway.on_score = canary.scored
    return running, canary


def versions(running: Running, users: int, asked: int, **fields: Any) -> dict[str, set[str]]:
    """User -> the versions that answered."""
    found: dict[str, set[str]] = {}
    with client(running) as openai_client:
        for number in range(users * asked):
            user = f"user {number % users}"
            try:
                reply = openai_client.chat.completions.create(**ASK, user=user, **fields)
                found.setdefault(user, set()).add(reply.system_fingerprint)
            except openai.InternalServerError as failed:
                version = failed.response.headers["x-routerr1-version"]
                found.setdefault(user, set()).add(f"routerr1@{version}")
    return found


FAILING = ["<think> hm"]
BEFORE = 15  # canary requests before it is judged; half the users below meet it


def ask(running: Running, users: range, **fields: Any) -> Counter[str]:
    """The versions that answered, or failed to."""
    found: Counter[str] = Counter()
    with client(running) as openai_client:
        for number in users:
            try:
                reply = openai_client.chat.completions.create(
                    **ASK, user=f"user {number}", **fields
                )
                found[str(reply.system_fingerprint)] += 1
            except openai.InternalServerError as failed:
                found[f"routerr1@{failed.response.headers['x-routerr1-version']}"] += 1
    running.gateway.flush()
    return found


async def test_gateways_that_share_a_database_judge_a_canary_by_what_all_saw(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    both = [
        with_canary(
            start, pool, params, tmp_path, ScriptedGenerator(FAILING),
            every_s=0.0, min_requests=BEFORE,
        )
        for _ in range(2)
    ]  # fmt: skip
    counted = [ask(both[0][0], range(24)), ask(both[1][0], range(24, 48))]
    assert all(each["routerr1@8"] < BEFORE for each in counted)
    assert (counted[0] + counted[1])["routerr1@8"] >= BEFORE
    for running, canary in both:
        ask(running, range(48, 49))  # a look comes with a request
        await until(lambda canary=canary: canary.returned is not None)  # type: ignore[misc]
    assert both[0][1].returned == both[1][1].returned
    assert "requests failed, 0 of" in (both[0][1].returned or "")


@pytest.mark.parametrize("keep", ["metadata", "none"])
async def test_a_gateway_that_is_started_again_goes_on_with_what_was_kept(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path, keep: str
) -> None:
    def started() -> tuple[Running, Canary]:
        return with_canary(
            start, pool, params, tmp_path, ScriptedGenerator(FAILING),
            every_s=0.0, min_requests=BEFORE, keep=keep,
        )  # fmt: skip

    running, canary = started()
    ask(running, range(24))
    assert canary.returned is None
    running, canary = started()
    ask(running, range(24, 48))
    ask(running, range(48, 49))
    if keep == "none":  # then nothing is kept of which it could know
        assert canary.returned is None
    else:
        await until(lambda: canary.returned is not None)


async def test_a_canary_that_is_tried_again_is_judged_by_the_new_trial(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary = with_canary(
        start, pool, params, tmp_path, ScriptedGenerator(FAILING), every_s=0.0
    )
    ask(running, range(48))
    await until(lambda: canary.returned is not None)
    running.gateway.flush()
    running, canary = with_canary(
        start, pool, params, tmp_path, ScriptedGenerator(calls_atlas), every_s=0.0
    )
    ask(running, range(48))
    await until(lambda: canary._looking is not None and canary._looking.done())
    ask(running, range(48, 50))
    await until(lambda: canary._looking is not None and canary._looking.done())
    assert canary.returned is None


async def test_words_and_references_are_shared_too(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    one, seen = with_canary(
        start, pool, params, tmp_path, ScriptedGenerator(calls_atlas), every_s=0.0, min_requests=50
    )
    with client(one) as openai_client:
        found = openai_client.chat.completions.create(**ASK, metadata={"reference": "nowhere"})
        assert say(one, request_id=found.id, score=0).is_success
    one.gateway.flush()
    two, other = with_canary(
        start, pool, params, tmp_path, ScriptedGenerator(calls_atlas), every_s=0.0, min_requests=50
    )
    ask(two, range(1))
    side = found.system_fingerprint == "routerr1@8"
    await until(lambda: other._windows.scores[side] == {found.id: 0.0})
    assert other._windows.right[side] == seen._windows.right[side] == {found.id: 0.0}
    assert found.id in other._windows.seen[side]


def test_a_user_always_meets_the_same_version(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))
    found = versions(running, users=20, asked=3)
    assert all(len(each) == 1 for each in found.values())
    counted = Counter(version for each in found.values() for version in each)
    assert set(counted) == {"routerr1@7", "routerr1@8"}
    assert canary.returned is None


async def test_a_canary_that_fails_returns_and_stays_away(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(["<think> hm"]))
    versions(running, users=20, asked=3)
    await until(lambda: canary.returned is not None)
    assert "requests failed, 0 of" in (canary.returned or "")
    after = versions(running, users=20, asked=1)
    assert {version for each in after.values() for version in each} == {"routerr1@7"}
    assert has_returned("routerr1@8")
    assert not has_returned("routerr1@9")
    await until(lambda: running.gateway.beside == [])


@pytest.mark.parametrize(("own", "returns"), [(0.0, True), (1.0, False)])
async def test_users_words_count(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path, own: float, *, returns: bool
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))

    await judge(
        running,
        canary,
        [(row(f"{version}-{number}", version), score)
         for number in range(12) for version, score in (("7", 1.0), ("8", own))],
    )  # fmt: skip
    assert (canary.returned is not None) is returns


def row(number: str, version: str, model: str = "routerr1") -> RequestRow:
    label = f"routerr1@{version}"
    return RequestRow(number, 1.0, None, None, label, model, 5.0, 200, None, 0.0, 0.1, [])


async def judge(running: Running, canary: Canary, said: list[tuple[RequestRow, float]]) -> None:
    """Let users say this, on the server's event loop."""

    def score() -> None:
        for request, value in said:
            canary.scored(request, value)
        done.set()

    done = threading.Event()
    await until(lambda: running.gateway.loop is not None)
    running.server.call(score)
    await until(done.is_set)


async def test_a_judgement_of_a_request_counts_once_and_the_latest_does(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))
    bad, good = row("bad", "8"), row("good", "7")
    await judge(running, canary, [(bad, 0.0), (good, 1.0)] * 20)
    assert canary.returned is None
    first = [(row(f"7-{n}", "7"), 1.0) for n in range(12)] + [
        (row(f"8-{n}", "8"), 1.0) for n in range(12)
    ]
    await judge(running, canary, first)
    assert canary.returned is None
    await judge(running, canary, [(row(f"8-{n}", "8"), 0.0) for n in range(12)])
    assert "users call" in (canary.returned or "")


@pytest.mark.parametrize("who", ["earlier champion", "candidate", "asked by its label"])
async def test_only_what_the_compared_versions_answered_counts(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path, who: str
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))
    version = "6" if who == "earlier champion" else "7"
    model = {"candidate": "Atlas", "asked by its label": "routerr1@7"}.get(who, "routerr1")
    said = [(row(f"a{n}", version, model), 1.0) for n in range(12)]
    await judge(running, canary, [*said, *((row(f"b{n}", "8"), 0.0) for n in range(12))])
    assert canary.returned is None
    await judge(running, canary, [(row(f"c{n}", "7"), 1.0) for n in range(12)])
    assert "users call" in (canary.returned or "")


async def test_a_new_champion_is_compared_by_what_it_does_itself(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))
    await judge(running, canary, [(row(f"a{n}", "7"), 1.0) for n in range(12)])
    budget = Budget(tmp_path / "next.sqlite", Limits(), run="next")
    engine = Engine(
        Identity("routerr1", "9", "policy", "simulated"),
        policy_route(ScriptedGenerator(calls_atlas), renderer("compact", 4), params),
        BudgetedPool(pool, budget, max_reply_tokens=100),
        budget,
    )
    running.server.call(lambda: running.gateway.take_over(engine))
    await judge(running, canary, [(row(f"b{n}", "8"), 0.0) for n in range(12)])
    assert canary.returned is None
    await judge(running, canary, [(row(f"c{n}", "9"), 1.0) for n in range(12)])
    assert "users call" in (canary.returned or "")


def test_one_user_who_repeats_a_word_ends_no_canary(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))
    ids: dict[str, str] = {}
    with client(running) as openai_client:
        for number in range(20):
            found = openai_client.chat.completions.create(**ASK, user=f"user {number}")
            ids[found.system_fingerprint] = found.id
    for _ in range(12):
        assert say(running, request_id=ids["routerr1@7"], score=1).is_success
        assert say(running, request_id=ids["routerr1@8"], score=0).is_success
    assert canary.returned is None


def judged_by(
    start: Start, pool: SimulatedPool, params: Params, folder: Path, word: str, **section: object
) -> tuple[Running, Canary, Answers]:
    """A champion and a canary that say different things, and a judge that prefers one; see `Answers`."""
    script = ["<think> t</think><search> Atlas: why?</search>"]
    champion, other = (
        ScriptedGenerator([*script, f"<think> t</think><answer>by the {name}</answer>"])
        for name in ("champion", "shadow")
    )
    answers = Answers(pool, "one", word)
    paying = Budget(folder / "champion.sqlite", Limits(), run="champion")
    running = start(champion, BudgetedPool(answers, paying, max_reply_tokens=10), budget=paying)
    budget = Budget(folder / "canary.sqlite", Limits(), run="canary")
    engine = Engine(
        Identity("routerr1", "8", "policy", "simulated"),
        policy_route(other, renderer("compact", 4), params),
        Answers(pool, "two"),
        budget,
    )
    chosen = CanaryParams.model_validate(
        {"version": "8", "share": 0.5, "min_requests": 10, "max_latency_ratio": 100, **section}
    )
    seat = CanarySeat(running.gateway, chosen)
    seat.take(engine)
    assert seat.canary is not None
    return running, seat.canary, answers


@pytest.mark.parametrize(("word", "returns"), [("A", True), ("B", False), ("same", False)])
async def test_a_canary_whose_answers_the_judge_finds_worse_returns(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path, word: str, *, returns: bool
) -> None:
    running, canary, answers = judged_by(
        start, pool, params, tmp_path, word, judge="Penny", judged=1.0
    )
    versions(running, users=40, asked=1)
    least = 10 if word == "same" else 20  # a tie is not asked again in the other order
    await until(lambda: len(answers.judged) >= least)
    await until(lambda: not canary._comparing)
    assert (canary.returned is not None) is returns
    if returns:
        assert "the judge finds 10 of 10 answers worse, and 0 better" in (canary.returned or "")
        assert has_returned("routerr1@8")


async def test_a_judge_is_asked_within_its_budget_only(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary, answers = judged_by(
        start, pool, params, tmp_path, "A", judge="Penny", judged=1.0, budget_usd=0
    )
    versions(running, users=20, asked=1)
    await until(lambda: canary._second.stopped is not None)
    assert answers.judged == []
    assert canary.returned is None


@pytest.mark.parametrize(("reference", "returns"), [("by the champion", True), ("by the", False)])
async def test_a_canary_that_is_wrong_by_the_references_of_requests_returns(
    start: Start,
    pool: SimulatedPool,
    params: Params,
    tmp_path: Path,
    reference: str,
    *,
    returns: bool,
) -> None:
    running, canary, answers = judged_by(start, pool, params, tmp_path, "A")
    versions(running, users=40, asked=1, metadata={"reference": reference})
    assert (canary.returned is not None) is returns
    if returns:
        assert re.search(
            r"(\d+) of \1 answers are wrong by their references", canary.returned or ""
        )
    assert answers.judged == []


def test_a_version_beside_the_champion_can_be_asked_by_its_name(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, canary = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))
    with client(running) as openai_client:
        assert [model.id for model in openai_client.models.list()] == ["routerr1", "routerr1@8"]
        found = openai_client.chat.completions.create(**{**ASK, "model": "routerr1@8"})
    assert found.model_extra["routerr1"]["version"] == "8"
    assert canary.returned is None


def test_a_version_that_is_shadow_and_canary_is_listed_once(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, _ = with_canary(start, pool, params, tmp_path, ScriptedGenerator(calls_atlas))
    budget = Budget(tmp_path / "shadow.sqlite", Limits(), run="shadow")
    route = policy_route(ScriptedGenerator(calls_atlas), renderer("compact", 4), params)
    identity = Identity("routerr1", "8", "policy", "simulated")
    running.gateway.add_beside(
        Engine(identity, route, BudgetedPool(pool, budget, max_reply_tokens=100), budget)
    )
    with client(running) as openai_client:
        assert [model.id for model in openai_client.models.list()] == ["routerr1", "routerr1@8"]
