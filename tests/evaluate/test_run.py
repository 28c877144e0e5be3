import asyncio
import json
import math
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from routerr1.data.contracts import evaluation_breaches
from routerr1.errors import BudgetExceeded, DataError, PoolError
from routerr1.evaluate import controls
from routerr1.evaluate.rows import read_rows, write_rows
from routerr1.evaluate.run import (
    Evaluation,
    best_single,
    choose_questions,
    derived_rows,
    play_all,
)
from routerr1.evaluate.store import RowStore
from routerr1.evaluate.table import headline, summarise
from routerr1.jobs.rejected import Rejected
from routerr1.pool.base import PoolWrapper
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.pool.perturbed import PerturbedPool
from routerr1.report.tables import routers_table
from routerr1.types import Question
from tests.evaluate import made
from tests.evaluation import evaluated

FAVOURITE = "Goliath"  # whom the scripted policy always asks


@pytest.fixture(scope="module")
def found(stage) -> Evaluation:
    """The scripted policy with every control; it is only read."""
    return asyncio.run(evaluated(stage))


def test_every_router_plays_the_same_questions(stage, found):
    counts = Counter(row.router for row in found.rows)
    expected = {"policy", "random", "oracle", "closed_book", "best_single"}
    assert set(counts) == expected | {controls.fixed(name) for name in stage.names}
    assert set(counts.values()) == {60}


def test_forcing_a_model_sends_it_every_call_and_the_policy_still_writes_the_answer(found):
    rows = [row for row in found.rows if row.router == "fixed/Atlas"]
    assert {name for row in rows for name in row.called} == {"Atlas"}
    assert all(row.calls == row.hops for row in rows)
    assert all(
        f"<search>{FAVOURITE}:" in row.trajectory for row in rows
    )  # the text stays the policy's


def test_a_scripted_policy_that_always_asks_one_model_equals_that_model_forced(stage, found):
    table = summarise(found.rows, stage.params)
    gap = table.router(f"fixed/{FAVOURITE}").difference["em"]
    assert (gap.mean, gap.low, gap.high, gap.p) == (0.0, 0.0, 0.0, 1.0)


def test_oracle_is_right_wherever_any_forced_model_is_and_cheapest_among_the_knowing(stage, found):
    rows = found.rows
    right = {row.question_id for row in rows if row.router == "oracle" and row.em == 1}
    for row in rows:
        if row.router.startswith("fixed/") and row.em == 1:
            assert row.question_id in right
    price = {card.name: card.completion_usd_per_mtok for card in stage.pool.cards}
    for row in rows:
        if row.router == "oracle" and row.hops == 1 and row.em == 1:
            knowing = [
                name for name in stage.names
                if next(r for r in rows if r.router == f"fixed/{name}" and r.question_id == row.question_id).em
            ]  # fmt: skip
            assert price[row.called[0]] == min(price[name] for name in knowing)


def test_no_call_pays_nothing_and_calls_nobody(found):
    rows = [row for row in found.rows if row.router == "closed_book"]
    assert all((row.cost_usd, row.called, row.calls) == (0.0, [], 0) for row in rows)
    assert all(row.failures > 0 for row in rows)  # the calls were asked for, and refused


async def test_best_single_is_chosen_on_validation_and_reported_on_test(stage, found):
    tried = {}
    for name in stage.names:
        policy = controls.Policy(1, stage.policy, stage.render, stage.rollout, 0.0)
        router = controls.fixed_router(policy, stage.pool, name, "v", 5)
        chosen = choose_questions(stage.validation, 60, 5)
        rows = await play_all([(router, question) for question in chosen], concurrency=4)
        tried[name] = sum(row.em for row in rows)
    assert tried[found.best_single[1]] == max(tried.values())
    best = [row for row in found.rows if row.router == "best_single"]
    forced = [row for row in found.rows if row.router == f"fixed/{found.best_single[1]}"]
    assert best == [replace(row, router="best_single") for row in forced]


def test_probes_count_when_validation_is_too_short_to_choose_the_best_single_model(found):
    row = found.rows[0]
    tried = [replace(row, router="fixed/A", em=1.0), replace(row, router="fixed/B", em=0.0)]
    probes = [{"candidate": name, "correct": right} for name, right in (("A", 0.0), ("B", 1.0))] * 3
    assert best_single(tried, row.seed) == "A"
    assert best_single(tried, row.seed, probes) == "B"  # 3 of 4 against 1 of 4


def test_without_ground_truth_the_oracle_takes_the_best_forced_run_cheapest_on_ties(found):
    rows = [row for row in found.rows if row.router != "oracle"]
    derived = [row for row in derived_rows(rows, "training", 1, "Atlas") if row.router == "oracle"]
    assert len(derived) == 60
    for winner in derived:
        runs = [
            row for row in rows
            if row.router.startswith("fixed/") and row.question_id == winner.question_id
        ]  # fmt: skip
        assert winner.em == max(run.em for run in runs)
        equal = [run for run in runs if (run.em, run.f1) == (winner.em, winner.f1)]
        assert winner.cost_usd == min(run.cost_usd for run in equal)


@pytest.mark.slow
async def test_two_evaluations_write_the_same_bytes(stage, found, tmp_path):
    write_rows(tmp_path / "first", found.rows)
    write_rows(tmp_path / "second", (await evaluated(stage)).rows)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert read_rows(tmp_path / "first") == found.rows


def test_headline_metrics_compare_the_policy_with_its_controls(stage, found):
    table = summarise(found.rows, stage.params)
    flat = headline(table)
    policy = [row for row in found.rows if row.router == "policy"]
    assert flat["em"] == pytest.approx(sum(row.em for row in policy) / 60)
    assert flat["format_valid"] == 1.0
    assert flat["top_model_share"] == 1.0  # the script asks no other candidate
    assert flat["call_entropy"] == 0.0
    best = table.router("best_single")
    assert flat["em_over_best_single"] == pytest.approx(flat["em"] - best.em.mean)
    assert table.router("oracle").difference["em"].mean <= 0
    assert len(routers_table(table).lines) == 11


@pytest.mark.slow
async def test_a_killed_evaluation_goes_on_where_it_was_and_ends_with_the_same_rows(
    stage, found, tmp_path
):
    whole = found.rows
    store = RowStore(tmp_path / "rows.jsonl", "f1")

    await evaluated(stage, store=store)
    path = tmp_path / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 10 * 60 + 6 * 60  # ten routers on test, six forced ones on validation
    path.write_text("".join(lines[:101]) + lines[101][:50])  # what a kill in mid-write leaves
    played = []
    again = await evaluated(stage, store=store, progress=lambda done, _: played.append(done))
    assert played == list(range(101, 961))
    assert again.rows == whole


@pytest.mark.slow
async def test_rows_of_another_evaluation_are_not_taken_over(stage, tmp_path):
    path = tmp_path / "rows.jsonl"
    await evaluated(stage, store=RowStore(path, "before"))
    with RowStore(path, "after").open() as kept:
        assert kept == {}


def test_a_damaged_row_of_an_earlier_start_is_named_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    store = RowStore(path, "f")
    with store.open():
        store.add(made.row())
        store.add(made.row(question_id="q1"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00" * 9 + b"\n" + lines[2])
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: is damaged"), store.open():
        pass


def test_a_damaged_row_is_put_aside_and_played_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.jsonl"
    store = RowStore(path, "f", max_rejected=0.01)
    with store.open():
        for number in range(300):
            store.add(made.row(question_id=f"q{number}"))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[7] = b'{"pool": 1}\n'
    path.write_bytes(b"".join(lines))
    with store.open() as kept:
        assert len(kept) == 299
        store.add(made.row(question_id="q6"))
    with store.open() as kept:
        assert len(kept) == 300
    (line,) = Path("runs/rejected/rows.jsonl").read_text().splitlines()
    assert json.loads(line)["where"] == f"{path}, line 8"
    path.write_bytes(lines[0] + b"x\n" * 4 + b"".join(lines[5:]))
    with (
        pytest.raises(DataError, match=r"4 of 300 are put aside .* max_rejected \(0\.01\)"),
        store.open(),
    ):
        pass
    path.unlink()  # the remedy that the line names
    with store.open() as kept:
        assert kept == {}


class _Glitch(PoolWrapper):
    """Bills one question with a number that is none."""

    def __init__(self, inner, query):
        super().__init__(inner)
        self.query = query

    async def ask(self, call):
        reply = await super().ask(call)
        return replace(reply, cost_usd=math.nan) if call.query == self.query else reply


async def test_a_trajectory_that_breaks_a_contract_costs_itself_alone(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = controls.Policy(1, stage.policy, stage.render, stage.rollout, 0.0)
    whole = controls.policy_router(policy, stage.pool, "training", 5)
    questions = stage.test[:30]
    plain = await play_all([(whole, question) for question in questions], concurrency=4)
    asked = json.loads(plain[3].trajectory)["turns"][0]["action"]["query"]
    broken = controls.policy_router(policy, _Glitch(stage.pool, asked), "training", 5)
    jobs = [(broken, question) for question in questions]
    hit = [
        place
        for place, row in enumerate(plain)
        if f'"query": {json.dumps(asked)}' in row.trajectory
    ]
    with pytest.raises(DataError, match=r"training pool: trajectory policy/.*: numbers_finite: "):
        await play_all(jobs, concurrency=4)
    rejected = Rejected("evaluate", max_share=len(hit) / 30)
    store = RowStore(tmp_path / "rows.jsonl", "f")
    rows = await play_all(jobs, concurrency=4, store=store, rejected=rejected)
    assert [place for place, row in enumerate(rows) if row.rejected] == hit
    assert [row for place, row in enumerate(rows) if place not in hit] == [
        row for place, row in enumerate(plain) if place not in hit
    ]
    row = rows[hit[0]]
    assert (row.em, row.answer, row.calls, row.cost_usd) == (0.0, None, 0, 0.0)
    assert evaluation_breaches(asdict(row), stage.pool.cards) == []
    aside = [json.loads(line) for line in rejected.path.read_text().splitlines()]
    assert len(aside) == rejected.count == len(hit)
    assert "numbers_finite" in aside[0]["why"]
    again = await play_all(jobs, concurrency=4, store=store, rejected=Rejected("evaluate"))
    assert again == rows  # rows that are kept are not played again


async def test_a_slow_router_holds_nobody_up(stage):
    order = []

    def router(name: str, wait_s: float) -> controls.Router:
        inner = controls.policy_router(
            controls.Policy(1, stage.policy, stage.render, stage.rollout, 0.0), stage.pool, "p", 5
        )

        async def play(question: Question, *, player: str):
            await asyncio.sleep(wait_s)
            order.append(name)
            return await inner.play(question, player=player)

        return replace(inner, name=name, play=play)

    slow, fast = router("slow", 0.05), router("fast", 0.0)
    jobs = [(each, question) for each in (slow, fast) for question in stage.test[:5]]
    rows = await play_all(jobs, concurrency=10)
    assert order == ["fast"] * 5 + ["slow"] * 5
    assert [row.router for row in rows] == ["slow"] * 5 + ["fast"] * 5


async def test_an_error_of_a_router_comes_out_as_itself(stage):
    async def play(question: Question, *, player: str):  # noqa: ARG001 - as `Play`
        raise PoolError(f"no endpoint for {question.id}")

    policy = controls.Policy(1, stage.policy, stage.render, stage.rollout, 0.0)
    broken = replace(controls.policy_router(policy, stage.pool, "p", 5), play=play)
    with pytest.raises(PoolError, match=f"no endpoint for {stage.test[0].id}"):
        await play_all([(broken, question) for question in stage.test[:3]], concurrency=2)


async def test_a_spent_budget_stops_the_evaluation_and_makes_no_rows_of_refused_calls(
    stage, tmp_path
):
    def jobs(run_usd: float):
        budget = Budget(tmp_path / "budget.sqlite", Limits(None, run_usd, None), run="r")
        guarded = BudgetedPool(stage.pool, budget, max_reply_tokens=60)
        pool = PerturbedPool(guarded, stage.pool.cards)
        policy = controls.Policy(1, stage.policy, stage.render, stage.rollout, 0.0)
        router = controls.policy_router(policy, pool, "training", 5)
        return [(router, question) for question in stage.test[:30]], guarded

    store = RowStore(tmp_path / "rows.jsonl", "f")
    some, poor = jobs(0.0015)
    with pytest.raises(BudgetExceeded, match=r"rows are kept: raise pool\.budget"):
        await play_all(some, concurrency=2, store=store)
    with store.open() as kept:
        assert 0 < len(kept) < 30
        assert not any(row.failures for row in kept.values())
    await poor.aclose()
    again, rich = jobs(1.0)
    rows = await play_all(again, concurrency=2, store=store)
    assert len(rows) == 30
    assert not any(row.failures for row in rows)
    await rich.aclose()


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="holds no question"):
        choose_questions([], None, 0)


def test_a_file_that_holds_no_rows_is_named(tmp_path):
    (tmp_path / "rows.parquet").write_text("nonsense")
    with pytest.raises(DataError, match=r"rows\.parquet"):
        read_rows(tmp_path / "rows.parquet")
