"""A second answer beside the one that is shown."""

import asyncio
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from routerr1.config import Params, ShadowParams
from routerr1.files import read_json
from routerr1.pool.base import Call, Pool
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.prompt import renderer
from routerr1.registry.shadow_report import ShadowReport
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.serve.build import policy_route
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.shadow import Shadow, report_of, write_report
from routerr1.serve.store import PairRow
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Card, Reply
from tests.serve.conftest import Running, Start
from tests.serve.test_openai_client import ASK, client, until


class Answers(Pool):
    """Says one thing to questions and another to a judge's prompt, at a price."""

    def __init__(self, inner: Pool, text: str, word: str = "B") -> None:
        self.cards = tuple(Card(card.name, prompt_usd_per_mtok=1.0) for card in inner.cards)
        self._text, self._word = text, word
        self.judged: list[str] = []
        self.asked = 0
        self.hangs = False

    async def ask(self, call: Call) -> Reply:
        if call.query.startswith("Compare two answers"):
            self.judged.append(call.query)
            return Reply(call.candidate, self._verdict(call.query), 1, 1, 1e-6)
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        return Reply(call.candidate, self._text, 1, 1, 1e-6)

    def _verdict(self, prompt: str) -> str:
        """The prompt's letter for the shadow (B), the champion (A), the first answer, or neither."""
        answers = re.findall(r"Answer (\w):\n> (.*)", prompt)
        letters = {"A": next(letter for letter, text in answers if text == "by the champion")}
        letters["B"] = next(letter for letter, text in answers if text == "by the shadow")
        letters["same"] = re.search(r", (\w) if both", prompt)[1]
        letters["first"] = answers[0][0]
        return letters.get(self._word, self._word)


def shadowed(
    start: Start, pool: SimulatedPool, params: Params, folder: Path, word: str, **section: object
) -> tuple[Running, Shadow, Answers]:
    script = ["<think> t</think><search> Atlas: why?</search>"]
    generators = [
        ScriptedGenerator([*script, f"<think> t</think><answer>by the {name}</answer>"])
        for name in ("champion", "shadow")
    ]
    running = start(generators[0], Answers(pool, "one"))
    budget = Budget(folder / "shadow.sqlite", Limits(), run="shadow")
    answers = Answers(pool, "two", word)
    engine = Engine(
        Identity("routerr1", "8", "policy", "simulated"),
        policy_route(generators[1], renderer("compact", 4), params),
        BudgetedPool(answers, budget, max_reply_tokens=10),
        budget,
    )
    chosen = ShadowParams(version="8", share=1.0, **{"budget_usd": 1.0, **section})
    shadow = Shadow(running.gateway, engine, chosen)
    running.gateway.beside.append(engine)
    running.gateway.observers.append(shadow.observe)
    return running, shadow, answers


@pytest.mark.parametrize(
    ("word", "verdict", "asked"),
    [
        ("B", 1.0, 2),
        ("A", -1.0, 2),
        ("same", 0.0, 1),
        ("first", 0.0, 2),
        ("A better answer is B", None, 1),
    ],
)
async def test_pairs_are_judged_whatever_their_order_and_reported(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path,
    word: str, verdict: float | None, asked: int,
) -> None:  # fmt: skip
    running, shadow, answers = shadowed(start, pool, params, tmp_path, word, judge="Penny")
    with client(running) as openai_client:
        for _ in range(8):
            found = openai_client.chat.completions.create(**ASK)
            assert found.choices[0].message.content == "by the champion"
            assert found.usage.cost == 1e-6  # the shadow is not on the bill
    store = running.gateway.store
    await until(lambda: len(store.pairs("routerr1@8")) == 8)
    assert {pair.verdict for pair in store.pairs("routerr1@8")} == {verdict}
    assert len(answers.judged) == 8 * asked
    page = shadow.write_report()
    assert page is not None
    report = read_json(page.with_suffix(".json"))
    assert (report["pairs"], report["same_answer"], report["judged"]) == (
        8,
        0,
        8 * (verdict is not None),
    )
    counted = -1.0 if verdict is None else verdict  # what is not judged counts as worse
    assert report["differences"]["verdict"]["mean"] == counted
    pairs = store.pairs("routerr1@8")
    told = report_of(pairs, running.gateway.engine.identity)
    assert told == ShadowReport(champion="7", pairs=8, verdict=counted, low=counted, high=counted)
    assert "as a shadow of routerr1@7" in page.read_text()


@pytest.mark.parametrize(
    ("known", "verdict", "judged"),
    [
        ({"reference": "by the shadow"}, 1.0, 0),
        ({"reference": "By the CHAMPION."}, -1.0, 0),
        ({"reference": "by none"}, 0.0, 0),
        ({"reference": "by the shadow", "task": "no such task"}, -1.0, 2),
        ({"task": "short"}, -1.0, 2),
    ],
)
async def test_a_reference_in_the_request_judges_before_the_judge(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path,
    known: dict[str, str], verdict: float, judged: int,
) -> None:  # fmt: skip
    running, _, answers = shadowed(start, pool, params, tmp_path, "A", judge="Penny")
    with client(running) as openai_client:
        openai_client.chat.completions.create(**ASK, metadata=known)
    store = running.gateway.store
    await until(lambda: len(store.pairs("routerr1@8")) == 1)
    assert store.pairs("routerr1@8")[0].verdict == verdict
    assert len(answers.judged) == judged


async def test_a_shadow_stops_at_its_budget_and_answers_go_on(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, shadow, _ = shadowed(start, pool, params, tmp_path, "B", budget_usd=0.0)
    with client(running) as openai_client:
        for _ in range(3):
            assert openai_client.chat.completions.create(**ASK).choices
            await until(lambda: shadow.stopped is not None)
    assert "shadow routerr1@8: the next call could cost" in (shadow.stopped or "")
    assert running.gateway.store.pairs("routerr1@8") == []


def pair(number: int, champion: str) -> PairRow:
    """A pair of another gateway."""
    return PairRow(
        f"other-{champion}-{number}", "routerr1@8", champion, float(number), same=False, verdict=None,
        failed=False, champion_usd=1e-6, shadow_usd=1e-6, champion_s=0.1, shadow_s=0.1,
    )  # fmt: skip


async def test_the_report_is_published_beside_the_champion_that_answered(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, shadow, _ = shadowed(start, pool, params, tmp_path, "B")  # no judge
    published: list[tuple[Identity, ShadowReport]] = []
    shadow._publish = lambda identity, report: published.append((identity, report))
    store = running.gateway.store
    # Of gateways that share the database, before this one began.
    for number in range(23):
        store.write_pair(pair(number, "routerr1@7"))
    for number in range(30):
        store.write_pair(pair(number, "routerr1@6"))
    with client(running) as openai_client:
        for count in (24, 25, 26):
            openai_client.chat.completions.create(**ASK)
            await until(lambda: len(store.pairs("routerr1@8")) == 30 + count)  # noqa: B023
    await until(lambda: published)
    assert len(published) == 1
    identity, report = published[0]
    assert (identity.version, report.champion, report.pairs >= 25) == ("8", "7", True)
    # Answers that differ and are not judged do not speak for the shadow.
    assert report.verdict == -1.0
    assert report_of([], identity) is None
    one = [
        pair(0, "routerr1@7"),
        *(replace(pair(n, "routerr1@7"), same=True, verdict=0.0) for n in range(1, 60)),
    ]
    told = report_of(one, identity)
    page = write_report("routerr1@8", one)
    assert told is not None
    assert page is not None
    written = read_json(page.with_suffix(".json"))
    assert (written["judged"], written["unjudged"]) == (0, 1)
    verdict = written["differences"]["verdict"]
    assert (verdict["mean"], verdict["low"]) == (told.verdict, told.low)
    assert told.verdict == pytest.approx(-1 / 60)
    assert "59 equal answers" in page.read_text()
    assert "0 differing answers judged, 1 not judged" in page.read_text()


async def test_a_cost_that_is_not_finite_makes_no_pair(
    start: Start,
    pool: SimulatedPool,
    params: Params,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running, shadow, _ = shadowed(start, pool, params, tmp_path, "B")
    running.gateway.observers[:] = [lambda seen: shadow.observe(replace(seen, cost_usd=math.nan))]
    with client(running) as openai_client:
        openai_client.chat.completions.create(**ASK)
    await until(lambda: "a cost that is not finite" in caplog.text)
    assert running.gateway.store.pairs("routerr1@8") == []


async def test_a_last_report_is_written_though_a_question_never_ends(
    start: Start, pool: SimulatedPool, params: Params, tmp_path: Path
) -> None:
    running, shadow, answers = shadowed(start, pool, params, tmp_path, "B")
    running.gateway.store.write_pair(pair(1, "routerr1@7"))
    answers.hangs = True
    with client(running) as openai_client:
        openai_client.chat.completions.create(**ASK)
    await until(lambda: answers.asked == 1)
    reported = asyncio.Event()

    async def finish() -> None:
        await shadow.finish()
        asked_by.call_soon_threadsafe(reported.set)

    asked_by = asyncio.get_running_loop()
    engine = running.gateway.beside[0]
    running.server.call(partial(running.gateway.retire, engine, finish))
    await until(lambda: not running.gateway.beside)
    running.server.should_exit = True  # the report is being written
    await asyncio.wait_for(reported.wait(), 15)
    assert Path("runs/shadow/routerr1_8.md").is_file()
