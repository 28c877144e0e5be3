"""What the warm start shows of pools."""

from routerr1.config import Params
from routerr1.data.embedded import TOPICS, World
from routerr1.simulation.pool import SimulatedPool, known_facts
from routerr1.train.warmstart import _behind, drawn_cards, names_met
from routerr1.types import Card


def test_the_own_names_are_met_in_a_quarter_of_the_pools_and_what_their_cards_say_in_none(
    pool: SimulatedPool, world: World
) -> None:
    own = {card.name: card for card in pool.cards}
    shown = [drawn_cards(list(own), known_facts(world), 1, 8 * row) for row in range(40)]
    met = [{card.name for card in cards} == set(own) for cards in shown]
    assert met == [row % 4 == 0 for row in range(40)]
    places: dict[str, set[int]] = {name: set() for name in own}
    for cards in shown[::4]:
        assert all(card.performance != own[card.name].performance for card in cards)
        for place, card in enumerate(cards):
            places[card.name].add(place)
    assert all(len(found) > 2 for found in places.values())


def test_few_own_names_stand_anywhere_among_drawn_ones_and_of_many_some_are_met(
    world: World,
) -> None:
    known = known_facts(world)
    places: dict[str, set[int]] = {"Mine": set(), "Other": set()}
    for row in range(0, 160, 4):
        shown = [card.name for card in drawn_cards(list(places), known, 1, 8 * row)]
        assert len(set(shown)) == 6
        for name, found in places.items():
            found.add(shown.index(name))
    assert all(found == set(range(6)) for found in places.values())
    many = [f"Model {number}" for number in range(9)]
    assert {card.name for card in drawn_cards(many, known, 1, 0)} < set(many)


async def test_real_candidates_are_stood_in_for_by_some_that_are_as_good(
    world: World, params: Params
) -> None:
    known = known_facts(world)
    cards = [
        Card("Able 7B", completion_usd_per_mtok=2.0, performance=dict.fromkeys(TOPICS, 1.0)),
        Card("Lost 7B", performance=dict.fromkeys(TOPICS, 0.0)),
    ]
    real = params.model_copy(update={"pool": params.pool.model_copy(update={"kind": "http"})})
    pool = SimulatedPool(_behind(cards, real), known, seed=1, cards=cards)
    query, fact = next((query, fact) for query, fact in known.items() if fact.hops == 1)
    able, lost = await pool.ask("Able 7B", query), await pool.ask("Lost 7B", query)
    assert fact.answer in able.text
    assert able.cost_usd > 0
    assert lost.failure is None
    assert fact.answer not in lost.text


def test_where_every_pool_is_redrawn_no_name_is_met_more_often_than_others(
    pool: SimulatedPool, params: Params
) -> None:
    redrawn = params.model_copy(update={"pool": params.pool.model_copy(update={"redraw": 1.0})})
    assert names_met(pool.cards, redrawn) == []
    assert names_met(pool.cards, params) == [card.name for card in pool.cards]
