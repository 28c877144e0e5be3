"""Which pools training questions are put to."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import Params
from routerr1.data.splits import read_questions
from routerr1.lineage import PATHS
from routerr1.stages.dataset import dataset
from routerr1.stages.train import training_context
from routerr1.train.context import Task
from routerr1.workspace import Workspace


@pytest.fixture
def tasks_of(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Training tasks of the ci preset with these values of the section `pool`."""
    monkeypatch.chdir(tmp_path)
    dataset(params)

    def tasks(**pool: float) -> list[Task]:
        # Of 4 questions each.
        train = params.train.model_copy(update={"steps": 100, "rehearsal_weight": 0.0})
        changed = params.model_copy(
            update={"pool": params.pool.model_copy(update=pool), "train": train}
        )
        return list(training_context(Workspace(changed), Workspace(changed).open_pool(), 1).tasks)

    return tasks


def names(task: Task) -> tuple[str, ...]:
    return tuple(card.name for card in task.pool.cards)


def test_every_question_comes_and_those_of_one_fact_more_often(
    tasks_of: Any, params: Params
) -> None:
    tasks = tasks_of(redraw=0.0)
    rows = read_questions(PATHS.questions, "train")
    assert len(tasks) == 400
    assert {task.question.hops for task in tasks} == {1, 2}
    single = sum(task.question.hops == 1 for task in tasks) / 400
    of_all = sum(row.hops == 1 for row in rows) / len(rows)
    share = params.train.single_share
    assert single == pytest.approx(share + (1 - share) * of_all, abs=0.08)
    assert len({names(task) for task in tasks}) == 1


def test_questions_are_worded_as_people_type_them_and_half_of_them_stay(tasks_of: Any) -> None:
    known = {row.id: row.question for row in read_questions(PATHS.questions, "train")}
    same = [task.question.question == known[task.question.id] for task in tasks_of(redraw=0.0)]
    assert sum(same) / len(same) == pytest.approx(0.5, abs=0.1)


def test_a_share_of_the_questions_comes_with_a_pool_of_its_own(tasks_of: Any) -> None:
    tasks = tasks_of(redraw=0.5)
    assert len(tasks) == 400
    drawn = Counter(names(task) for task in tasks)
    (_, own), *others = drawn.most_common()
    assert own / 400 == pytest.approx(0.5, abs=0.08)
    assert max(count for _, count in others) == 1
    assert [names(task) for task in tasks] == [names(task) for task in tasks_of(redraw=0.5)]
