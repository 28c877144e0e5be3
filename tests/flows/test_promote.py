"""The promotion flow where champion and challenger cannot be compared as they are kept."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli import app
from routerr1.config import Params, load_params
from routerr1.flows.params import set_values
from routerr1.registry import promotion, versions
from routerr1.simulation.candidates import default_candidates
from routerr1.tracking.store import open_client
from tests.chain import make_outputs, put_policy
from tests.flows.conftest import Artifacts
from tests.servers import write_pool_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect", "chain"),
]


def test_a_champion_of_another_pool_plays_the_challengers_questions_first(
    chain: Params, asking_policy: Path, artifacts: Artifacts
) -> None:
    from routerr1.flows.promote import promote_if_better

    make_outputs(cost=0.0)
    put_policy(asking_policy)
    versions.register(chain)
    promotion.promote(chain)
    make_outputs(cost=0.0, size=11)
    put_policy(asking_policy, price=0.2)
    versions.register(chain)
    kept = promotion.judge(chain).decision
    assert kept.refused_by == ("same_pool",)
    assert promote_if_better() is True
    page = artifacts["gate"]
    assert "| same_pool | 1 |" in page
    # What is kept of both is 0.6; the champion's policy as it is answers none of these.
    assert "| em_difference | 0.6 |" in page
    assert "unseen_difference" not in page  # it did not meet the new models again
    assert versions.get_version(open_client(), "routerr1", "champion").number == 2


def test_a_champion_whose_candidate_the_pool_lost_is_replaced_by_the_command_that_the_flow_names(
    chain: Params, asking_policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from routerr1.flows.promote import main

    make_outputs(cost=0.0)
    put_policy(asking_policy)
    versions.register(chain)
    promotion.promote(chain)
    lost, *others = default_candidates()
    pool = write_pool_file(Path("pools/pool.yaml"), "http://127.0.0.1:9", others)
    set_values(Path("params.yaml"), {"pool.kind": "http", "pool.file": str(pool)})
    make_outputs(cost=0.0, size=11)
    put_policy(asking_policy, price=0.2)
    versions.register(load_params())
    assert main([]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"routerr1.flows.promote: version 1 of routerr1: cannot be evaluated, the pool lacks {lost.name}; "
        "`routerr1 promote --without-comparison --why ...` judges a challenger as a first champion"
    )
    why = f"{lost.name} is gone"
    said = CliRunner().invoke(app, ["promote", "--without-comparison", "--why", why])
    assert said.exit_code == 0, said.output
    assert "champion is version 2, was version 1" in said.output
    assert (
        promotion.promotion_log(open_client(), "routerr1")[-1].why == f"without comparison: {why}"
    )
