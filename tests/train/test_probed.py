"""Demonstrations from recorded probes: valid, the same for equal seeds, from real replies, and without a call."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn, cast

import pytest

from routerr1.config import Params, VerifyParams
from routerr1.policy.scratch import new_model, train_tokenizer
from routerr1.pool.base import Call, Pool
from routerr1.pool.drawn import DrawnPools, profiled_probes, with_outages
from routerr1.pool.grading import Grader
from routerr1.pool.names import TRAINING_NAMES
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.probed import ProbedPool, UnreachablePool
from routerr1.pool.profile import ProbeRow
from routerr1.prompt import looking_up
from routerr1.protocol import check, names_of
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.train.checkpoint import read_manifest, write_manifest
from routerr1.train.probed import ProbedDemonstrations, refusals_of
from routerr1.train.warmstart import figures, warm_start
from routerr1.types import Answer, Ask, Card, LookUp, Question, Trajectory

CARDS = [
    Card(name, completion_usd_per_mtok=price)
    for name, price in (("Big", 3.0), ("Bill", 0.5), ("Post", 0.4))
]
REFUSAL = "Das weiß ich leider nicht."
QUESTIONS = [
    Question(
        f"q{place}", "own", f"Wer bringt Paket {place} nach Köln?", (f"Fahrer {place}",), "train",
        metadata={"matching": "text", "topic": "Pakete"},
    )
    for place in range(12)
]  # fmt: skip


def row(question: Question, name: str, kind: Literal["right", "wrong", "refused"]) -> ProbeRow:
    said = {
        "right": f"Das macht {question.golden_answers[0]}.",
        "wrong": f"Das macht Fahrer {question.id} {name}.",
        "refused": REFUSAL,
    }
    return cast(
        "ProbeRow",
        {
            "question_id": question.id, "dataset": "own", "question": question.question,
            "golden_answers": list(question.golden_answers), "topic": "Pakete",
            "group": f"own/{question.id}", "candidate": name, "answer": said[kind],
            "correct": float(kind == "right"), "prompt_tokens": 9, "completion_tokens": 6,
            "cost_usd": 1e-6, "latency_s": 0.1, "failure": None,
        },
    )  # fmt: skip


# Big is right, Bill refuses, Post is wrong.
ROWS = [
    row(question, name, kind)
    for question in QUESTIONS
    for name, kind in zip(("Big", "Bill", "Post"), ("right", "refused", "wrong"), strict=True)
]


def source(params: Params, *, outages: bool = True) -> ProbedDemonstrations:
    drawn = DrawnPools(ProbedPool(UnreachablePool(CARDS), ROWS), profiled_probes(ROWS))

    def pool(seed: int) -> Pool:
        made = drawn.draw(TRAINING_NAMES, seed)
        return with_outages(made, seed) if outages else made

    figures: Mapping[str, float] = {"Big": 0.9, "Bill": 0.1, "Post": 0.2}
    render = looking_up(lambda _: figures)
    return ProbedDemonstrations(
        QUESTIONS, [], pool, refusals_of(ROWS), render, params.rollout,
        params.warmstart.stop_probability,
    )  # fmt: skip


def asked(trajectory: Trajectory) -> list[tuple[Ask, str]]:
    return [
        (turn.action, turn.reply.text)
        for turn in trajectory.turns
        if isinstance(turn.action, Ask) and turn.reply is not None
    ]


def test_every_demonstration_keeps_the_format_and_asks_the_question_as_it_is(params: Params):
    for prompt, played in source(params).draw(3, 200):
        names = list(TRAINING_NAMES)
        assert check(played.text, names_of([Card(name) for name in names], played.handles))
        assert played.stopped == "answered"
        looks = [turn for turn in played.turns if isinstance(turn.action, LookUp)]
        assert {cast("LookUp", turn.action).topic for turn in looks} == {"@question"}
        assert all(ask.query == played.question.question for ask, _ in asked(played))
        last = played.turns[-1].action
        assert isinstance(last, Answer)
        assert re.fullmatch("@[1-4]", last.written or "")
        assert played.question.question.lower().rstrip("?") in prompt


def test_equal_seeds_give_equal_demonstrations(params: Params):
    def texts(seed: int) -> list[tuple[str, str]]:
        return [(prompt, played.text) for prompt, played in source(params).draw(seed, 20)]

    assert texts(5) == texts(5) != texts(6)


def test_the_calls_say_nothing_of_the_figures(params: Params):
    figures = (90, 10, 20)
    called: Counter[int] = Counter()
    for _, played in source(params, outages=False).draw(1, 900):
        if all(f"{figure}%" in played.turns[0].inserted for figure in figures):
            for aim in re.findall(r"<think> (\d+)% m\d+</think>", played.text)[:1]:
                called[min(figures, key=lambda figure: abs(figure - int(aim)))] += 1
    assert set(called) == {*figures}
    assert max(called.values()) < 1.5 * min(called.values())


def test_after_a_refusal_another_is_asked_and_its_reply_is_the_answer(params: Params):
    again = {True: [0, 0], False: [0, 0]}  # refused -> [asked again, all]
    for _, played in source(params).draw(2, 500):
        calls = asked(played)
        first = calls[0][1]
        refused = first in (REFUSAL, "")  # "" of a candidate that is down
        again[refused][0] += sum(isinstance(turn.action, LookUp) for turn in played.turns) > 1
        again[refused][1] += 1
        assert len({ask.name for ask, _ in calls[:2]}) == len(calls[:2])
        useful = [said for _, said in calls if said not in (REFUSAL, "")]
        if useful:
            assert played.answer == useful[-1]
    share = {refused: more / total for refused, (more, total) in again.items()}
    assert share[True] == pytest.approx(params.warmstart.stop_probability, abs=0.1)
    assert share[False] == pytest.approx(1 - params.warmstart.stop_probability, abs=0.1)


async def test_only_what_was_not_asked_in_profiling_is_asked() -> None:
    class Counting(UnreachablePool):
        asked = 0

        async def ask(self, call: Call):
            Counting.asked += 1
            return await super().ask(call)

    pool = ProbedPool(Counting(CARDS), ROWS)
    known = await pool.ask(Call("Big", QUESTIONS[0].question))
    assert (known.text, known.cached, Counting.asked) == ("Das macht Fahrer 0.", True, 0)
    assert (await pool.ask(Call("Big", "Neu?"))).failure == "unavailable"
    assert Counting.asked == 1
    assert pool.paid_usd == 0.0
    failed = [{**ROWS[0], "failure": "unavailable"}]
    await ProbedPool(Counting(CARDS), cast("list[ProbeRow]", failed)).ask(
        Call("Big", QUESTIONS[0].question)
    )
    assert Counting.asked == 2


def test_a_drawn_pool_knows_who_answers(params: Params):
    del params
    drawn = DrawnPools(ProbedPool(UnreachablePool(CARDS), ROWS), profiled_probes(ROWS))
    made = drawn.draw(TRAINING_NAMES, 4)
    assert {made.behind_name(card.name) for card in made.cards} == {"Big", "Bill", "Post"}
    again = PerturbedPool(made, [replace(made.cards[0], name="New")], {"New": made.cards[0].name})
    assert again.behind_name("New") == made.behind_name(made.cards[0].name)


def test_a_warm_start_on_long_answers_is_judged_by_what_profiling_found(params: Params):
    """No embedder is at hand: the grades are those of the recorded replies."""

    def unavailable() -> NoReturn:
        raise AssertionError("nothing is graded again")

    held = [
        replace(each, metadata={**each.metadata, "task": "long"}, golden_answers=("A driver.",))
        for each in QUESTIONS
    ]
    known = {(row["dataset"], row["question_id"], row["answer"]): row["correct"] for row in ROWS}
    grader = Grader(VerifyParams(), embed=unavailable, judge=lambda _: unavailable(), known=known)
    for name, em in (("Big", 1.0), ("Post", 0.0)):
        said = [
            f"<think> ask</think><search> {name}: @question</search>",
            "<think> done</think><answer> @1</answer>",
        ]
        found = figures(
            ScriptedGenerator(said), held, ProbedPool(UnreachablePool(CARDS), ROWS), params, 1,
            render=source(params).render, grade=grader,
        )  # fmt: skip
        assert found == {"format_valid": 1.0, "em": em}


@pytest.mark.slow
def test_a_pretrained_model_takes_the_same_road(params: Params, tmp_path: Path):
    """A checkpoint of another vocabulary, as a hub has it, imitates the same demonstrations."""
    tokenizer = train_tokenizer((question.question for question in QUESTIONS), 500)
    new_model(params.model, tokenizer, 3).save_pretrained(tmp_path / "hub")
    tokenizer.save_pretrained(tmp_path / "hub")
    write_manifest(tmp_path / "hub", {})
    quick = params.warmstart.replace(steps=150, batch_size=8)
    pretrained = params.replace(
        model=params.model.replace(init=str(tmp_path / "hub")), warmstart=quick
    )
    demonstrations = source(pretrained)
    pool = ProbedPool(UnreachablePool(CARDS), ROWS)
    metrics = warm_start(
        demonstrations, QUESTIONS, pool, pretrained, 1, tmp_path / "made",
        render=demonstrations.render,
    )  # fmt: skip
    assert metrics["loss"] < 0.5  # of 6 at random
    assert read_manifest(tmp_path / "made")["metrics"] == metrics
