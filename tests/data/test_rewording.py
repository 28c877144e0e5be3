"""Questions as people type them: what changes, and that what is meant can be found again."""

from random import Random

import pytest

from routerr1.data.embedded import World
from routerr1.data.rewording import WORDINGS, as_typed, noun_of, with_typo
from routerr1.notation import tidied
from routerr1.pool.base import Call
from routerr1.pool.understanding import UnderstandingPool
from routerr1.simulation.pool import UNCLEAR, SimulatedPool
from routerr1.types import Question


def test_the_noun_of_a_question_is_what_its_canonical_phrasing_asks_for(
    rows: list[Question], world: World
) -> None:
    capital = world.relations["capital"]
    for row in rows:
        if row.metadata["relation"] == "capital" and row.id.endswith("#0"):
            assert f"What is {noun_of(row)}?" == row.question
    assert any(noun_of(row).startswith(capital.noun.format("the country")) for row in rows)


@pytest.mark.parametrize("name", ["lower_case", "upper_case", "more_blanks", "more_marks"])
def test_what_changes_nothing_reaches_the_policy_as_before(name: str, rows: list[Question]) -> None:
    for row in rows[:60]:
        said = WORDINGS[name](row, Random(row.id)).question.question
        assert tidied(said) == tidied(row.question)
    assert any(WORDINGS[name](row, Random(1)).question.question != row.question for row in rows)


def test_a_typo_is_one_word_and_is_known(rows: list[Question]) -> None:
    for row in rows[:80]:
        worded = with_typo(row, Random(row.id))
        before, after = row.question.split(" "), worded.question.question.split(" ")
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(changed) == 1
        assert list(worded.fixes.values()) == [changed[0][0].strip(".,?!").lower()]


async def test_candidates_answer_what_is_meant(rows: list[Question], pool: SimulatedPool) -> None:
    for name, reword in WORDINGS.items():
        for row in rows[:20]:
            worded = reword(row, Random(f"{name}/{row.id}"))
            understood = await UnderstandingPool(pool, worded).ask(
                Call("Goliath", worded.question.question)
            )
            assert understood.text == (await pool.ask(Call("Goliath", row.question))).text
            assert understood.text != UNCLEAR


async def test_a_misspelt_name_is_understood_in_a_sub_question(
    rows: list[Question], pool: SimulatedPool
) -> None:
    row = next(row for row in rows if row.id.startswith("capital:") and "#0" in row.id)
    subject = row.id.removeprefix("capital:").split("#")[0]
    seeds = (with_typo(row, Random(seed)) for seed in range(200))
    worded = next(each for each in seeds if subject.lower() in each.fixes.values())
    wrong = next(iter(worded.fixes))
    asked = Call("Goliath", f"what is the capital of {wrong}?")
    assert (await pool.ask(asked)).text == UNCLEAR
    assert (await UnderstandingPool(pool, worded).ask(asked)).text != UNCLEAR


def test_half_of_the_training_questions_stay_as_they_are(rows: list[Question]) -> None:
    rng = Random(1)
    worded = [as_typed(row, rng) for row in rows]
    same = sum(each.question.question == each.original for each in worded) / len(worded)
    assert 0.45 < same < 0.55
