"""From nothing to champions by schedule and event, and back by rollback, with every service of compose.yaml.

PostgreSQL, MLflow server, Prefect server, worker and gateway run by the commands of that file, as plain processes.
The chain is the repository's own with the ci preset, in a clone. Unchanged, that preset's policy writes
hardly a tag, so its warm start is made long enough for the policy to answer behind the gateway.
All is one test: the runs build upon each other, and the first takes a minute and more.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from routerr1.config import load_params
from routerr1.errors import LockHeld, StoreUnreachable
from routerr1.flows.params import set_values
from routerr1.registry import promotion, versions
from routerr1.serve.store import VARIABLE
from routerr1.tracking.store import file_lock, open_client
from tests.clone import commit, environment, is_stage, make_clone, processes_in, replace
from tests.composed import Composed, composed, replaced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PARAMS = Path("params.yaml")
# In params.yaml, which only the stages from the warm start on read it from: the preset's file is read by all.
TAUGHT = {
    "warmstart.steps": 400,
    "warmstart.batch_size": 8,
    "warmstart.learning_rate": 1e-2,
    "warmstart.warmup_steps": 5,
}
CANCELLED = {"warmstart.steps": 1}  # of a retrain that ends before its version
CORRECTED = 4  # answers of the gateway
CRONS = {  # the two that watch are started by hand, and feedback is read by a command
    "0 2 * * *": "* * * * *",
    "0 1 * * *": "0 0 1 1 *",
    "0 */6 * * *": "0 0 1 1 *",
    "*/15 * * * *": "0 0 1 1 *",
}


@dataclass(frozen=True)
class Site:
    """A clone that is the working folder, the services, and a client of the Prefect server."""

    clone: Path
    services: Composed
    client: Any

    def command(self, *arguments: str) -> str:
        """A Python module run in the clone, on the gateway's database; what it printed."""
        database = self.services.variables("gateway")[VARIABLE]
        done = subprocess.run(
            [sys.executable, "-m", *arguments], env={**environment(self.clone), VARIABLE: database},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr + self.said()
        return done.stdout

    def said(self) -> str:
        """The end of every log."""
        return "\n".join(
            path.read_text()[-3000:] for path in sorted(self.services.logs.glob("*.log"))
        )

    def until(self, holds: Callable[[], object], seconds: float = 600.0) -> None:
        """Wait for it, or fail with the end of the logs."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds:.0f} s in vain:\n{self.said()}")
            time.sleep(1.0)

    def start(self, deployment: str) -> Any:
        """Start a deployment's flow as a person would; the flow run's id."""
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id).id

    def ended(self, run: Any, seconds: float = 600.0) -> str:
        """Wait for the flow run's end; the type of its last state."""
        self.until(lambda: self.client.read_flow_run(run).state.is_final(), seconds)
        return str(self.client.read_flow_run(run).state.type.value)

    def artifact(self, key: str) -> str:
        """The latest artifact of that key."""
        from prefect.client.schemas.sorting import ArtifactSort

        found = self.client.read_artifacts(sort=ArtifactSort.CREATED_DESC)
        return next(str(artifact.data) for artifact in found if artifact.key == key)

    def left(self) -> list[str]:
        """Command lines of everything that runs in the clone, except the worker."""
        found = processes_in(self.clone, lambda words: "worker" not in words)
        return [" ".join(process.cmdline()) for process in found]


def test_a_database_on_a_port_that_begins_like_a_servers_keeps_it() -> None:
    changes = {"postgres/mlflow": "127.0.0.1:42003/mlflow", "127.0.0.1:4200": "127.0.0.1:49531"}
    text = replaced("database: postgres/mlflow, page: 127.0.0.1:4200", changes)
    assert text == "database: 127.0.0.1:42003/mlflow, page: 127.0.0.1:49531"


@pytest.fixture
def site(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """MLflow and Prefect as in compose.yaml, and the clone."""
    logs = tmp_path_factory.mktemp("servers")
    clone = make_clone(tmp_path_factory.mktemp("operations") / "clone")
    replace(clone / "presets/ci.yaml", "warmstart: {steps: 20, batch_size: 16}\n", "")
    set_values(clone / PARAMS, TAUGHT)
    replace(clone / "presets/ci.yaml", "baselines: {", "baselines: {include: [largest], ")
    for section, fewer in {"evaluate": 12, "generalize": 4}.items():  # each is played on ten pools
        replace(
            clone / "presets/ci.yaml",
            f"{section}: {{max_questions: 24",
            f"{section}: {{max_questions: {fewer}",
        )
    for cron, other in CRONS.items():
        replace(clone / "prefect.yaml", f'- cron: "{cron}"', f'- cron: "{other}"')
    commit(clone, "as a team would run it")
    (logs / "prefect").mkdir()
    for name, value in {
        "PREFECT_HOME": str(logs / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nothing here needs
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",  # by its default of 10 s so short a training has none
    }.items():
        monkeypatch.setenv(name, value)
    with (
        composed(clone, logs) as services,
        services.start("prefect"),
        services.start("mlflow"),
    ):
        api = f"{services.url('prefect')}/api"
        monkeypatch.setenv("PREFECT_API_URL", api)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", services.url("mlflow"))
        monkeypatch.chdir(clone)
        for name in ("prefect", "mlflow"):
            services.until_healthy(name)
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            yield Site(clone, services, client)


def version(number: int) -> versions.Version | None:
    found = versions.list_versions(open_client(), "routerr1")
    return next((each for each in found if each.number == number), None)


def is_champion(number: int) -> bool:
    """Whether it is; not yet, where a registry on a busy machine does not answer in time."""
    try:
        found = version(number)
    except StoreUnreachable:
        return False
    return found is not None and "champion" in found.aliases


def test_schedule_event_watch_and_rollback(site: Site) -> None:
    with site.services.start("worker"):
        site.until(lambda: site.client.read_work_pools())
        site.command("prefect", "deploy", "--all")
        site.until(lambda: processes_in(site.clone, is_stage("dataset")))  # by the clock
        retrain = site.client.read_deployment_by_name("retrain/retrain")
        site.client.pause_deployment(retrain.id)  # once is enough
        site.until(lambda: is_champion(1))  # the whole chain
        installed = site.services.run("deploy")
        assert "deployment retrain/retrain: stays switched off" in installed
        site.until(lambda: not site.left())
        check_what_a_run_keeps(site)
        ask_the_gateway_and_say_what_was_right(site)

        set_values(PARAMS, CANCELLED)
        commit(site.clone, "a warm start that teaches nothing")
        check_one_at_a_time_and_a_cancelled_one_leaves_nothing(site)

        set_values(PARAMS, TAUGHT)
        commit(site.clone, "as it was")  # of another commit, so another version
        tell_of_another_model(site, "routerr1.pool.changed")
        make_data_of_feedback(site)
        site.until(lambda: is_champion(2))  # by the event of the new data
        assert [run.parameters["trigger"] for run in by_events(site)] == ["routerr1.data.changed"]
        site.until(lambda: not site.left())  # a flow ended with its worker would keep its slot
        assert promotion.rollback(load_params(), why="test").after == 1
        assert is_champion(1)
        check_the_watch(site)
    site.until(lambda: not site.left())


def tell_of_another_model(site: Site, event: str) -> None:
    """The event as a neighbour on the same server would send it."""
    from prefect.events import Event

    told = Event(event=event, resource={"prefect.resource.id": "routerr1.model.another"})
    site.client.request("POST", "/events", json=[told.model_dump(mode="json")])


def post(url: str, key: str, body: Mapping[str, object]) -> tuple[int, dict[str, Any]]:
    """Status and body of a response, an error too."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask_the_gateway_and_say_what_was_right(site: Site) -> None:
    """The champion answers behind the gateway of compose.yaml; a user corrects its answers."""
    key = site.command("routerr1.cli", "keys", "add", "me").strip()
    corrected = 0
    with site.services.start("gateway", "--demo"):  # its candidates are simulated
        site.services.until_healthy("gateway")
        url = site.services.url("gateway")
        for number in range(CORRECTED * 4):
            question = f"What is the capital of country number {number} of my list?"
            body = {"model": "routerr1", "messages": [{"role": "user", "content": question}]}
            assert post(f"{url}/v1/chat/completions", "wrong", body)[0] == 401
            status, found = post(f"{url}/v1/chat/completions", key, body)
            if status == 502:  # so small a policy does not answer every question
                assert found["error"]["code"] in ("no_answer", "no_candidate_replied")
                continue
            assert status == 200, found
            assert found["routerr1"]["version"] == "1"
            said = {"request_id": found["id"], "answer": f"City {number}", "consent": True}
            assert post(f"{url}/v1/feedback", key, {**said, "question": question})[0] == 201
            corrected += 1
            if corrected == CORRECTED:
                return
    pytest.fail(f"{corrected} questions were answered:\n{site.said()}")


def make_data_of_feedback(site: Site) -> None:
    """As a schedule would: nothing is done until enough answers are new, then a retrain is asked for."""
    make = ("routerr1.cli", "data", "from-feedback", "--test", "0", "--validation", "0", "--notify")
    printed = site.command(*make, "--at-least", str(CORRECTED + 1))
    assert f"{CORRECTED} new answers, {CORRECTED + 1} are asked for" in printed
    assert not by_events(site)
    printed = site.command(*make, "--at-least", str(CORRECTED))
    assert f"{CORRECTED} rows, 0 refused" in printed
    assert "emitted routerr1.data.changed" in printed


def check_what_a_run_keeps(site: Site) -> None:
    """What it cost, what it saw, and what it was judged by."""
    client, first = open_client(), version(1)
    assert first is not None
    assert first.run_id is not None
    assert float(first.tags["metric.format_valid"]) > 0.5
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train_hours"] > 0
    assert run.data.metrics["train_cost_usd"] > 0
    rewards = client.get_metric_history(first.run_id, "seed_1/reward")
    assert [each.step for each in rewards] == [1, 2, 3, 4]
    assert run.data.metrics["system/cpu_utilization_percentage"] > 0
    inputs = [each.dataset for each in run.inputs.dataset_inputs]
    assert {each.source_type for each in inputs} == {"dvc"}
    assert all(each.digest for each in inputs)
    kept = {
        file.path
        for folder in (None, "curves", "report", "gate")
        for file in client.list_artifacts(first.run_id, folder)
    }
    assert {"table.md", "curves/log.csv", "report/index.html", "gate/version-1.md"} <= kept
    traces = client.search_traces(
        locations=[run.info.experiment_id], run_id=first.run_id, max_results=500
    )
    stages = [trace.info.tags["stage"] for trace in traces]
    assert (stages.count("evaluate"), stages.count("train")) == (12, 4)
    spans = [span for trace in traces for span in trace.data.spans]
    calls = [span for span in spans if span.name.startswith("call ")]
    assert any(span.attributes["mlflow.llm.cost"]["total_cost"] > 0 for span in calls)
    for key in ("version", "gate"):
        assert f"/#/runs/{first.run_id})" in site.artifact(key)


def check_one_at_a_time_and_a_cancelled_one_leaves_nothing(site: Site) -> None:
    """While one trains a second is refused; then the first is cancelled by the command in the docs."""
    first = site.start("retrain/retrain")
    site.until(lambda: processes_in(site.clone, is_stage("train")))
    assert site.ended(site.start("retrain/retrain"), 60) == "CANCELLED"
    site.command("prefect", "flow-run", "cancel", str(first))
    assert site.ended(first, 60) == "CANCELLED"
    site.until(lambda: not site.left())
    assert version(2) is None


def check_the_watch(site: Site) -> None:
    """It finds no drift; then other prices start a retrain."""
    watch(site)
    assert site.artifact("drift").startswith("# Watch: no drift")
    before = {run.id for run in by_events(site)}
    set_values(PARAMS, {"pool.candidates": "tiers"})
    watch(site)
    page = site.artifact("drift")
    assert page.startswith("# Watch: drift")
    assert "**moved**" in page

    def found() -> dict[str, Any]:
        new = [run for run in by_events(site) if run.id not in before]
        return {run.state.type.value: run for run in new}

    # Two events: the retrain of one is under way, and that of the other was refused.
    site.until(lambda: set(found()) == {"RUNNING", "CANCELLED"})
    triggers = {run.parameters["trigger"] for run in found().values()}
    assert triggers == {"routerr1.pool.changed", "routerr1.drift"}
    under_way = found()["RUNNING"].id
    site.command("prefect", "flow-run", "cancel", str(under_way))
    assert site.ended(under_way) == "CANCELLED"


def watch(site: Site) -> None:
    """Both flows that watch, side by side; a retrain by the one would change what the other compares."""
    looking = site.start("evaluate-champion/evaluate-champion")
    site.until(lambda: is_locked() or site.client.read_flow_run(looking).state.is_final())
    changes = site.start("watch-changes/watch-changes")
    assert [site.ended(run) for run in (looking, changes)] == ["COMPLETED"] * 2


def is_locked() -> bool:
    """Whether a flow of the working folder holds the lock of its pipeline."""
    try:
        with file_lock("pipeline", timeout_s=0):
            return False
    except LockHeld:
        return True


def by_events(site: Site) -> list[Any]:
    """The retrains that events started."""
    return [run for run in site.client.read_flow_runs() if run.parameters.get("trigger")]
