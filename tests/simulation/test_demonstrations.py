"""What demonstrations show of pools, and where they call."""

from dataclasses import replace

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.prompt import renderer, shortlist
from routerr1.simulation.demonstrations import demonstrations, drawn_cards
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool, training_pool
from routerr1.train.rehearsal import undecided
from routerr1.types import Ask, Question


def test_whom_to_call_is_drawn_from_the_shortlist_also_where_names_hold_spaces(
    params: Params, world: World, rows: list[Question]
) -> None:
    known = known_facts(world)
    cards = [
        replace(card, name=f"Model {number} mini")
        for number, card in enumerate(training_pool(known, 3).cards)
    ]
    pairs = demonstrations(
        rows, world, known, lambda _: cards, render=renderer("compact", 4), params=params.rollout,
        stop_probability=0.8, seed=1, count=40,
    )  # fmt: skip
    turns = [turn for _, trajectory in pairs for turn in trajectory.turns]
    calls = [turn for turn in turns if isinstance(turn.action, Ask)]
    assert len(calls) > 40
    for turn in calls:
        assert isinstance(turn.action, Ask)
        thought = turn.generation.text.removeprefix("<think>").partition("</think>")[0]
        listed, _, name = thought.rpartition(": ")
        assert name == turn.action.name
        assert listed == shortlist(listed.split()[0], cards)
        assert name in listed
        assert (f" {name}", 0) in undecided(turn.generation.text)


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
