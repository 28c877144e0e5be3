"""Registering, promoting and rolling back on a real SQLite store, a real git and a real DVC repository."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1 import promotion, registry, tracking
from routerr1.config import Params
from routerr1.errors import CheckpointError, LockHeld, RegistryError, StoreUnreachable
from routerr1.exclusive import exclusive
from tests.chain import commit_nothing, make_outputs

WEIGHTS = Path("models/policy/model.safetensors")


def logged_models(params: Params) -> list[str]:
    client = tracking.open_client()
    experiment = tracking.experiment_id(client, params.registry.experiment)
    return [found.model_id for found in client.search_logged_models([experiment])]


def test_a_version_carries_its_lineage_and_figures(chain: Params) -> None:
    version = registry.register(chain)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert (version.number, version.aliases) == (1, ("challenger",))
    assert version.tags["git_commit"] == commit.stdout.strip()
    assert version.tags["git_dirty"] == "false"
    assert version.tags["data_digest"].endswith(".dir")
    assert version.tags["checkpoint.prompt_hash"] == "p1"
    assert version.tags["train.train_hours"] == "0.1"
    assert (version.tags["metric.em"], version.tags["metric.cost_usd"]) == ("0.6", "0.001")
    assert version.tags["seeds"] == "1"
    plays, unseen = registry.read_version_evidence(version)
    assert (len(plays), len(unseen), plays[1].called) == (40, 40, ("Atlas",))


def test_the_same_state_is_registered_once(chain: Params) -> None:
    first = registry.register(chain)
    again = registry.register(chain)
    assert again == first
    assert logged_models(chain) == [first.model_id]
    make_outputs(right=0.7)
    assert registry.register(chain).number == 2


def test_the_gate_moves_the_champion_or_leaves_it(chain: Params) -> None:
    registry.register(chain)
    first = promotion.promote(chain)
    assert first.move is not None
    assert (first.move.before, first.move.after, first.move.state) == (None, 1, "done")
    make_outputs(right=0.1)
    registry.register(chain)
    second = promotion.promote(chain)
    assert second.move is None
    assert second.judgement.decision.refused_by == ("em_difference",)
    client = tracking.open_client()
    refused = registry.get_version(client, "routerr1", "challenger")
    assert (refused.number, refused.tags["gate"]) == (2, "refused")
    assert refused.tags["gate.em_difference"].startswith("FAIL: ")
    assert registry.get_version(client, "routerr1", "champion").number == 1
    assert "**FAIL**" in Path("runs/gate/version-2.md").read_text()
    assert refused.run_id is not None
    pages = client.list_artifacts(refused.run_id, "gate")
    assert "gate/version-2.md" in [page.path for page in pages]


def test_promoting_the_champion_again_changes_nothing(chain: Params) -> None:
    registry.register(chain)
    promotion.promote(chain)
    again = promotion.promote(chain, "champion")
    assert again.move is None
    assert again.judgement.decision.passed
    assert len(promotion.moves(tracking.open_client(), "routerr1")) == 1


def test_rollback_walks_back_one_champion_at_a_time(chain: Params) -> None:
    for right in (0.61, 0.7, 0.8):
        make_outputs(right=right)
        registry.register(chain)
        promotion.promote(chain)
    back = [promotion.rollback(chain, why="test").after for _ in range(2)]
    assert back == [2, 1]
    with pytest.raises(RegistryError, match="no earlier champion"):
        promotion.rollback(chain, why="test")
    record = promotion.moves(tracking.open_client(), "routerr1")
    assert [(move.kind, move.before, move.after) for move in record] == [
        ("promote", None, 1),
        ("promote", 1, 2),
        ("promote", 2, 3),
        ("rollback", 3, 2),
        ("rollback", 2, 1),
    ]
    assert promotion.promote(chain, "3").move is not None  # and forward again
    assert promotion.rollback(chain, why="test").after == 1


def test_rollback_passes_over_a_version_that_was_deleted(chain: Params) -> None:
    for right in (0.61, 0.7, 0.8):
        make_outputs(right=right)
        registry.register(chain)
        promotion.promote(chain)
    tracking.open_client().delete_model_version("routerr1", "2")
    assert promotion.rollback(chain, why="test").after == 1


def test_outputs_that_differ_from_the_lock_are_refused(chain: Params) -> None:
    WEIGHTS.write_bytes(b"tampered")
    with pytest.raises(RegistryError, match=r"dvc\.lock: does not describe the outputs of make"):
        registry.register(chain)
    assert logged_models(chain) == []


def test_a_checkpoint_that_differs_from_its_manifest_is_refused(chain: Params) -> None:
    WEIGHTS.unlink()  # DVC links outputs to its cache
    WEIGHTS.write_bytes(b"tampered")
    subprocess.run(["dvc", "commit", "-f", "-q"], check=True)  # now dvc.lock agrees
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is corrupt"):
        registry.register(chain)
    assert logged_models(chain) == []


def stored_weights(version: registry.Version) -> Path:
    root = tracking.open_client().get_logged_model(version.model_id).artifact_location
    return Path(root.removeprefix("file://")) / "artifacts/policy/model.safetensors"


def test_a_version_whose_files_changed_is_neither_promoted_nor_reused(chain: Params) -> None:
    first = registry.register(chain)
    stored_weights(first).write_bytes(b"tampered")
    with pytest.raises(RegistryError, match=r"model\.safetensors: is corrupt"):
        promotion.promote(chain)
    assert registry.register(chain).number == 2  # made again
    assert promotion.promote(chain).move is not None


def test_a_version_whose_files_cannot_be_reached_now_is_kept(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.register(chain)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing(sqlite3.connect("mlflow.db")) as store, store:
        away = "http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/away"
        store.execute("UPDATE logged_models SET artifact_location = ?", (away,))
    with pytest.raises(StoreUnreachable):
        registry.register(chain)
    kept = registry.list_versions(tracking.open_client(), "routerr1")
    assert [version.number for version in kept] == [first.number]


def test_evidence_that_changed_is_not_believed(chain: Params) -> None:
    first = registry.register(chain)
    record = stored_weights(first).parent.parent / "context/evidence.json"
    record.write_text(record.read_text().replace('"em": 0.0', '"em": 1.0'))
    with pytest.raises(RegistryError, match="its evidence was changed"):
        promotion.promote(chain)


REGISTER = """
import os, signal, sys
import mlflow
from mlflow.tracking import MlflowClient
from routerr1.config import load_params
from routerr1 import registry

where = sys.argv[1]
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if where == "before files":
    MlflowClient.log_model_artifacts = die
elif where == "half the files":
    whole = MlflowClient.log_model_artifacts
    def half(self, model_id, local):
        os.remove(os.path.join(local, "artifacts/policy/model.safetensors"))
        whole(self, model_id, local)
        die()
    MlflowClient.log_model_artifacts = half
elif where == "before version":
    MlflowClient.create_model_version = die
elif where == "before alias":
    MlflowClient.set_registered_model_alias = die
registry.register(load_params())
"""


@pytest.mark.parametrize(
    "where", ["before files", "half the files", "before version", "before alias"]
)
def test_a_kill_while_registering_leaves_nothing_partial(chain: Params, where: str) -> None:
    killed = subprocess.run([sys.executable, "-c", REGISTER, where], check=False)
    assert killed.returncode == -signal.SIGKILL
    version = registry.register(chain)
    client = tracking.open_client()
    assert [found.number for found in registry.list_versions(client, "routerr1")] == [1]
    assert logged_models(chain) == [version.model_id]
    assert version.aliases == ("challenger",)
    registry.verify(client, version.model_id)
    assert promotion.promote(chain).move is not None


PROMOTE = """
import os, signal, sys
from mlflow.tracking import MlflowClient
from routerr1.config import load_params
from routerr1 import promotion

real = getattr(MlflowClient, sys.argv[1])
def die(self, *args, **kwargs):
    if sys.argv[2] == "after":
        real(self, *args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(MlflowClient, sys.argv[1], die)
promotion.promote(load_params())
"""


@pytest.mark.parametrize(
    ("call", "when", "champion", "state"),
    [
        ("set_registered_model_tag", "before", 1, []),
        ("set_registered_model_tag", "after", 1, ["abandoned"]),
        ("set_registered_model_alias", "before", 1, ["abandoned"]),
        ("set_registered_model_alias", "after", 2, ["done"]),
        ("delete_registered_model", "before", 2, ["done"]),
    ],
)
def test_a_kill_while_promoting_is_settled_by_the_next(
    chain: Params, call: str, when: str, champion: int, state: list[str]
) -> None:
    registry.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.8)
    registry.register(chain)
    killed = subprocess.run([sys.executable, "-c", PROMOTE, call, when], check=False)
    assert killed.returncode == -signal.SIGKILL
    client = tracking.open_client()
    assert registry.get_version(client, "routerr1", "champion").number == champion
    promotion.promote(chain, "2")  # the dead holder's lock does not stop it
    record = promotion.moves(client, "routerr1")
    assert [move.state for move in record[1 : 1 + len(state)]] == state
    assert registry.get_version(client, "routerr1", "champion").number == 2
    assert [move.seq for move in record] == list(range(1, len(record) + 1))
    assert sum(move.state == "done" for move in record) == 2


def test_what_was_approved_is_what_is_promoted(chain: Params) -> None:
    registry.register(chain)
    seen = promotion.judge(chain)
    make_outputs(right=0.7)
    registry.register(chain)
    with pytest.raises(RegistryError, match="approved was version 1 over None, but now"):
        promotion.promote(chain, approved=seen)
    assert promotion.promote(chain, "1", approved=seen).move is not None


EIGHT = """
import sys, time
from routerr1.config import load_params
from routerr1 import promotion
while time.time() < float(sys.argv[2]):
    time.sleep(0.01)
promotion.promote(load_params(), sys.argv[1], why=f"process {sys.argv[1]}")
"""


def test_eight_at_once_leave_one_champion_and_a_whole_record(chain: Params) -> None:
    for _ in range(8):
        commit_nothing()  # another commit is another version
        registry.register(chain)
    start = str(time.time() + 6)
    processes = [
        subprocess.Popen([sys.executable, "-c", EIGHT, str(number), start])
        for number in range(1, 9)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * 8
    client = tracking.open_client()
    record = promotion.moves(client, "routerr1")
    assert sorted(move.after for move in record) == list(range(1, 9))
    assert {move.state for move in record} == {"done"}
    assert [move.before for move in record] == [None, *(move.after for move in record[:-1])]
    assert [move.when for move in record] == sorted(move.when for move in record)
    assert all(move.why == f"process {move.after}" for move in record)
    assert registry.get_version(client, "routerr1", "champion").number == record[-1].after


def test_the_lock_of_another_machine_holds_until_its_lease_ends(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.open_client()
    client.create_registered_model("routerr1.lock", tags={"routerr1.owner": "elsewhere 1 0.00 ab"})
    with (
        pytest.raises(LockHeld, match="held by elsewhere"),
        exclusive(client, chain.registry.model, timeout_s=0.5),
    ):
        pass
    monkeypatch.setattr("routerr1.exclusive.LEASE_S", 0.0)
    with exclusive(client, chain.registry.model, timeout_s=5):
        held = client.get_registered_model("routerr1.lock").tags["routerr1.owner"]
    assert held.startswith(tracking.this_process())
    assert os.getpid() == int(held.split()[1])


def test_the_commands_say_what_they_did(chain: Params) -> None:  # noqa: ARG001
    from typer import Typer

    from routerr1.registry_commands import add_commands

    app = Typer()
    add_commands(app)
    run = CliRunner().invoke
    assert "version 1 of routerr1: challenger" in run(app, ["register"]).output
    assert "champion is version 1, was none" in run(app, ["promote"]).output
    make_outputs(right=0.1)
    run(app, ["register"])
    refused = run(app, ["promote"])
    assert (refused.exit_code, "refused by em_difference" in refused.output) == (1, True)
    make_outputs(right=0.9)
    run(app, ["register"])
    run(app, ["promote", "--why", "better"])
    assert "champion is version 1, was version 3" in run(app, ["rollback"]).output
    listed = run(app, ["registry", "list"]).output
    assert all(word in listed for word in ("champion", "refused", "0.9"))
    shown = run(app, ["registry", "show", "3", "--json"]).output
    assert json.loads(shown)["tags"]["metric.em"] == "0.9"
    assert "dvc_lock" in run(app, ["registry", "show"]).output
    log = run(app, ["registry", "log"]).output.splitlines()
    assert len(log) == 3
    assert "1 -> 3" in log[1]
    assert log[1].endswith("better")
