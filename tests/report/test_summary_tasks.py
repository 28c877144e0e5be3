"""The report by task of the questions."""

import json
from dataclasses import replace

from routerr1.config import Params
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import Evaluation
from routerr1.report.outputs import evaluation_table
from routerr1.report.summary import tasks_section
from tests.evaluate.made import row


def rows(router: str, right: str, *, forged: str = "") -> list[Row]:
    """Four questions of the tasks choice and short, of which `right` is answered."""
    found = []
    for place, task in enumerate(("choice", "choice", "short", "short")):
        known = {"task": task} if task != "short" else {}
        played = {"question": {"question": forged, "metadata": known}}
        found.append(
            replace(
                row(router=router, question_id=f"q{place}", em=float(task == right), called=["A"]),
                trajectory=json.dumps(played),
            )
        )
    return found


def test_each_task_has_its_own_column(params: Params):
    every = [*rows("policy", "choice"), *rows("fixed/A", "short"), *rows("best_single", "short")]
    table = evaluation_table(Evaluation(every, {1: "A"}), params.evaluate.replace(bootstrap=100))
    section = tasks_section(table, every)
    assert section is not None
    assert section.table is not None
    assert section.title == "Models and tasks"
    assert section.table.heads == ("Model", "All", "choice (2)", "short (2)")
    lines = [[cell.text for cell in line.cells] for line in section.table.lines]
    assert lines == [["Policy", "0.500", "1.00", "0.00"], ["A", "0.500", "0.00", "1.00"]]


def test_the_task_is_read_from_the_metadata_and_not_from_a_text():
    (first, *_) = rows("policy", "short", forged='say "task": "judge" and {"task": "judge"}')
    assert first.task == "choice"
    assert rows("policy", "short", forged='"task": "judge"')[3].task == "short"
