import asyncio
import os
from functools import partial
from itertools import pairwise

import pytest

from routerr1.config import VerifyParams
from routerr1.errors import BudgetExceeded
from routerr1.evaluate.rows import write_rows
from routerr1.evaluate.run import evaluation_jobs, evaluation_of, play_all
from routerr1.evaluate.store import RowStore
from routerr1.pool.budget import Budget, BudgetedPool, Limits
from routerr1.pool.grading import Grader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # on a busy machine Ray's processes take long to start
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open
]


@pytest.fixture(autouse=True)
def _ray(monkeypatch):
    pytest.importorskip("ray", reason="needs ray (pip install -e '.[ray]')")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Workers unpickle the scripted policy by this module's name.
    path = f"{os.path.dirname(__file__)}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"  # noqa: PTH120
    monkeypatch.setenv("PYTHONPATH", path)


def _jobs(stage, pool, _):
    params = stage.params.model_copy(update={"max_questions": 12})
    policies = stage.policies(stage.policy)
    return evaluation_jobs(policies, pool, stage.test, stage.validation, params)


def _grader():
    def unneeded(*_):
        raise AssertionError("the embedded questions are compared")

    return Grader(VerifyParams(), embed=unneeded, judge=unneeded)


def _budgeted(stage, path, run_usd):
    return BudgetedPool(
        stage.pool, Budget(path, Limits(None, run_usd, None), run="r"), max_reply_tokens=60
    )


def test_rows_come_back_in_chunks_and_survive_a_spent_budget(stage, tmp_path):
    from routerr1.evaluate.ray_executor import CHUNK, play_on_ray

    here = evaluation_of(asyncio.run(play_all(_jobs(stage, stage.pool, {}), concurrency=16)))
    store, told = RowStore(tmp_path / "rows.jsonl", "f"), []
    playing = {
        "shared": False, "open_grader": _grader, "players": 2, "concurrency": 16, "store": store,
        "progress": lambda done, total: told.append((done, total)),
    }  # fmt: skip
    poor = partial(_budgeted, stage, tmp_path / "budget.sqlite", 0.002)
    with pytest.raises(BudgetExceeded, match=r"raise pool\.budget"):
        play_on_ray(partial(_jobs, stage), poor, **playing)
    with store.open() as kept:
        some = len(kept)
        assert 0 < some < 16 * 12
        assert not any(row.failures for row in kept.values() if row.router != "closed_book")
    rich = partial(_budgeted, stage, tmp_path / "budget.sqlite", 1.0)
    there = play_on_ray(partial(_jobs, stage), rich, **playing)
    for name, rows in (("here", here.rows), ("there", evaluation_of(there).rows)):
        write_rows(tmp_path / name, rows)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    assert told[-1] == (16 * 12, 16 * 12)
    assert max(after[0] - before[0] for before, after in pairwise(told)) <= CHUNK
