"""What demonstrations teach, and what they leave to the rewards."""

from collections import Counter

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.prompt import renderer
from routerr1.protocol import check, names_of
from routerr1.simulation.demonstrations import demonstrations
from routerr1.simulation.facts import known_facts
from routerr1.train.rehearsal import undecided
from routerr1.types import Answer, Ask, LookUp, Question, Trajectory


def drawn(params: Params, world: World, rows: list[Question], count: int) -> list[Trajectory]:
    pairs = demonstrations(
        rows, known_facts(world), render=renderer("compact", 4), params=params.rollout,
        stop_probability=0.8, seed=1, count=count,
    )  # fmt: skip
    return [trajectory for _, trajectory in pairs]


def said(trajectory: Trajectory) -> tuple[str, list[str]]:
    """The question, and what is written."""
    return trajectory.question.id, [turn.generation.text for turn in trajectory.turns]


def test_a_question_of_another_source_changes_no_demonstration(
    params: Params, world: World, rows: list[Question]
) -> None:
    other = Question("f1", "feedback", "Which seat has my country?", ("City 1",), "train")
    with_other, without = (drawn(params, world, some, 20) for some in ([*rows, other], rows))
    assert [said(each) for each in with_other] == [said(each) for each in without]


def test_whom_to_call_is_drawn_from_what_the_look_up_showed(
    params: Params, world: World, rows: list[Question]
) -> None:
    ranks: Counter[int] = Counter()
    for trajectory in drawn(params, world, rows, 900):
        shown: list[str] = []
        for turn, pieces in zip(trajectory.turns, undecided(trajectory), strict=True):
            if isinstance(turn.action, LookUp):
                assert turn.action.topic in trajectory.question.metadata["topics"]
                words = turn.inserted.split()[1:]
                shown = [word.removesuffix("</information>") for word in words]
            if isinstance(turn.action, Ask):
                figure, handle = turn.generation.text[len("<think> ") :].split("<")[0].split()
                assert (f" {figure}", 0) in pieces
                assert f"<search> {handle}: " in turn.generation.text
                figures = sorted((int(word[:-1]) for word in shown[1::3]), reverse=True)
                own = int(shown[shown.index(handle) - 1][:-1])
                assert min(figures, key=lambda each: abs(each - int(figure[:-1]))) == own
                if len(figures) == 4 and len(set(figures)) == 4:
                    ranks[figures.index(own)] += 1
    assert set(ranks) == {0, 1, 2, 3}
    assert max(ranks.values()) < 2 * min(ranks.values())


def test_of_decisions_only_the_first_look_up_of_a_topic_is_rehearsed(
    params: Params, world: World, rows: list[Question]
) -> None:
    kinds: Counter[tuple[str, int]] = Counter()
    for trajectory in drawn(params, world, rows, 200):
        topics: set[str] = set()
        for turn, pieces in zip(trajectory.turns, undecided(trajectory), strict=True):
            assert "".join(text for text, _ in pieces) == turn.generation.text
            kind = type(turn.action).__name__
            if isinstance(turn.action, LookUp):
                kind = "again" if turn.action.topic in topics else "first"
                topics.add(turn.action.topic)
            kinds[kind, pieces[1][1]] += 1
    assert set(kinds) == {("first", 1), ("again", 0), ("Ask", 0), ("Answer", 0)}


def test_demonstrations_keep_the_format_and_answer_by_reference(
    params: Params, world: World, rows: list[Question]
) -> None:
    played = drawn(params, world, rows, 80)
    assert all(check(each.text, names_of([], each.handles)) for each in played)
    answers = [each.turns[-1].action for each in played]
    assert all(isinstance(each, Answer) and each.written for each in answers)
    # The pools know nothing: a right answer is an accident.
    right = sum(each.answer in each.question.golden_answers for each in played)
    assert right < 20
    prompts = [
        prompt
        for prompt, _ in demonstrations(
            rows, known_facts(world), render=renderer("compact", 4),
            params=params.rollout, stop_probability=0.8, seed=3, count=80,
        )
    ]  # fmt: skip
    assert {int(prompt.split(":")[0].removeprefix("spend ")) for prompt in prompts} == set(
        range(11)
    )
    failures = [turn.reply.failure for each in played for turn in each.turns if turn.reply]
    assert "unavailable" in failures
    again = drawn(params, world, rows, 80)
    assert [each.text for each in played] == [each.text for each in again]
