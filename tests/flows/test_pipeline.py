"""The flows on a small chain: real Prefect, DVC, git and MLflow, all in this process but the stages."""

import contextvars
import threading
import time
from pathlib import Path

import pytest

from routerr1 import promotion, registry, tracking
from routerr1.config import Params
from routerr1.errors import LockHeld
from routerr1.exclusive import file_lock
from tests.chain import make_outputs
from tests.flows.conftest import Artifacts

pytestmark = pytest.mark.usefixtures("prefect", "chain")


def set_made(right: float) -> None:
    Path("made.yaml").write_text(f"{{right: {right}, cost: 0.001, size: 10}}\n")


def champion() -> int:
    return registry.get_version(tracking.open_client(), "routerr1", "champion").number


def test_a_run_registers_and_promotes_and_a_worse_one_is_refused(artifacts: Artifacts) -> None:
    from flows.pipeline import retrain

    retrain()
    assert champion() == 1
    assert artifacts["gate"].startswith("# Gate: passed")
    assert "Version 1 of routerr1, run " in artifacts["version"]
    set_made(right=0.1)
    retrain()
    assert champion() == 1
    assert artifacts["gate"].startswith("# Gate: refused")
    refused = registry.get_version(tracking.open_client(), "routerr1", 2)
    assert refused.tags["gate.refused_by"] == "em_difference"
    retrain()  # nothing changed: nothing is added
    assert len(registry.list_versions(tracking.open_client(), "routerr1")) == 2


def test_a_failing_stage_fails_the_run_and_registers_nothing() -> None:
    from flows.pipeline import retrain
    from flows.stages import StageFailed

    Path("made.yaml").write_text("{right: no number, cost: 0.001, size: 10}\n")
    with pytest.raises(StageFailed, match="stage make"):
        retrain()
    assert registry.list_versions(tracking.open_client(), "routerr1") == []


def test_within_the_cool_down_an_event_starts_nothing() -> None:
    from flows.pipeline import DRIFT, retrain

    retrain()
    state = retrain(trigger=DRIFT, return_state=True)
    assert state.is_cancelled()
    assert state.message is not None
    assert state.message.startswith("routerr1.drift: the cool-down lasts for another 2")
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("cooldown_s: 21600", "cooldown_s: 0"))
    assert retrain(trigger=DRIFT, return_state=True).is_completed()


def test_a_champion_judged_on_other_candidates_is_not_compared_as_it_stands(chain: Params) -> None:
    from flows.promote import _comparable

    registry.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.7)
    registry.register(chain)
    judgement = promotion.judge(chain)
    assert judgement.champion is not None
    assert _comparable(judgement)
    make_outputs(right=0.7, price=0.2)
    registry.register(chain)
    assert not _comparable(promotion.judge(chain))


def test_two_runs_at_once_wait_for_each_other() -> None:
    from prefect.concurrency.sync import concurrency

    from flows.pipeline import LIMIT, retrain

    with file_lock("pipeline", timeout_s=1), pytest.raises(LockHeld, match=r"pipeline\.lock"):
        retrain(wait_s=1.0)
    elsewhere = concurrency(LIMIT, occupy=1, strict=True)  # no file is shared with another machine
    with elsewhere, pytest.raises(LockHeld, match="limit routerr1-retrain: another retrain"):
        retrain(wait_s=1.0)


def test_profile_and_cost_weight_are_written_where_they_take_effect() -> None:
    from flows.params import set_values

    before = Path("params.yaml").read_text()
    assert set_values(Path("params.yaml"), None, None) == []
    assert set_values(Path("params.yaml"), "embedded", 0.02) == []
    assert Path("params.yaml").read_text() == before
    assert set_values(Path("params.yaml"), "ci", 0.5) == ["profile: ci", "reward.cost_weight: 0.5"]
    after = Path("params.yaml").read_text().splitlines()
    changed = [
        (old, new) for old, new in zip(before.splitlines(), after, strict=True) if old != new
    ]
    assert len(changed) == 2  # comments and layout of all other lines stay
    Path("profiles/ci.yaml").write_text("reward: {cost_weight: 0.1}\n")
    set_values(Path("params.yaml"), None, 0.7)
    assert "cost_weight: 0.7" in Path("profiles/ci.yaml").read_text()


def wait_for_approval(answer: dict[str, object]) -> threading.Thread:
    """A person: as soon as a run waits, resume it with this answer."""

    def person() -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter

        paused = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
        with get_client(sync_client=True) as client:
            for _ in range(300):
                for run in client.read_flow_runs(flow_run_filter=paused):
                    client.resume_flow_run(run.id, run_input=answer)
                    return
                time.sleep(0.1)

    # A new thread starts without the settings of the harness, and would ask another server.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(person,))
    thread.start()
    return thread


def need_approval(timeout_s: int) -> Params:
    text = Path("params.yaml").read_text()
    text = text.replace("require_approval: false", "require_approval: true")
    Path("params.yaml").write_text(
        text.replace("approval_timeout_s: 86400", f"approval_timeout_s: {timeout_s}")
    )
    from routerr1.config import load_params

    return load_params()


def test_a_person_may_say_yes_or_no(chain: Params) -> None:
    from flows.promote import promote_if_better

    registry.register(chain)
    need_approval(timeout_s=60)
    person = wait_for_approval({"approve": False, "who": "ada", "reason": "not today"})
    assert promote_if_better() is False
    person.join()
    assert registry.get_version(tracking.open_client(), "routerr1", 1).aliases == ("challenger",)
    person = wait_for_approval({"approve": True, "who": "ada", "reason": "looks fine"})
    assert promote_if_better() is True
    person.join()
    record = promotion.moves(tracking.open_client(), "routerr1")
    assert [move.why for move in record] == ["approved by ada: looks fine"]


def test_no_answer_is_no_promotion(chain: Params) -> None:
    from prefect.exceptions import FlowPauseTimeout

    from flows.promote import promote_if_better

    registry.register(chain)
    need_approval(timeout_s=1)
    with pytest.raises(FlowPauseTimeout):
        promote_if_better()
    assert promotion.moves(tracking.open_client(), "routerr1") == []
