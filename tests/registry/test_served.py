"""What serving changes in a version's parameters, and what it refuses to answer."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import Params
from routerr1.errors import ConfigError, NoSuchVersion
from routerr1.registry.served import as_served
from routerr1.registry.versions import get_version
from routerr1.tracking.store import open_client

OWN = {"packed": Path("ctx/pool.yaml"), "prompt": Path("ctx/prompt.txt"), "budget": {}}


def with_pool(params: Params, **pool: Any) -> Params:
    return params.replace(pool=params.pool.replace(**pool))


def test_a_pool_file_takes_the_place_of_a_simulated_pool(params: Params) -> None:
    assert as_served(params, pool=None, **OWN).pool.kind == "simulated"
    served = as_served(params, pool=Path("other.yaml"), **OWN).pool
    assert (served.kind, served.file) == ("http", Path("other.yaml"))


def test_a_recorded_pool_keeps_its_replies_and_an_http_pool_its_own_file(params: Params) -> None:
    replies = Path("pools/replies.jsonl.gz")
    recorded = with_pool(params, kind="recorded", file=Path("pools/a.yaml"), store=replies)
    served = as_served(recorded, pool=None, **OWN).pool
    assert (served.kind, served.store, served.file) == ("recorded", replies, OWN["packed"])
    live = with_pool(params, kind="http", file=Path("pools/a.yaml"), calls="replay", store=replies)
    served = as_served(live, pool=None, **OWN).pool
    assert (served.kind, served.calls, served.store) == ("http", "live", None)


def test_an_invalid_budget_names_its_key(params: Params) -> None:
    with pytest.raises(ConfigError, match="model_config: budget: unknown key per_day"):
        as_served(params, pool=None, **{**OWN, "budget": {"per_day": 1.0}})


def test_the_pyfunc_model_refuses_an_empty_question() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow says while it is imported is not under test
        from mlflow.exceptions import MlflowException

        from routerr1.registry.serving import RouterModel

        with pytest.raises(MlflowException, match="inputs: question 1 is empty") as refused:
            RouterModel().predict(["Why?", " \n"])
    assert refused.value.get_http_status_code() == 400


def test_a_missing_version_names_the_command_that_makes_it(mlflow_store: Path) -> None:
    assert mlflow_store == Path.cwd()
    with pytest.raises(NoSuchVersion, match=r"no version champion .*; run `routerr1 register`$"):
        get_version(open_client(), "routerr1", "champion")
