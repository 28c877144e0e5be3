"""A policy on recorded replies, beside other routers: four questions worked out by hand, and one short training."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.nq.page import page
from benchmarks.nq.study import BEST, FIRST, ORACLE, POLICY, Study, study_of
from benchmarks.nq.training import (
    Learner,
    Played,
    Training,
    graded_in_tag,
    params_of,
    trainings_of,
)
from benchmarks.nq_policy import POOL_FILE
from routerr1.baselines.replay_study import Half, halves_of
from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.files import read_yaml
from routerr1.protocol import escape
from routerr1.types import Question

ROOT = Path(__file__).parents[2]
RIGHT, WRONG = "<answer>Ada</answer>", "<answer>Bob</answer>"
UNTAGGED, UNSURE = "It is Ada.", "<answer>I do not know.</answer>"


def _log(path: Path, replies: dict[str, list[str]]) -> Path:
    """Each model's reply to "who is N?"; the first model costs 1, the next 2, and so on."""
    rows = [
        {
            "query_id": f"q{place}", "query": f"who is {place}?", "golden_answers": ["Ada"],
            "model": model, "response": reply, "cost_usd": cost,
        }
        for cost, (model, own) in enumerate(replies.items(), start=1)
        for place, reply in enumerate(own)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _training(seed: int, *plays: tuple[tuple[str, ...], str | None]) -> Training:
    made = tuple(
        Played(row=4 + place, asked=tuple(f"lab/{name}" for name in asked),
               answered=answered and f"lab/{answered}")
        for place, (asked, answered) in enumerate(plays)
    )  # fmt: skip
    return Training(
        halving=1, fold=1, seed=seed, steps=2, warmstart_steps=3, best_step=2, minutes=0.5,
        validation=(0.1, 0.2), before=made, trained=made,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "grade"), [(RIGHT, 1.0), (WRONG, 0.0), (UNTAGGED, 0.0), ("Bob. " + RIGHT, 1.0)]
)
async def test_a_reply_is_graded_by_its_tag_as_it_is_and_as_the_policy_refers_to_it(reply, grade):
    question = Question("q", "d", "who?", ("Ada",), "test")
    assert await graded_in_tag(question, reply) == grade
    assert await graded_in_tag(question, escape(reply)) == grade


def test_gains_are_parted_into_routing_repair_and_reading(tmp_path: Path, params: Params):
    # Questions 0 to 3 are learned from: a is right in 3 of them, b in 2, c in none. So a is the best single model.
    log = _log(tmp_path / "log.jsonl", {
        "lab/a": [RIGHT, RIGHT, RIGHT, WRONG, RIGHT, UNTAGGED, UNSURE, WRONG],
        "lab/b": [RIGHT, RIGHT, WRONG, WRONG, WRONG, RIGHT, RIGHT, WRONG],
        "lab/c": [WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, RIGHT],
    })  # fmt: skip
    half = Half(1, 1, np.arange(4), np.arange(4, 8))
    trainings = [
        # Right at once; repaired by b; asks again without need of a tag, and gains; routes to c, and gains.
        _training(1, (("a",), "a"), (("a", "b"), "b"), (("a", "b"), "b"), (("c",), "c")),
        # Refers to no reply and loses; stays with no tag; calls nothing; asks c after a and keeps a's answer.
        _training(2, (("a",), None), (("a",), "a"), ((), None), (("a", "c"), "a")),
    ]
    section = params.evaluate.replace(bootstrap=100)
    baselines = params.baselines.replace(include=())
    found = study_of(log, trainings, [half], baselines, section)
    assert (found.tested, found.seeds, found.learned_best) == (4, 2, {"a": 1})

    def em(name: str) -> float:
        return found.arm(name).quality["em_in_tag"].mean

    assert em(ORACLE) == 1.0
    assert em(BEST) == 1 / 4
    assert em("best_single_repaired") == 2 / 4
    assert em("best_single_sure") == 3 / 4
    assert em(POLICY) == (4 / 4 + 0 / 4) / 2
    assert em(FIRST) == (2 / 4 + 1 / 4) / 2
    assert em("policy_first_repaired") == (3 / 4 + 2 / 4) / 2
    # Of a and b the first is the better: seed 1 has 2 of 4, seed 2 has 1.
    assert em("policy_best_called") == (2 / 4 + 1 / 4) / 2
    assert found.arm(POLICY).quality["gold_contained"].mean == pytest.approx((4 / 4 + 1 / 4) / 2)
    assert {name: part.mean for name, part in found.parts} == {
        "first_call": 3 / 8 - 1 / 4,
        "repair": 1 / 8,
        "again": 1 / 8,
        "no_reference": -1 / 8,
        "total": 1 / 4,
    }
    # Calls cost 1 for a, 2 for b, 3 for c.
    assert found.arm(POLICY).cost_usd.mean == ((1 + 3 + 3 + 3) / 4 + (1 + 1 + 0 + 4) / 4) / 2
    assert found.arm(POLICY).calls.mean == (6 / 4 + 4 / 4) / 2
    assert found.arm("best_single_repaired").calls.mean == 5 / 4
    assert found.behaviour.first_is_best_single == 6 / 8
    assert (found.behaviour.no_call, found.behaviour.no_reference) == (1 / 8, 2 / 8)
    assert found.behaviour.first_no_tag == 2 / 8
    assert found.behaviour.again_after_no_tag == 1 / 2
    assert found.behaviour.again_after_no_answer_in_tag == 1.0
    assert found.behaviour.again_after_answer_in_tag == 1 / 4
    assert found.behaviour.answers_with_first == 4 / 8
    assert [(run.em, run.best_single) for run in found.runs] == [(1.0, 1 / 4), (0.0, 1 / 4)]
    text = page(found)
    assert "**The policy does not beat the best single model**: it has 0.500 " in " ".join(
        text.split()
    )
    assert "| **Policy** | 0.500 [" in text
    assert "| the first reply has no tag | 0.250 |" in text
    assert (
        "| 1, 2 | 0.100 | 0.200 | 2 | 0.000 | 0.250 | 1.00 | 0.75 | 0.500 | 0.500 | 0.5 |" in text
    )
    found.write(tmp_path / "study.json")
    assert Study.read(tmp_path / "study.json") == found


def test_a_finished_training_is_read_and_one_of_other_steps_is_refused(
    tmp_path: Path, params: Params
):
    half = Half(1, 1, np.arange(4), np.arange(4, 8))
    made = _training(1, (("a",), "a"))
    made.write(tmp_path / "halving-1-fold-1-seed-1.json")
    own = params_of(params, steps=2, warmstart_steps=3)
    assert trainings_of(tmp_path / "none", POOL_FILE, [half], 1, tmp_path, own) == [made]
    with pytest.raises(DataError, match=r"seed-1\.json: was made with other numbers of steps"):
        trainings_of(
            tmp_path / "none",
            POOL_FILE,
            [half],
            1,
            tmp_path,
            params_of(params, steps=4, warmstart_steps=3),
        )


@pytest.mark.slow
def test_a_policy_is_trained_and_played_from_the_log_alone(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    models = [row["model"] for row in read_yaml(POOL_FILE)["candidates"]]
    log = _log(
        tmp_path / "log.jsonl",
        {model: [RIGHT if (place + at) % 3 else UNTAGGED for place in range(24)] for at, model in enumerate(models)},
    )  # fmt: skip
    own = params_of(params, steps=1, warmstart_steps=16)
    own = own.replace(
        train=own.train.replace(questions_per_step=2, rollouts_per_question=2, validation_questions=4),
        model=own.model.replace(hidden_size=32),
    )  # fmt: skip
    (half,) = halves_of(24, 0, 1, 1)
    found = Learner(log, POOL_FILE, half, tmp_path / "work", own).train(1)
    assert [played.row for played in found.trained] == half.test.tolist()
    asked = {name for played in (*found.before, *found.trained) for name in played.asked}
    assert asked <= set(models)
    assert all(each.answered in (None, *each.asked) for each in found.trained)
