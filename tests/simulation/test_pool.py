"""The simulated pool: skills and prices, the same every time."""

import asyncio
from collections import defaultdict
from functools import cache
from statistics import fmean

import numpy as np
import pytest

from routerr1.config import EmbeddedParams
from routerr1.data.embedded import TOPICS, World, build_world
from routerr1.pool.base import Call
from routerr1.pool.names import TRAINING_NAMES, UNSEEN_NAMES
from routerr1.simulation.candidates import (
    Candidate,
    candidates_of,
    default_candidates,
    measured_candidates,
)
from routerr1.simulation.facts import Fact, known_facts
from routerr1.simulation.pool import (
    WHOLE_ACCURACY,
    SimulatedPool,
    drawn_pool,
    profiled_pool,
    training_pool,
)
from routerr1.types import Card, Question


def test_each_knows_its_share_of_a_topic_and_whole_questions_almost_never() -> None:
    facts = {fact.key: fact for fact in _large_world().values()}
    question = {fact.key: text for text, fact in _large_world().items()}
    pool = SimulatedPool(default_candidates(), _large_world(), seed=7)
    for candidate in pool.candidates:
        known = defaultdict(list)
        for key, fact in facts.items():
            kind = fact.topic if fact.hops == 1 else "whole"
            known[kind].append(pool.knows(candidate.name, question[key]))
        assert fmean(known.pop("whole")) < WHOLE_ACCURACY + 0.05
        for topic, right in known.items():
            skill = candidate.skill[topic]
            assert abs(fmean(right) - skill) < 4 * (skill * (1 - skill) / len(right)) ** 0.5


@cache
def _large_world() -> dict[str, Fact]:
    params = EmbeddedParams(
        countries=100, airports=100, elements=60, test_share=0.3, validation_share=0.1
    )
    return known_facts(build_world(params))


def test_replies_are_sentences_and_right_exactly_when_known(
    pool: SimulatedPool, rows: list[Question]
) -> None:
    for row in rows[:40]:
        for card in pool.cards:
            reply = asyncio.run(pool.ask(Call(card.name, row.question)))
            (gold,) = row.golden_answers
            assert pool.knows(card.name, row.question) == (gold in reply.text), reply.text
            assert " " in reply.text
            assert reply == asyncio.run(pool.ask(Call(card.name, row.question)))
            assert reply.cost_usd > 0


def test_a_stranger_is_a_failure_and_nonsense_is_not_understood(pool: SimulatedPool) -> None:
    assert asyncio.run(pool.ask(Call("Nobody", "x"))).failure == "unknown_model"
    assert "not understand" in asyncio.run(pool.ask(Call("Atlas", "What?"))).text


@pytest.mark.parametrize("kind", ["specialists", "tiers", "middling"])
def test_every_topic_has_one_best_candidate(kind: str) -> None:
    for topic in TOPICS:
        skills = sorted(candidate.skill[topic] for candidate in candidates_of(kind))
        assert skills[-1] > skills[-2]


def test_in_tiers_skill_has_its_price() -> None:
    def price(candidate: Candidate) -> float:
        return candidate.completion_usd_per_mtok

    tiers = candidates_of("tiers")
    assert {c.name for c in tiers} == {c.name for c in default_candidates()}
    for topic in TOPICS:
        best = max(tiers, key=lambda candidate: candidate.skill[topic])
        second = max((c for c in tiers if price(c) < price(best)), key=lambda c: c.skill[topic])
        assert price(second) * 10 == pytest.approx(price(best))
        assert 0.65 <= second.skill[topic] <= 0.9


def test_the_best_of_a_middling_pool_knows_from_six_to_eight_tenths() -> None:
    middling = candidates_of("middling")
    for topic in TOPICS:
        assert 0.6 <= max(candidate.skill[topic] for candidate in middling) <= 0.8


def test_candidates_of_a_middling_pool_err_independently() -> None:
    facts = {fact.key: (text, fact) for text, fact in _large_world().items() if fact.hops == 1}
    candidates = candidates_of("middling")
    pool = SimulatedPool(candidates, _large_world(), seed=7)
    beyond_skill = np.array(
        [
            [pool.knows(each.name, text) - each.skill[fact.topic] for text, fact in facts.values()]
            for each in candidates
        ]
    )
    correlations = np.corrcoef(beyond_skill)[np.triu_indices(len(candidates), 1)]
    assert abs(correlations).max() < 4 / len(facts) ** 0.5


def test_cards_of_drawn_pools_tell_how_often_candidates_are_not_sure(world: World) -> None:
    known = known_facts(world)
    silent = Candidate("Silent", dict.fromkeys(TOPICS, 0.4), 1, 1, 1.0, 0, unsure=1.0)
    bold = Candidate("Bold", dict.fromkeys(TOPICS, 0.4), 1, 1, 1.0, 0, unsure=0.0)
    pool = profiled_pool([silent, bold], known, 3, probes=2000)
    for topic in TOPICS:
        says_so, guesses = (card.unsure[topic] for card in pool.cards)
        assert says_so == pytest.approx(0.6, abs=0.05)
        assert guesses == 0.0


def test_drawn_pools_differ_by_seed_and_use_the_names_they_are_given(world: World) -> None:
    known = known_facts(world)
    pools = [training_pool(known, seed) for seed in range(40)]
    assert len({tuple(card.name for card in each.cards) for each in pools}) == 40
    assert {card.name for each in pools for card in each.cards} <= set(TRAINING_NAMES)
    assert {card.name for card in drawn_pool(known, 1).cards} <= set(UNSEEN_NAMES)
    assert not set(TRAINING_NAMES) & set(UNSEEN_NAMES)
    assert drawn_pool(known, 3).cards == drawn_pool(known, 3).cards


async def test_stand_ins_for_real_candidates_are_as_good_as_their_cards_say(
    world: World,
) -> None:
    known = known_facts(world)
    cards = [
        Card("Able 7B", completion_usd_per_mtok=2.0, performance=dict.fromkeys(TOPICS, 1.0)),
        Card("Lost 7B", performance=dict.fromkeys(TOPICS, 0.0)),
    ]
    pool = SimulatedPool(measured_candidates(cards), known, seed=1, cards=cards)
    query, fact = next((query, fact) for query, fact in known.items() if fact.hops == 1)
    able = await pool.ask(Call("Able 7B", query))
    lost = await pool.ask(Call("Lost 7B", query))
    assert fact.answer in able.text
    assert able.cost_usd > 0
    assert lost.failure is None
    assert fact.answer not in lost.text
