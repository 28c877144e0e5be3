"""The control that reads cards, with and without a price on cost."""

from dataclasses import replace

import pytest

from routerr1.evaluate.redrawn import CARDS, by_the_cards
from routerr1.pool.perturbed import PerturbedPool

PERFORMANCE = {"Atlas": 0.5, "Goliath": 0.9, "Mint": 0.3}


@pytest.fixture
def cards(stage):
    """Three cards; a usual call of Goliath costs ten times as much as one of Atlas, and Mint is free."""
    usd = {"Atlas": 1.0, "Goliath": 10.0, "Mint": 0.0}
    return [
        replace(
            card, prompt_usd_per_mtok=0.0, completion_usd_per_mtok=usd[card.name], request_usd=0.0,
            prompt_tokens=None, completion_tokens=None, performance={"topic": PERFORMANCE[card.name]},
        )
        for card in stage.pool.cards
        if card.name in usd
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "chosen"),
    [
        (10, "Goliath"),  # .9 against .5 and .3
        (5, "Goliath"),  # .9 - .33 against .5 - .03 and .3
        (4, "Atlas"),  # .9 - .52 against .5 - .05 and .3
        (0, "Mint"),  # free
    ],
)
async def test_a_lower_spend_level_moves_the_calls_to_cheaper_candidates(
    stage, cards, level, chosen
):
    (policy,) = stage.policies(stage.policy)
    pool = PerturbedPool(stage.pool, cards)
    router = by_the_cards(policy, pool, lambda _: "topic", "training", 0, level=level)
    assert router.name == CARDS
    played = await router.play(stage.test[0], player="p")
    assert {turn.reply.model for turn in played.turns[:-1]} == {chosen}


async def test_an_unavailable_candidate_gets_no_call(stage, cards):
    (policy,) = stage.policies(stage.policy)
    pool = PerturbedPool(stage.pool, cards, down=["Goliath"])
    router = by_the_cards(policy, pool, lambda _: "topic", "training", 0)
    played = await router.play(stage.test[0], player="p")
    assert {turn.reply.model for turn in played.turns[:-1]} == {"Atlas"}
