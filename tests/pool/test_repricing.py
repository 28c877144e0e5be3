"""Stored trajectories under new prices; every figure worked by hand."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from routerr1.config import RewardParams
from routerr1.errors import DataError, PoolError
from routerr1.evaluate.rows import read_rows, row_of, write_rows
from routerr1.pool.repricing import read_prices, reprice_rows
from routerr1.rollout.loop import ledger
from routerr1.types import Answer, Ask, Card, Generation, Question, Reply, Trajectory, Turn

OLD = {"Cheap": 1.0, "Dear": 3.0}  # USD per million reply tokens; prompts are free
REWARD = RewardParams(answer="em", cost_weight=0.5, cost_basis="all", cost_window=10)


def played(number: int, calls: list[tuple[str, int]], answer: str) -> Trajectory:
    turns = [
        Turn(
            Generation("<think>a</think><search>x</search>"),
            Ask(name, "q"),
            Reply(name, "yes", 10, tokens, tokens * OLD[name] / 1e6),
        )
        for name, tokens in calls
    ]
    turns.append(Turn(Generation(f"<think>a</think><answer>{answer}</answer>"), Answer(answer)))
    text = f"<think>a</think><answer>{answer}</answer>"
    question = Question(f"q{number}", "set", "who?", ("me",), "test")
    return Trajectory(question, tuple(turns), "answered", answer, text, ledger(turns))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    cards = [Card(name) for name in OLD]
    made = [
        row_of(played(n, calls, "me"), pool="training", router=router, seed=1, cards=cards)
        for router, calls in (
            ("often_cheap", [("Cheap", 100), ("Cheap", 100)]),  # 200 micro-dollars
            ("once_dear", [("Dear", 100)]),  # 300
            ("both", [("Cheap", 50), ("Dear", 150)]),  # 500
        )
        for n in range(2)
    ]
    write_rows(tmp_path / "rows.parquet", made)
    return tmp_path / "rows.parquet"


def prices(**usd: float) -> dict[str, Card]:
    return {name: Card(name, completion_usd_per_mtok=price) for name, price in usd.items()}


def test_the_same_prices_change_nothing(rows: Path):
    found = reprice_rows(rows, prices(**OLD), REWARD)
    assert [router.router for router in found.routers] == ["often_cheap", "once_dear", "both"]
    assert [router.usd for router in found.routers] == [
        pytest.approx((200e-6, 200e-6)),
        pytest.approx((300e-6, 300e-6)),
        pytest.approx((500e-6, 500e-6)),
    ]
    assert [router.cost_rank for router in found.routers] == [(1, 1), (2, 2), (3, 3)]
    assert found.verdict == "No evaluated ranking changes, neither by cost nor by reward."


def test_a_dear_model_that_gets_cheap_changes_the_ranking(rows: Path):
    found = reprice_rows(rows, prices(Cheap=1.0, Dear=1.0), REWARD)
    after = {router.router: router for router in found.routers}
    # 200, 100 and 50 + 150 = 200 micro-dollars: once_dear is cheapest, the others share the second place.
    assert [after[name].usd[1] for name in ("often_cheap", "once_dear", "both")] == [
        pytest.approx(200e-6),
        pytest.approx(100e-6),
        pytest.approx(200e-6),
    ]
    assert after["once_dear"].cost_rank == (2, 1)
    assert after["often_cheap"].cost_rank == (1, 2)
    assert after["both"].cost_rank == (3, 2)
    assert after["once_dear"].reward_rank == (2, 1)
    # The cheapest of a pool earns all cost_score: 0.5 * 1 + 0.5 * 1; the dearest none: 0.5.
    assert after["once_dear"].reward[1] == pytest.approx(1.0)
    assert after["both"].reward == pytest.approx((0.5, 0.5))
    assert (
        found.verdict
        == "Rankings change: often_cheap on training, once_dear on training, both on training."
    )


def test_prompt_tokens_are_priced_too(rows: Path):
    new = {"Cheap": Card("Cheap", prompt_usd_per_mtok=2.0), "Dear": Card("Dear")}
    found = reprice_rows(rows, new, REWARD)
    usd = {router.router: router.usd[1] for router in found.routers}
    # 10 prompt tokens a call at 2 USD per million, two calls, none, one.
    assert usd == {
        "often_cheap": pytest.approx(40e-6),
        "once_dear": 0.0,
        "both": pytest.approx(20e-6),
    }


def test_the_rows_are_written_with_the_new_costs_and_nothing_else_changed(
    rows: Path, tmp_path: Path
):
    reprice_rows(rows, prices(Cheap=2.0, Dear=2.0), REWARD, out=tmp_path / "new.parquet")
    before, after = read_rows(rows), read_rows(tmp_path / "new.parquet")
    assert [row.cost_usd for row in after] == pytest.approx(
        [400e-6] * 2 + [200e-6] * 2 + [400e-6] * 2
    )
    assert [row.key for row in after] == [row.key for row in before]
    stored = json.loads(after[0].trajectory)
    assert stored["ledger"]["cost_usd"] == pytest.approx(400e-6)
    assert [turn["reply"]["cost_usd"] for turn in stored["turns"][:2]] == pytest.approx([2e-4] * 2)
    assert pq.read_schema(tmp_path / "new.parquet").equals(pq.read_schema(rows))


def test_a_candidate_without_a_price_is_named(rows: Path):
    with pytest.raises(PoolError, match="the new prices lack 'Dear'"):
        reprice_rows(rows, prices(Cheap=1.0), REWARD)


def test_files_that_are_no_rows_or_prices_are_named(tmp_path: Path):
    (tmp_path / "rows.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: cannot be read as evaluated rows"):
        reprice_rows(tmp_path / "rows.parquet", {}, REWARD)
    with pytest.raises(PoolError, match=r"none\.json"):
        read_prices(tmp_path / "none.json")
    paper = Path(__file__).parents[2] / "pools" / "paper.yaml"
    assert read_prices(paper)["Gemma-2-27B-Instruct"].completion_usd_per_mtok == 0.8
