"""Feedback of the gateway on its way into a retrain, by the deployment that prefect.yaml has for it."""

from pathlib import Path

import pytest
import yaml

from routerr1.data.splits import read_file
from routerr1.serve.store import VARIABLE, FeedbackRow, Store
from routerr1.tracking.store import file_lock
from tests.clone import ROOT
from tests.flows.conftest import Told

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect", "chain"),
]
FILE = Path("data/imported/feedback.parquet")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The database of the gateway, which the environment names."""
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    monkeypatch.setenv(VARIABLE, url)
    return Store(url)


def say(store: Store, *numbers: int) -> None:
    for number in numbers:
        question = f"Which city is on page {number} of ann@example.org's list?"
        store.write_feedback(
            FeedbackRow(f"r{number}", 1.0, None, None, f"City {number}", None, True, question)
        )


def test_enough_new_answers_become_questions_and_are_told_once(store: Store, told: Told) -> None:
    from routerr1.flows.feedback import from_feedback
    from routerr1.flows.triggers import DATA_CHANGED

    assert from_feedback(at_least=2) is False  # of no feedback at all
    say(store, 1)
    assert from_feedback(at_least=2) is False
    assert not FILE.exists()
    say(store, 2)
    assert from_feedback(at_least=2) is True
    assert "ann@" not in " ".join(row.question for row in read_file(FILE))
    assert from_feedback(at_least=2) is False
    assert told(DATA_CHANGED, 1) == ["feedback of 2 requests"]
    again = "Which city is on page 1 of ann@example.org's list?"
    store.write_feedback(FeedbackRow("r9", 1.0, None, None, "City 1", None, True, again))
    assert from_feedback(at_least=1) is False  # the file is made again, and is the same
    say(store, 1, 2)  # what is known is not new
    assert from_feedback(at_least=1) is False
    told(DATA_CHANGED, 1)


def test_it_waits_for_a_retrain_that_reads_the_file(store: Store) -> None:
    from routerr1.flows.feedback import from_feedback

    say(store, 1)
    with file_lock("pipeline"):
        state = from_feedback(at_least=1, wait_s=0.1, return_state=True)
    assert (state.type.value, state.message) == ("CANCELLED", "a retrain is under way")
    assert not FILE.exists()


def test_the_deployment_runs_this_flow_an_hour_before_the_retrain() -> None:
    from prefect.flows import load_flow_from_entrypoint

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    by_name = {each["name"]: each for each in deployments}
    own = by_name["from-feedback"]
    flow = load_flow_from_entrypoint(str(ROOT / own["entrypoint"].split(":")[0]) + ":from_feedback")
    assert flow.name == "from-feedback"
    assert own["parameters"].keys() <= flow.parameters.properties.keys()
    hours = [
        by_name[name]["schedules"][0]["cron"].split()[1] for name in ("from-feedback", "retrain")
    ]
    assert hours == ["1", "2"]
