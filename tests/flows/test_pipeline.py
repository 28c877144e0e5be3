"""The flows on a small chain: real Prefect, DVC, git and MLflow, all in this process but the stages."""

import contextvars
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import Params, load_params
from routerr1.errors import ConfigError, LockHeld
from routerr1.flows.params import set_values
from routerr1.registry import promotion, versions
from routerr1.tracking.store import file_lock, open_client
from tests.chain import make_outputs
from tests.flows.conftest import Artifacts

PARAMS = Path("params.yaml")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect", "chain"),
]


def set_made(right: float) -> None:
    Path("made.yaml").write_text(f"{{right: {right}, cost: 0.001, size: 10}}\n")


def champion() -> int:
    return versions.get_version(open_client(), "routerr1", "champion").number


def test_a_run_registers_and_promotes_and_a_worse_one_is_refused(artifacts: Artifacts) -> None:
    from routerr1.flows.pipeline import retrain

    retrain()
    assert champion() == 1
    assert artifacts["gate"].startswith("# Gate: passed")
    assert "Version 1 of routerr1, run " in artifacts["version"]
    set_made(right=0.1)
    refused_state = retrain(return_state=True)
    assert (refused_state.name, refused_state.is_failed()) == ("Refused", True)
    assert refused_state.message == "version 2: refused by em_difference"
    assert champion() == 1
    assert artifacts["gate"].startswith("# Gate: refused")
    refused = versions.get_version(open_client(), "routerr1", 2)
    assert refused.tags["gate.refused_by"] == "em_difference"
    assert retrain(
        return_state=True
    ).is_completed()  # nothing changed: nothing is added or reported
    assert len(versions.list_versions(open_client(), "routerr1")) == 2


def test_a_refusal_is_sent_and_leaves_the_champions_report_at_hand(chain: Params) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from routerr1.flows.promote import promote_if_better

    page = Path("data/report/index.html")
    page.parent.mkdir()
    page.write_text("of the champion")
    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.1)
    page.write_text("of the challenger")
    versions.register(chain)
    with receiver() as (address, received):
        block = CustomWebhookNotificationBlock(
            name="ops", url=address, json_data={"text": "{{subject}}: {{body}}"}
        )
        block.save("ops")
        set_values(PARAMS, {"promote.notify": "custom-webhook/ops"})
        states = [promote_if_better(return_state=True) for _ in range(2)]
    assert [state.name for state in states] == ["Refused", "Unchanged"]
    (told,) = received
    assert told["text"].startswith(
        "Challenger refused: version 2: refused by em_difference (flow run "
    )
    assert Path("runs/reports/version-1/index.html").read_text() == "of the champion"


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An HTTP server, and the JSON bodies that were posted to it."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_flow_with_a_server_that_does_not_answer_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "routerr1.flows.pipeline"],
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("routerr1.flows.pipeline: Prefect server http://127.0.0.1:9/api: ")


@pytest.mark.parametrize("name", ["pipeline", "promote"])
def test_help_runs_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        import_module(f"routerr1.flows.{name}").main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: routerr1.flows.{name}")
    assert not Path("runs/gate").exists()


def test_a_failing_stage_fails_the_run_and_registers_nothing() -> None:
    from routerr1.flows.pipeline import retrain
    from routerr1.flows.stages import StageFailed

    Path("made.yaml").write_text("{right: no number, cost: 0.001, size: 10}\n")
    with pytest.raises(StageFailed, match="stage make"):
        retrain()
    assert versions.list_versions(open_client(), "routerr1") == []


def test_within_the_cool_down_of_its_model_an_event_starts_nothing() -> None:
    from routerr1.flows.pipeline import retrain
    from routerr1.flows.triggers import DRIFT

    set_values(PARAMS, {"registry.model": "cooled"})
    Path("made.yaml").write_text("{right: no number, cost: 0.001, size: 10}\n")
    with file_lock("pipeline", timeout_s=1):
        assert retrain(wait_s=3.0, return_state=True).is_failed()
    assert retrain(trigger=DRIFT, return_state=True).is_failed()  # the one before did not begin
    state = retrain(trigger=DRIFT, return_state=True)
    assert state.is_cancelled()
    assert state.message is not None
    assert state.message.startswith("routerr1.drift: the cool-down lasts for another 2")
    set_made(right=0.6)
    assert retrain(return_state=True).is_completed()  # by hand or schedule
    assert retrain(trigger=DRIFT, return_state=True).is_cancelled()
    set_values(PARAMS, {"registry.model": "another"})
    assert retrain(trigger=DRIFT, return_state=True).is_completed()
    set_values(PARAMS, {"watch.cooldown_s": 0})
    assert retrain(trigger=DRIFT, return_state=True).is_completed()


def test_candidates_are_profiled_anew_after_what_dvc_cannot_see() -> None:
    from routerr1.flows.pipeline import retrain
    from routerr1.flows.triggers import DRIFT, POOL_CHANGED

    pool, recorded = Path("pools/pool.yaml"), Path("runs/profile/calls.jsonl")
    pool.parent.mkdir()
    pool.write_text("one price")
    set_values(PARAMS, {"pool.file": str(pool), "watch.cooldown_s": 0})
    with Path("dvc.yaml").open("a") as stages:
        stages.write("  profile: {cmd: echo >> profiled, deps: [pools]}\n")

    def profiled(trigger: str | None) -> int:
        recorded.parent.mkdir(parents=True, exist_ok=True)
        recorded.touch()
        retrain(trigger=trigger, promote=False)
        return len(Path("profiled").read_text())

    assert profiled(None) == 1
    assert profiled(None) == 1
    assert profiled(POOL_CHANGED) == 2  # as the docs say: the file is unchanged
    assert not recorded.exists()
    pool.write_text("another price")
    assert profiled(POOL_CHANGED) == 3  # by DVC: what a killed run has paid for may answer
    assert recorded.exists()
    assert profiled(DRIFT) == 4
    assert not recorded.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "typo"}, r"preset 'typo' has no file presets/typo\.yaml \(there are: "),
        ({"preset": "ci", "cost_weight": 7.5}, r"reward\.cost_weight: .* less than or equal to 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_not_written(
    given: dict[str, Any], message: str
) -> None:
    from routerr1.flows.pipeline import retrain

    before = PARAMS.read_text()
    with pytest.raises(ConfigError, match=message):
        retrain(**given)
    assert PARAMS.read_text() == before


def test_a_champion_judged_on_other_candidates_is_not_compared_as_it_stands(chain: Params) -> None:
    from routerr1.flows.promote import _comparable

    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.7)
    versions.register(chain)
    result = promotion.judge(chain)
    assert result.champion is not None
    assert _comparable(result)
    make_outputs(right=0.7, price=0.2)
    versions.register(chain)
    assert not _comparable(promotion.judge(chain))


def test_two_runs_at_once_wait_for_each_other() -> None:
    from prefect.concurrency.sync import concurrency

    from routerr1.flows.pipeline import limit_of, retrain

    with file_lock("pipeline", timeout_s=1), pytest.raises(LockHeld, match=r"pipeline\.lock"):
        retrain(wait_s=1.0)
    elsewhere = concurrency(
        limit_of("routerr1"), occupy=1, strict=True
    )  # no file is shared with another machine
    with elsewhere, pytest.raises(LockHeld, match="limit routerr1-retrain: another retrain"):
        retrain(wait_s=1.0)


def test_a_refusal_is_recorded_and_the_gate_is_not_asked_a_second_time(chain: Params) -> None:
    from prefect import flow

    from routerr1.flows.promote import act_on

    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.1)
    versions.register(chain)
    refused = promotion.judge(chain)
    set_values(PARAMS, {"gate.margin_em": 1.0, "gate.min_em": 0.0})
    assert promotion.judge(load_params()).decision.passed  # so it would be let through by now

    @flow
    def the_rest() -> Any:
        return act_on(refused, "test")

    assert the_rest(return_state=True).name == "Refused"
    assert champion() == 1
    assert versions.get_version(open_client(), "routerr1", 2).tags["gate"] == "refused"


class Person(threading.Thread):
    """As soon as a run waits, resumes it with one answer after the other; `replies` are the server's."""

    def __init__(self, *answers: dict[str, object]) -> None:
        # A new thread starts without the settings of the harness, and would ask another server.
        super().__init__(target=contextvars.copy_context().run, args=(self._answer, answers))
        self.replies: list[str] = []
        self.start()

    def _answer(self, answers: Sequence[dict[str, object]]) -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter

        paused = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
        with get_client(sync_client=True) as client:
            for _ in range(300):
                for run in client.read_flow_runs(flow_run_filter=paused):
                    done = [client.resume_flow_run(run.id, run_input=each) for each in answers]
                    self.replies += [each.status.value for each in done]
                    return
                time.sleep(0.1)


def need_approval(timeout_s: int) -> None:
    set_values(PARAMS, {"promote.require_approval": True, "promote.approval_timeout_s": timeout_s})


def test_a_person_may_say_yes_or_no(chain: Params) -> None:
    from routerr1.flows.promote import promote_if_better

    versions.register(chain)
    need_approval(timeout_s=60)
    person = Person({"approve": False, "who": "ada", "reason": "not today"})
    no = promote_if_better(return_state=True)
    assert (no.name, no.message) == ("Refused", "version 1: ada said no: not today")
    person.join()
    assert versions.get_version(open_client(), "routerr1", 1).aliases == ("challenger",)
    person = Person({"approve": True, "who": "ada", "reason": "looks fine"})
    assert promote_if_better() is True
    person.join()
    record = promotion.promotion_log(open_client(), "routerr1")
    assert [move.why for move in record] == ["approved by ada: looks fine"]


def test_no_answer_is_no_promotion(chain: Params) -> None:
    from prefect.exceptions import FlowPauseTimeout

    from routerr1.flows.promote import promote_if_better

    versions.register(chain)
    need_approval(timeout_s=1)
    with pytest.raises(FlowPauseTimeout):
        promote_if_better()
    assert promotion.promotion_log(open_client(), "routerr1") == []


def test_a_retrain_waits_for_a_person_with_a_name() -> None:
    from routerr1.flows.pipeline import retrain

    need_approval(timeout_s=60)
    person = Person({"approve": True, "who": " "}, {"approve": True, "who": "ada"})
    retrain()
    person.join()
    assert person.replies == ["REJECT", "ACCEPT"]
    (move,) = promotion.promotion_log(open_client(), "routerr1")
    assert move.after == champion() == 1
    assert move.why.startswith("approved by ada: flow run ")
    retrain()  # no approval is needed for the present champion
