"""The controls of asking again, by hand."""

import asyncio
from functools import partial

import pytest

from benchmarks.asking_again import (
    AskedOnce,
    Chosen,
    chosen_for,
    most_said,
    rows_of,
    share_of,
    table,
)
from routerr1.pool.base import Call, Pool
from routerr1.types import Card, Reply
from tests.evaluate.made import row as made_row

CARDS = [
    Card(name, completion_usd_per_mtok=price, performance={"places": share})
    for name, price, share in (("A", 1.0, 0.9), ("B", 0.1, 0.7), ("C", 0.2, 0.8), ("D", 0.3, 0.1))
]
SAID = {"A": "Lima", "B": "Quito", "C": "The capital is Quito.", "D": "I am not sure."}


class Saying(Pool):
    """Every candidate says one thing, for a dollar."""

    cards = CARDS

    async def ask(self, call: Call) -> Reply:
        return Reply(call.candidate, SAID[call.candidate], cost_usd=1.0)


def topic(query: str) -> str | None:
    return "places" if "capital" in query else None


def said(pool: Pool, candidate: str, query: str, scope: str = "r") -> tuple[str, str, float]:
    reply = asyncio.run(pool.ask(Call(candidate, query, scope)))
    return reply.model, reply.text, reply.cost_usd


def test_the_first_reply_comes_again_for_nothing_in_its_rollout_alone() -> None:
    pool = AskedOnce(Saying())
    assert said(pool, "D", "Which capital?") == ("D", "I am not sure.", 1.0)
    assert said(pool, "A", "which capital") == ("A", "I am not sure.", 0.0)
    assert said(pool, "A", "Another?") == ("A", "Lima", 1.0)
    assert said(pool, "A", "Which capital?", "other") == ("A", "Lima", 1.0)


def test_the_best_on_cards_replies_and_three_outvote_it() -> None:
    best = Chosen(Saying(), partial(topic), count=1)
    assert said(best, "D", "Which capital?") == ("D", "Lima", 1.0)
    assert said(best, "D", "Which river?") == ("D", "I am not sure.", 1.0)  # no topic
    three = Chosen(Saying(), partial(topic), count=3)
    assert said(three, "D", "Which capital?") == ("D", "The capital is Quito.", 3.0)


def test_the_cheapest_are_asked_in_the_order_of_their_cards() -> None:
    assert chosen_for(CARDS, "places", 3, cheapest=False) == ["A", "C", "B"]
    assert chosen_for(CARDS, "places", 3, cheapest=True) == ["C", "B", "D"]


def test_who_is_not_sure_does_not_vote_and_the_best_wins_a_tie() -> None:
    replies = [Reply(name, SAID[name]) for name in "DAB"]
    assert most_said("Which capital?", replies).model == "A"
    assert most_said("Which capital?", [replies[0], Reply("X", "", failure="timeout")]).model == "D"


@pytest.mark.parametrize(
    ("policy", "best", "majority", "share"),
    [(2.5, 1.0, 4.0, 0.5), (2.0, 0.5, 2.5, 0.75), (2.0, 0.5, 1.5, 1.0), (1.0, 2.0, 4.0, 0.0)],
)
def test_a_mix_costs_what_the_policy_does(
    policy: float, best: float, majority: float, share: float
) -> None:
    assert share_of(policy, best, majority) == pytest.approx(share)


def test_every_way_has_a_row_and_mixes_lie_between() -> None:
    played = {
        name: [made_row(question_id=str(n), group=str(n), em=em, cost_usd=usd) for n in range(4)]
        for name, em, usd in (
            ("policy", 1.0, 2.0), ("one call", 0.0, 1.0), ("best on cards, one call", 0.0, 1.0),
            ("majority of three", 1.0, 3.0), ("majority of the three cheapest", 0.5, 0.5),
        )
    }  # fmt: skip
    rows = {row["name"]: row for row in rows_of(played, 100)}
    mixed = rows["majority of three, at the policy's cost"]
    assert (mixed["em"]["mean"], mixed["usd_per_1000"]) == (0.5, 2000.0)
    assert mixed["policy_minus"]["mean"] == 0.5
    assert rows["majority of the three cheapest, at the policy's cost"]["em"]["mean"] == 0.5
    assert len(table(list(rows.values())).splitlines()) == 2 + 7
