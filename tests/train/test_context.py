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


def test_without_variation_every_question_comes_once_on_the_pool_itself(tasks_of: Any) -> None:
    tasks = tasks_of()
    ids = [task.question.id for task in tasks]
    assert len(ids) == len(set(ids)) == len(read_questions(PATHS.questions, "train"))
    assert len({id(task.pool) for task in tasks}) == 1


def test_a_share_of_the_questions_comes_with_a_pool_of_its_own(tasks_of: Any) -> None:
    tasks = tasks_of(redraw=0.5)
    assert len(tasks) == 400
    drawn = Counter(names(task) for task in tasks)
    (_, own), *others = drawn.most_common()
    assert own / 400 == pytest.approx(0.5, abs=0.08)
    assert max(count for _, count in others) == 1
    assert [names(task) for task in tasks] == [names(task) for task in tasks_of(redraw=0.5)]
