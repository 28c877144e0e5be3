import os
from functools import partial

import pytest

from routerr1.evaluate.rows import write_rows
from routerr1.evaluate.run import evaluation_jobs, evaluation_of, play_all
from routerr1.evaluate.store import RowStore


def _jobs(stage):
    params = stage.params.model_copy(update={"max_questions": 12})
    return evaluation_jobs(
        {1: stage.policy}, stage.pool, stage.test, stage.validation,
        render=stage.render, rollout=stage.rollout, params=params,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")  # of Ray about its own next version
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves its log files open
async def test_shards_on_a_ray_cluster_give_the_same_bytes_and_go_on_after_a_kill(
    stage, tmp_path, monkeypatch
):
    pytest.importorskip("ray", reason="needs ray (pip install -e '.[ray]')")
    from routerr1.evaluate.shards import play_on_ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Workers unpickle the scripted policy by this module's name.
    path = f"{os.path.dirname(__file__)}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"  # noqa: PTH120
    monkeypatch.setenv("PYTHONPATH", path)
    here = evaluation_of(await play_all(_jobs(stage), concurrency=16))
    store = RowStore(tmp_path / "rows.jsonl", "f")
    with store.open():
        for row in here.rows[:30]:  # what a killed evaluation had done
            if row.router not in ("best_single",):
                store.add(row)
    played = []
    there = evaluation_of(
        play_on_ray(
            partial(_jobs, stage), shards=3, concurrency=16, store=store,
            progress=lambda done, total: played.append((done, total)),
        )
    )  # fmt: skip
    write_rows(tmp_path / "here.parquet", here.rows)
    write_rows(tmp_path / "there.parquet", there.rows)
    assert (tmp_path / "here.parquet").read_bytes() == (tmp_path / "there.parquet").read_bytes()
    assert played[-1] == (16 * 12, 16 * 12)
    with store.open() as kept:
        assert len(kept) == 16 * 12
