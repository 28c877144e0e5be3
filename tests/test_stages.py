"""What stages do beyond the parts they call."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from routerr1 import stages
from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.data.splits import write_questions
from routerr1.pool.server import build_app, serving
from routerr1.pool.simulated import SimulatedPool, default_candidates, known_facts
from routerr1.types import Question
from tests.servers import write_pool_file


def test_after_a_change_of_the_pool_file_no_recorded_probe_answers(
    params: Params,
    rows: list[Question],
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_questions(stages.QUESTIONS, rows)
    file = Path("pools/pool.yaml")
    before = default_candidates()[:1]
    after = [replace(each, prompt_usd_per_mtok=each.prompt_usd_per_mtok * 2) for each in before]
    over_http = {"kind": "http", "file": file}
    params = params.model_copy(
        update={
            "pool": params.pool.model_copy(update=over_http),
            "profile_pool": params.profile_pool.model_copy(update={"probes": 6}),
        }
    )

    def costs() -> list[float]:
        stages.profile(params)
        return list(pd.read_parquet(stages.POOL / "matrix.parquet")["cost_usd"])

    app = build_app(SimulatedPool(before, known_facts(world), seed=1), time_scale=0)
    with serving(app) as url:
        write_pool_file(file, url, before)
        first = costs()
    with serving(app) as url:
        write_pool_file(file, url, after)
        again = costs()
    assert all(new > old for new, old in zip(again, first, strict=True))
