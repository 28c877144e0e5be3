"""What the warm start imitates."""

from dataclasses import replace

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.prompt import renderer, shortlist
from routerr1.simulation.pool import known_facts, training_pool
from routerr1.train.demonstrations import imitated
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
    pairs = imitated(
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
