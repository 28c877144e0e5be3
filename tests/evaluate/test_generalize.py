import asyncio

import pytest

from routerr1.config import GeneralizeParams
from routerr1.errors import PoolError
from routerr1.evaluate.changes import POISON, ChangedPool, pool_changes
from routerr1.evaluate.generalize import (
    compare_pools,
    generalize,
    generalize_markdown,
    generalize_metrics,
    unseen_variants,
)
from routerr1.evaluate.truth import truth_of
from routerr1.pool.simulated import UNSEEN_NAMES, known_facts

LIMITS = GeneralizeParams(pool_seed=1007, added_models=2, max_questions=45)


@pytest.fixture(scope="module")
def compared(stage):
    """A policy that asks whoever is shown first, on every changed pool."""
    return asyncio.run(_compared(stage))


async def _compared(stage):
    variants = await unseen_variants(
        stage.pool, known_facts(stage.world), stage.train[:30], LIMITS, pool_seed=7
    )
    rows, variants = await generalize(
        {1: stage.follower}, stage.pool, variants, stage.test, limits=LIMITS, **stage.settings()
    )
    found = compare_pools(rows, variants, stage.params)
    return found, {entry["pool"]: entry for entry in found["pools"]}


def _changes(stage):
    return {v.name: v.pool for v in pool_changes(stage.pool, "Atlas", UNSEEN_NAMES, seed=1)}


def test_renaming_changes_nothing_for_a_policy_that_reads_names_from_the_prompt(compared):
    entry = compared[1]["all_renamed"]
    assert entry["difference"]["em"]["low"] == entry["difference"]["em"]["high"] == 0.0
    assert all(set(found.values()) == {0.0} for found in entry["flipped"].values())
    assert set(entry["watched_share"].values()) == {1.0}
    assert set(entry["watched_share_before"].values()) == {0.0}


def test_swapped_prices_change_the_bill_and_no_answer(compared):
    entry = compared[1]["prices_swapped"]
    assert entry["flipped"]["answer"]["high"] == 0.0
    # Atlas is cheap; it is swapped with the dearest of the pool.
    assert entry["difference"]["cost_usd"]["low"] > 0


def test_a_candidate_that_is_down_is_called_in_vain(compared):
    entry = compared[1]["favourite_down"]
    assert entry["policy"]["em"]["mean"] == 0.0
    assert entry["policy"]["cost_usd"]["mean"] == 0.0
    assert entry["watched_share"]["mean"] == 1.0
    lost = compared[0]["training"]["em"]["mean"]
    assert entry["flipped"]["right_to_wrong"]["mean"] == pytest.approx(lost)


def test_pools_of_new_models_get_all_controls(compared):
    for name in ("drawn", "added"):
        routers = {line["router"] for line in compared[1][name]["table"]["routers"]}
        assert {"policy", "random", "oracle", "no_call"} < routers
    assert compared[1]["drawn"]["watched_share"]["mean"] == 1.0
    assert compared[1]["added"]["watched_share"]["mean"] == 0.0  # the first shown is an old one
    assert compared[1]["favourite_removed"]["table"] is None
    assert compared[1]["favourite_removed"]["watched_share"] is None  # nobody is new there


def test_metrics_and_markdown_name_every_pool(compared):
    flat = generalize_metrics(compared[0])
    assert flat["unseen_em"] == compared[1]["drawn"]["policy"]["em"]["mean"]
    assert flat["unseen_em_delta"] == pytest.approx(flat["unseen_em"] - flat["training_em"])
    text = generalize_markdown(compared[0])
    assert all(f"| {name} |" in text for name in compared[1])


def test_each_change_changes_what_it_says(stage):
    pools = _changes(stage)
    before = {card.name: card for card in stage.pool.cards}
    dear = max(before.values(), key=lambda card: card.completion_usd_per_mtok)
    assert "Atlas" not in {card.name for card in pools["favourite_removed"].cards}
    assert not {card.name for card in pools["all_renamed"].cards} & before.keys()
    order = [card.name for card in pools["order_shuffled"].cards]
    assert order != list(before)
    assert sorted(order) == sorted(before)
    swapped = {card.name: card for card in pools["prices_swapped"].cards}
    assert swapped["Atlas"].completion_usd_per_mtok == dear.completion_usd_per_mtok
    assert swapped[dear.name].completion_usd_per_mtok == before["Atlas"].completion_usd_per_mtok
    assert swapped["Atlas"].description == before["Atlas"].description
    lying = {card.name: card for card in pools["descriptions_swapped"].cards}
    assert lying["Atlas"].description == dear.description
    assert lying["Atlas"].completion_usd_per_mtok == before["Atlas"].completion_usd_per_mtok
    assert sum(POISON in card.description for card in pools["description_poisoned"].cards) == 1


async def test_a_swapped_price_is_what_the_call_costs(stage):
    question = stage.test[0].question
    before = await stage.pool.ask("Atlas", question)
    after = await _changes(stage)["prices_swapped"].ask("Atlas", question)
    dear = max(stage.pool.cards, key=lambda card: card.completion_usd_per_mtok)
    assert after.text == before.text
    assert after.cost_usd == pytest.approx(
        (
            before.prompt_tokens * dear.prompt_usd_per_mtok
            + before.completion_tokens * dear.completion_usd_per_mtok
        )
        / 1e6
    )


async def test_a_removed_candidate_is_unknown(stage):
    reply = await _changes(stage)["favourite_removed"].ask("Atlas", "anything")
    assert reply.failure == "unknown_model"


def test_truth_follows_the_names_that_are_shown(stage):
    renamed = _changes(stage)["all_renamed"]
    truth, real = truth_of(renamed), truth_of(stage.pool)
    for question in stage.test[:40]:
        for shown, behind in renamed.behind.items():
            assert truth.knows(shown, question.question) == real.knows(behind, question.question)


def test_truth_counts_only_who_is_there_and_up(stage):
    capital = next(q for q in stage.train if q.metadata["relation"] == "capital" and q.hops == 1)
    assert truth_of(stage.pool).is_best("Atlas", capital.question) is True
    assert truth_of(stage.pool).is_best("Mint", capital.question) is False
    assert truth_of(stage.pool).is_best("Atlas", "gibberish") is None
    without = _changes(stage)["favourite_down"]
    others = [card.name for card in stage.pool.cards if card.name != "Atlas"]
    assert any(truth_of(without).is_best(name, capital.question) for name in others)
    assert truth_of(ChangedPool(without, without.cards)) is None  # nobody knows it


def test_changes_need_a_favourite_and_names(stage):
    with pytest.raises(PoolError, match="Nobody"):
        pool_changes(stage.pool, "Nobody", UNSEEN_NAMES, seed=1)
    with pytest.raises(PoolError, match="renaming 6"):
        pool_changes(stage.pool, "Atlas", UNSEEN_NAMES[:5], seed=1)
