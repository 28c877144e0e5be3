"""Registering, promoting and rolling back on a real SQLite store, a real git and a real DVC repository."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from routerr1 import files, lineage
from routerr1.config import Params
from routerr1.data.imported import Shares
from routerr1.errors import CheckpointError, DataError, LockHeld, RegistryError, StoreUnreachable
from routerr1.evaluate.rows import Row
from routerr1.registry import promotion, versions
from routerr1.registry.evidence import read_evidence, rivals_of, sample_of, write_evidence
from routerr1.registry.lock import registry_lock
from routerr1.registry.samples import Evidence
from routerr1.registry.shadow_report import (
    ShadowReport,
    read_shadow_report,
    write_shadow_report,
)
from routerr1.serve.feedback import import_feedback
from routerr1.serve.store import FeedbackRow, RequestRow, Store
from routerr1.tracking.runs import new_run, read_training
from routerr1.tracking.store import experiment_id, open_client, this_process
from routerr1.train.checkpoint import read_manifest, write_manifest
from tests.chain import commit_all, commit_nothing, dvc, make_outputs
from tests.clone import replace
from tests.forked import ended, fork, promote, promote_and_die, register_and_die

pytestmark = pytest.mark.slow

WEIGHTS = Path("models/policy/model.safetensors")


def logged_models(params: Params) -> list[str]:
    client = open_client()
    experiment = experiment_id(client, params.registry.experiment)
    return [found.model_id for found in client.search_logged_models([experiment])]


def test_a_version_carries_its_lineage_and_figures(chain: Params) -> None:
    version = versions.register(chain)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert (version.number, version.aliases) == (1, ("challenger",))
    assert version.tags["lineage.git_commit"] == commit.stdout.strip()
    assert version.tags["lineage.git_dirty"] == "false"
    assert version.tags["lineage.data_digest"].endswith(".dir")
    assert version.tags["lineage.prompt_hash"] == "p1"
    assert (version.tags["metric.em"], version.tags["metric.cost_usd"]) == ("0.6", "0.001")
    assert version.tags["lineage.seeds"] == "1"
    assert version.tags["train.validation_em"] == "0.7"
    judged_by = versions.read_version_evidence(version)
    samples, unseen, pool, *_ = judged_by
    assert (len(samples), samples[1].called) == (40, ("Atlas",))
    assert [play.pool for play in unseen] == ["drawn"] * 40  # and not of a mere change of names
    assert pool == version.tags["lineage.pool_digest"] == files.sha256(Path("data/pool/cards.json"))


def test_a_version_names_the_feedback_that_it_learned_from(chain: Params) -> None:
    asked = RequestRow(
        "r1", 1.0, None, None, "routerr1@1", "routerr1", 5.0, 200, None, 0.0, 0.1, [], "Why?", "so"
    )
    with closing(Store("sqlite:///serve.sqlite")) as store:
        store.write_requests([asked])
        store.write_feedback(FeedbackRow("r1", 2.0, None, 1.0, None, None, True, None))
        made, _ = import_feedback(
            store, "feedback", [], out=Path("data/imported"), shares=Shares(0.0, 0.0), seed=1
        )
    assert "lineage.imported" not in versions.register(chain).tags
    section = chain.dataset.model_copy(update={"imported": (made.path,)})
    commit_all("feedback")
    version = versions.register(chain.model_copy(update={"dataset": section}))
    assert version.tags["lineage.imported"] == f"feedback@{files.sha256(made.path)[:12]}"
    made.path.write_bytes(b"another file")
    with pytest.raises(DataError, match=r"feedback\.parquet: is not the file that"):
        versions.register(chain.model_copy(update={"dataset": section}))


def test_a_version_keeps_the_lock_it_came_from_and_what_was_not_committed(chain: Params) -> None:
    clean = versions.register(chain)
    with versions.fetched(clean.model_id, "artifacts/context") as context:
        names = {file.name for file in context.iterdir()}
        assert (context / "dvc.lock").read_bytes() == Path("dvc.lock").read_bytes()
        listed = read_manifest(context)["files"]
    assert names == {*listed, "routerr1.json"}
    assert names == {
        "cards.json",
        "dvc.lock",
        "evidence.json",
        "model-card.md",
        "params.json",
        "routerr1.json",
        "sbom.cdx.json",
    }
    assert clean.tags["lineage.dvc_lock"] == listed["dvc.lock"]
    replace(Path("params.yaml"), "preset: simulated", "preset: simulated  # for now")
    dirty = versions.register(chain)
    assert (dirty.number, dirty.tags["lineage.git_dirty"]) == (2, "true")
    with versions.fetched(dirty.model_id, "artifacts/context/uncommitted.diff") as diff:
        assert "+preset: simulated  # for now" in diff.read_text()


def test_a_version_explains_itself_and_lists_its_software(chain: Params) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    version = versions.register(chain)
    assert version.description.startswith(
        "Router policy, preset simulated, seeds 1: exact match 0.6, 1 USD per 1000 questions; commit "
    )
    groups = {key.partition(".")[0] for key in version.tags}
    assert groups == {"lineage", "metric", "routerr1", "train"}
    with versions.fetched(version.model_id, "artifacts/context") as context:
        card = (context / "model-card.md").read_text()
        bill = (context / "sbom.cdx.json").read_text()
    assert "| em | 0.6 | 0.4" in card
    assert "| Atlas | 0.1 | 0 |" in card
    assert version.tags["lineage.git_commit"] in card
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    listed = json.loads(bill)
    found = {each["name"].lower(): each.get("version") for each in listed["components"]}
    assert found["torch"] == metadata.version("torch")
    policy = listed["metadata"]["component"]
    assert policy["type"] == "machine-learning-model"
    hashes = {each["name"]: each["hashes"][0]["content"] for each in policy["components"]}
    assert hashes["model.safetensors"] == files.sha256(WEIGHTS)


def test_hours_of_training_come_from_the_run_that_trained(chain: Params) -> None:
    training = read_training(Path("data/train/run.json"))
    with new_run(chain.registry, Path("runs/aside.json"), training, name="trains") as run:
        run.log_metrics({"train_hours": 0.1})
    version = versions.register(chain)
    assert (version.run_id, version.tags["train.hours"]) == (run.id, "0.1")


def test_links_into_a_shared_cache_are_registered_as_files(chain: Params) -> None:
    dvc("config", "cache.type", "symlink")
    dvc("checkout", "--relink", "-q")
    assert WEIGHTS.is_symlink() or Path("models/policy").is_symlink()
    commit_nothing()
    version = versions.register(chain)
    assert stored_weights(version).read_bytes() == WEIGHTS.read_bytes()
    assert not stored_weights(version).is_symlink()
    assert promotion.promote(chain).record is not None


def test_the_report_of_a_champion_stays_at_hand(chain: Params) -> None:
    page = Path("data/report/index.html")
    page.parent.mkdir()
    page.write_text("of the champion")
    first = versions.register(chain)
    page.write_text("of a refused challenger")
    commit_nothing()
    versions.register(chain)
    assert versions.save_report(first).read_text() == "of the champion"
    page.unlink()
    page.parent.rmdir()
    commit_nothing()
    with pytest.raises(RegistryError, match="lacks artifacts/report"):
        versions.save_report(versions.register(chain))


@pytest.mark.parametrize("kept", [True, False])
def test_a_store_that_was_moved_or_copied_keeps_its_artifacts_beside_it(
    chain: Params, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    first = versions.register(chain)
    old, new = Path.cwd(), Path.cwd().with_name("elsewhere")
    if kept:
        shutil.copytree(old, new, symlinks=True)
    else:
        old.rename(new)
    before = {path: files.sha256(path) for path in old.rglob("mlruns/**/*") if path.is_file()}
    monkeypatch.chdir(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # as in another process: MLflow sets it
    assert new in stored_weights(first).parents  # before anything is written
    commit_nothing()
    second = versions.register(chain)
    assert new in stored_weights(second).parents
    assert promotion.promote(chain).record is not None
    after = {path: files.sha256(path) for path in old.rglob("mlruns/**/*") if path.is_file()}
    assert after == before


def test_a_store_whose_artifacts_were_left_behind_names_both_folders(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.register(chain)
    old, new = Path.cwd(), Path.cwd().with_name("elsewhere")
    new.mkdir()
    shutil.copy("mlflow.db", new)  # alone: its artifacts are the original's
    monkeypatch.chdir(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # as in another process: MLflow sets it
    with pytest.raises(RegistryError) as caught:
        open_client()
    where = f"{old}/mlruns/routerr1; move or copy that folder to {new}/mlruns/routerr1"
    assert str(caught.value) == f"{new}/mlflow.db: expects its artifacts in {where}"


def test_a_huge_change_is_cut(chain: Params) -> None:
    with Path("params.yaml").open("a") as file:
        file.write("# a note\n" * 150_000)
    version = versions.register(chain)
    whole = len(lineage.git_diff())
    with versions.fetched(version.model_id, "artifacts/context/uncommitted.diff") as diff:
        assert diff.read_bytes()[1_000_000:].decode() == f"\n... cut: {whole} bytes in all\n"


def test_registering_warns_of_nothing(chain: Params, recwarn: pytest.WarningsRecorder) -> None:
    versions.register(chain)
    assert [str(told.message) for told in recwarn if issubclass(told.category, UserWarning)] == []


def test_the_same_state_is_registered_once(chain: Params) -> None:
    first = versions.register(chain)
    again = versions.register(chain)
    assert again == first
    assert logged_models(chain) == [first.model_id]
    make_outputs(right=0.7)
    assert versions.register(chain).number == 2


def test_the_gate_moves_the_champion_or_leaves_it(chain: Params) -> None:
    versions.register(chain)
    first = promotion.promote(chain)
    assert first.record is not None
    assert (first.record.before, first.record.after, first.record.state) == (None, 1, "done")
    make_outputs(right=0.1)
    versions.register(chain)
    second = promotion.promote(chain)
    assert second.record is None
    assert second.result.decision.refused_by == ("em_difference",)
    client = open_client()
    refused = versions.get_version(client, "routerr1", "challenger")
    assert (refused.number, refused.tags["gate"]) == (2, "refused")
    rule = json.loads(refused.tags["gate.em_difference"])
    assert (rule["figure"], rule["limit"], rule["verdict"]) == (-0.5, -0.02, "FAIL")
    assert rule["low"] <= rule["figure"] <= rule["high"] < 0
    assert json.loads(refused.tags["gate.format"])["low"] == 1.0
    assert versions.get_version(client, "routerr1", "champion").number == 1
    assert "**FAIL**" in Path("runs/gate/version-2.md").read_text()
    assert refused.run_id is not None
    pages = client.list_artifacts(refused.run_id, "gate")
    assert "gate/version-2.md" in [page.path for page in pages]


def test_promoting_the_champion_again_changes_nothing(chain: Params) -> None:
    versions.register(chain)
    promotion.promote(chain)
    again = promotion.promote(chain, "champion")
    assert again.record is None
    assert again.result.decision.passed
    assert len(promotion.promotion_log(open_client(), "routerr1")) == 1


def test_rollback_walks_back_one_champion_at_a_time(chain: Params) -> None:
    for right in (0.61, 0.7, 0.8):
        make_outputs(right=right)
        versions.register(chain)
        promotion.promote(chain)
    back = [promotion.rollback(chain, why="test").after for _ in range(2)]
    assert back == [2, 1]
    with pytest.raises(RegistryError, match="no earlier champion"):
        promotion.rollback(chain, why="test")
    record = promotion.promotion_log(open_client(), "routerr1")
    assert [(move.kind, move.before, move.after) for move in record] == [
        ("promote", None, 1),
        ("promote", 1, 2),
        ("promote", 2, 3),
        ("rollback", 3, 2),
        ("rollback", 2, 1),
    ]
    assert promotion.promote(chain, "3").record is not None  # and forward again
    assert promotion.rollback(chain, why="test").after == 1


def test_rollback_passes_over_a_version_that_was_deleted(chain: Params) -> None:
    for right in (0.61, 0.7, 0.8):
        make_outputs(right=right)
        versions.register(chain)
        promotion.promote(chain)
    open_client().delete_model_version("routerr1", "2")
    assert promotion.rollback(chain, why="test").after == 1


def test_outputs_that_differ_from_the_lock_are_refused(chain: Params) -> None:
    WEIGHTS.write_bytes(b"tampered")
    with pytest.raises(RegistryError, match=r"dvc\.lock: does not describe the outputs of make"):
        versions.register(chain)
    assert logged_models(chain) == []


def test_a_file_under_dvc_that_was_imported_again_has_a_remedy_that_helps(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "changed_stages", lambda: ["data/imported/mine.parquet.dvc"])
    with pytest.raises(
        RegistryError, match=r"mine\.parquet: .*`dvc add data/imported/mine\.parquet`"
    ):
        versions.register(chain)


def test_outputs_that_change_while_they_are_registered_make_no_version(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    log_model = mlflow.pyfunc.log_model

    def after_a_retrain(**options: Any) -> Any:
        make_outputs(right=0.1)  # whose policy is logged beside the figures of the one before
        return log_model(**options)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.pyfunc, "log_model", after_a_retrain)
        with pytest.raises(RegistryError, match=r"the outputs changed while they were reg"):
            versions.register(chain)
    assert listed() == []
    version = versions.register(chain)
    assert (version.number, version.tags["metric.em"]) == (1, "0.1")
    assert logged_models(chain) == [version.model_id]


def test_a_checkpoint_that_differs_from_its_manifest_is_refused(chain: Params) -> None:
    WEIGHTS.unlink()  # DVC links outputs to its cache
    WEIGHTS.write_bytes(b"tampered")
    dvc("commit", "-f", "-q")  # now dvc.lock agrees
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is corrupt"):
        versions.register(chain)
    assert logged_models(chain) == []


def stored_weights(version: versions.Version) -> Path:
    root = open_client().get_logged_model(version.model_id).artifact_location
    return Path(root.removeprefix("file://")) / "artifacts/policy/model.safetensors"


def test_a_version_whose_files_changed_is_neither_promoted_nor_reused(chain: Params) -> None:
    first = versions.register(chain)
    stored_weights(first).write_bytes(b"tampered")
    with pytest.raises(RegistryError) as caught:
        promotion.promote(chain)
    assert str(caught.value) == (
        f"logged model {first.model_id}: artifacts/policy/model.safetensors: is corrupt"
    )
    assert versions.register(chain).number == 2  # made again, and the broken one is kept
    assert [version.number for version in listed()] == [2, 1]
    assert promotion.promote(chain).record is not None


def listed() -> list[versions.Version]:
    return versions.list_versions(open_client(), "routerr1")


def test_a_champion_whose_files_are_away_stays_champion(chain: Params, tmp_path: Path) -> None:
    first = versions.register(chain)
    promotion.promote(chain)
    folder = stored_weights(first).parents[1]
    folder.rename(tmp_path / "unmounted")
    with pytest.raises(
        RegistryError,
        match=rf"^version 1 of routerr1: is champion, but logged model {first.model_id}: lacks ",
    ):
        versions.register(chain)
    (only,) = listed()
    assert (only.number, only.aliases) == (1, ("champion",))
    assert logged_models(chain) == [first.model_id]
    (tmp_path / "unmounted").rename(folder)
    assert versions.register(chain).number == 1


def test_a_former_champion_whose_files_are_away_is_kept_to_go_back_to(
    chain: Params, tmp_path: Path
) -> None:
    first = versions.register(chain)
    promotion.promote(chain)
    commit_nothing()
    versions.register(chain)
    promotion.promote(chain)
    subprocess.run(["git", "reset", "-q", "--hard", "HEAD~1"], check=True)
    folder = stored_weights(first).parents[1]
    folder.rename(tmp_path / "unmounted")
    assert versions.register(chain).number == 3
    (tmp_path / "unmounted").rename(folder)
    assert promotion.rollback(chain, why="test").after == 1


def test_a_version_whose_files_cannot_be_reached_now_is_kept(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = versions.register(chain)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing(sqlite3.connect("mlflow.db")) as store, store:
        away = "http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/away"
        store.execute("UPDATE logged_models SET artifact_location = ?", (away,))
    with pytest.raises(StoreUnreachable):
        versions.register(chain)
    kept = versions.list_versions(open_client(), "routerr1")
    assert [version.number for version in kept] == [first.number]


def test_evidence_that_changed_is_not_believed(chain: Params) -> None:
    first = versions.register(chain)
    record = stored_weights(first).parent.parent / "context/evidence.json"
    record.write_text(record.read_text().replace('"em": 0.0', '"em": 1.0'))
    with pytest.raises(RegistryError, match=r"artifacts/context/evidence\.json: is corrupt"):
        promotion.promote(chain)
    write_manifest(record.parent, {})  # now the two agree
    with pytest.raises(RegistryError, match="artifacts/context was changed"):
        promotion.promote(chain)


@pytest.mark.parametrize("name", ["cards.json", "params.json", "dvc.lock"])
def test_what_a_policy_is_played_with_is_checked_like_its_weights(chain: Params, name: str) -> None:
    first = versions.register(chain)
    file = stored_weights(first).parents[1] / "context" / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(RegistryError, match=rf"artifacts/context/{name}: is corrupt"):
        promotion.promote(chain)


@pytest.mark.parametrize(
    "where", ["before files", "half the files", "before version", "before alias"]
)
def test_a_kill_while_registering_leaves_nothing_partial(chain: Params, where: str) -> None:
    assert ended(fork(register_and_die, where)) == -signal.SIGKILL
    version = versions.register(chain)
    client = open_client()
    assert [found.number for found in versions.list_versions(client, "routerr1")] == [1]
    assert logged_models(chain) == [version.model_id]
    assert version.aliases == ("challenger",)
    versions.verify(client, version.model_id)
    assert promotion.promote(chain).record is not None


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
    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.8)
    versions.register(chain)
    assert ended(fork(promote_and_die, call, when)) == -signal.SIGKILL
    client = open_client()
    assert versions.get_version(client, "routerr1", "champion").number == champion
    promotion.promote(chain, "2")  # the dead holder's lock does not stop it
    record = promotion.promotion_log(client, "routerr1")
    assert [move.state for move in record[1 : 1 + len(state)]] == state
    assert versions.get_version(client, "routerr1", "champion").number == 2
    assert [move.seq for move in record] == list(range(1, len(record) + 1))
    assert sum(move.state == "done" for move in record) == 2


def test_another_pool_or_other_questions_are_no_comparison(chain: Params) -> None:
    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.9, price=0.2)
    versions.register(chain)
    assert promotion.promote(chain).result.decision.refused_by == ("same_pool",)
    make_outputs(right=0.9, asks="another question")  # by the same ids
    versions.register(chain)
    refused = promotion.promote(chain).result.decision.refused_by
    assert refused == ("same_questions", "em_difference", "cost_ratio")


def test_what_the_champion_does_now_takes_the_place_of_what_is_kept_with_it(chain: Params) -> None:
    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.9, price=0.2)
    replayed = versions.read_version_evidence(versions.register(chain))
    done = promotion.promote(chain, replayed=replayed._replace(unseen=()))
    assert done.result.decision.passed
    assert done.record is not None


def test_a_challenger_that_is_worse_with_new_models_is_refused(chain: Params) -> None:
    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.9, unseen=0.4)
    version = versions.register(chain)
    assert promotion.promote(chain).result.decision.refused_by == ("unseen_difference",)
    make_outputs(right=0.9, unseen=0.2)
    versions.register(chain)
    refused = promotion.promote(chain).result.decision.refused_by
    assert refused == ("unseen_pool", "unseen_difference")
    # A verdict of rules that an earlier one had and it has not is no verdict of theirs.
    promotion.promote(chain, str(version.number), without_comparison=True, why="test")
    tags = {key for key in listed()[1].tags if key.startswith("gate.")}
    assert "gate.em_floor" in tags
    assert not {"gate.em_difference", "gate.unseen_difference", "gate.cost_ratio"} & tags


def test_without_comparison_a_champion_that_cannot_be_compared_with_is_replaced(
    chain: Params,
) -> None:
    first = versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.5, price=0.2)
    versions.register(chain)
    assert promotion.promote(chain).record is None
    shutil.rmtree(stored_weights(first).parents[1])  # not even its files are there
    with pytest.raises(RegistryError, match="lacks artifacts/context"):
        promotion.promote(chain)
    done = promotion.promote(chain, without_comparison=True, why="another pool")
    assert done.record is not None
    assert (done.record.before, done.record.after) == (1, 2)
    assert done.record.why == "without comparison: another pool"
    version = listed()[0]
    assert version.tags["gate.champion"] == "version 1, without comparison: judged by floors"
    assert json.loads(version.tags["gate.em_floor"])["verdict"] == "pass"
    make_outputs(right=0.2, price=0.2)
    versions.register(chain)
    refused = promotion.promote(chain, without_comparison=True, why="no").result.decision.refused_by
    assert refused == ("em_floor",)


def test_what_was_approved_is_what_is_promoted(chain: Params) -> None:
    versions.register(chain)
    seen = promotion.judge(chain)
    make_outputs(right=0.7)
    versions.register(chain)
    with pytest.raises(RegistryError, match="approved was version 1 over None, but now"):
        promotion.promote(chain, approved=seen)
    assert promotion.promote(chain, "1", approved=seen).record is not None


def test_eight_at_once_leave_one_champion_and_a_whole_record(chain: Params) -> None:
    for _ in range(8):
        commit_nothing()  # another commit is another version
        versions.register(chain)
    start = time.time() + 6
    processes = [fork(promote, number, start) for number in range(1, 9)]
    assert [ended(process) for process in processes] == [0] * 8
    client = open_client()
    record = promotion.promotion_log(client, "routerr1")
    assert sorted(move.after for move in record) == list(range(1, 9))
    assert {move.state for move in record} == {"done"}
    assert [move.before for move in record] == [None, *(move.after for move in record[:-1])]
    assert [move.when for move in record] == sorted(move.when for move in record)
    assert all(move.why == f"process {move.after}" for move in record)
    assert versions.get_version(client, "routerr1", "champion").number == record[-1].after


class Resending:
    """A client of which every request that frees a lock is sent twice; in between another process takes the lock."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._taken = False

    def __getattr__(self, name: str) -> Any:
        sent = getattr(self._client, name)
        if name not in ("rename_registered_model", "delete_registered_model"):
            return sent

        def twice(*arguments: str) -> None:
            sent(*arguments)
            if not self._taken:
                owner = {"routerr1.owner": "elsewhere 1 0.00 ab"}
                self._client.create_registered_model("routerr1.lock", tags=owner)
                self._taken = True
            sent(*arguments)

        return twice


def test_a_request_that_is_sent_again_does_not_free_the_lock_of_the_next(chain: Params) -> None:
    client = open_client()
    with registry_lock(Resending(client), chain.registry.model):
        pass
    names = {found.name for found in client.search_registered_models()}
    assert names == {"routerr1.lock"}
    assert (
        client.get_registered_model("routerr1.lock").tags["routerr1.owner"].startswith("elsewhere")
    )


def test_the_lock_of_another_machine_holds_until_its_lease_ends(chain: Params) -> None:
    client = open_client()
    client.create_registered_model("routerr1.lock", tags={"routerr1.owner": "elsewhere 1 0.00 ab"})
    with (
        pytest.raises(LockHeld, match="held by elsewhere"),
        registry_lock(client, chain.registry.model, timeout_s=0.5),
    ):
        pass
    with registry_lock(client, chain.registry.model, timeout_s=5, lease_s=0.0):
        held = client.get_registered_model("routerr1.lock").tags["routerr1.owner"]
    assert held.startswith(this_process())
    assert os.getpid() == int(held.split()[1])


def test_a_mutex_that_another_took_is_told_before_anything_is_changed(chain: Params) -> None:
    client = open_client()
    with registry_lock(client, chain.registry.model) as lease:
        lease.check()
        client.delete_registered_model("routerr1.lock")  # as a process does after the lease ends
        client.create_registered_model("routerr1.lock", tags={"routerr1.owner": "elsewhere 1 0 ab"})
        with pytest.raises(LockHeld, match="this process held it too long"):
            lease.check()
    assert (
        client.get_registered_model("routerr1.lock").tags["routerr1.owner"].startswith("elsewhere")
    )


def test_a_mover_that_took_too_long_moves_nothing(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.register(chain)
    clock = time.monotonic
    monkeypatch.setattr(
        "time.monotonic", lambda: 1e6 * clock()
    )  # a millisecond takes a quarter of an hour
    with pytest.raises(LockHeld, match="nothing was changed, try again"):
        promotion.promote(chain)
    (version,) = listed()
    assert "champion" not in version.aliases
    assert promotion.promotion_log(open_client(), "routerr1") == []


def test_a_checkpoint_is_looked_at_before_others_are_held_up(chain: Params) -> None:
    stored_weights(versions.register(chain)).write_bytes(b"tampered")
    client = open_client()
    client.create_registered_model("routerr1.lock", tags={"routerr1.owner": "elsewhere 1 0.00 ab"})
    with pytest.raises(RegistryError, match="is corrupt"):
        promotion.promote(chain)


def test_an_upload_of_another_machine_is_left_alone(
    chain: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_client()
    experiment = experiment_id(client, chain.registry.experiment)
    theirs = client.create_logged_model(
        experiment, "routerr1", tags={"routerr1.process": "elsewhere 1 0 boot/pid:[1]"}
    ).model_id
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 6 * 86400)
    version = versions.register(chain)
    assert sorted(logged_models(chain)) == sorted([version.model_id, theirs])
    monkeypatch.setattr("time.time", lambda: now + 8 * 86400)
    versions.register(chain)
    assert logged_models(chain) == [version.model_id]


def test_the_commands_say_what_they_did(chain: Params) -> None:  # noqa: ARG001
    from typer import Typer

    from routerr1.cli.registry import add_commands

    app = Typer()
    add_commands(app)
    run = CliRunner().invoke
    assert "version 1 of routerr1: challenger" in run(app, ["register"]).output
    assert "champion is version 1, was none" in run(app, ["promote"]).output
    make_outputs(right=0.1)
    run(app, ["register"])
    refused = run(app, ["promote"])
    assert (refused.exit_code, "refused by em_difference" in refused.output) == (1, True)
    assert "  em_difference: exact match minus the champion's, lower end" in refused.output
    assert "more test questions narrow an interval" in refused.output
    assert "routerr1 serve --model models:/routerr1/2" in refused.output
    alone = run(app, ["promote", "--without-comparison"])
    assert (alone.exit_code, "needs --why" in alone.output) == (2, True)
    make_outputs(right=0.9)
    run(app, ["register"])
    run(app, ["promote", "--why", "better"])
    assert "champion is version 1, was version 3" in run(app, ["rollback"]).output
    listed = run(app, ["registry", "list"]).output
    assert all(word in listed for word in ("champion", "refused", "0.9"))
    shown = run(app, ["registry", "show", "3", "--json"]).output
    assert json.loads(shown)["tags"]["metric.em"] == "0.9"
    assert "lineage:\n  lineage.data_digest" in run(app, ["registry", "show"]).output
    make_outputs(right=0.5)
    run(app, ["register"])
    floors = run(app, ["promote", "--without-comparison", "--why", "the code changed"])
    assert "champion is version 4, was version 1" in floors.output
    log = run(app, ["registry", "log"]).output.splitlines()
    assert len(log) == 4
    assert log[3].endswith("without comparison: the code changed")
    assert "1 -> 3" in log[1]
    assert log[1].endswith("better")


def test_a_version_of_simulated_candidates_does_not_follow_one_of_real_ones(chain: Params) -> None:
    first = versions.register(chain)
    assert first.tags["lineage.pool"] == "simulated"
    assert promotion.promote(chain).record is not None  # a toy registry takes toys
    client = open_client()
    client.set_model_version_tag(first.name, str(first.number), "lineage.pool", "http")
    make_outputs(right=0.8)
    versions.register(chain)
    assert promotion.judge(chain).decision.refused_by == ("real_candidates",)
    client.delete_model_version_tag(first.name, str(first.number), "lineage.pool")
    assert promotion.judge(chain).decision.refused_by == ("real_candidates",)  # of unknown ones
    allowed = chain.replace(gate=chain.gate.replace(allow_simulated=True))
    assert promotion.promote(allowed).record is not None


def test_the_gate_reads_the_report_of_a_shadow_beside_the_present_champion(chain: Params) -> None:
    versions.register(chain)
    promotion.promote(chain)
    make_outputs(right=0.8)
    challenger = versions.register(chain)
    asking = chain.replace(gate=chain.gate.replace(shadow={"min_pairs": 10}))
    assert promotion.judge(asking).decision.refused_by == ("shadow_pairs", "shadow_verdict")
    client, number = open_client(), str(challenger.number)
    report = ShadowReport(champion="1", pairs=12, verdict=0.1, low=-0.05, high=0.2)
    beside_another = report.model_copy(update={"champion": "7"})
    write_shadow_report(client, challenger.name, number, beside_another)
    assert not promotion.judge(asking).decision.passed
    write_shadow_report(client, challenger.name, number, report)
    promoted = promotion.promote(asking)
    assert promoted.record is not None
    tags = versions.get_version(client, challenger.name, challenger.number).tags
    assert json.loads(tags["gate.shadow_pairs"])["figure"] == 12.0
    assert promotion.judge(asking, 2).decision.passed  # the champion is no shadow of itself
    client.set_model_version_tag(challenger.name, number, "shadow.report", "{}")
    assert promotion.judge(chain, 2).decision.passed  # which does not ask for the report
    with pytest.raises(RegistryError, match=r"shadow\.report holds no report"):
        read_shadow_report({"shadow.report": "{}"}, 1)


def test_evidence_keeps_the_best_single_model_and_the_best_learned_router(tmp_path: Path) -> None:
    def row(router: str, number: int, em: float, cost_usd: float) -> Row:
        return Row(
            pool="training", router=router, seed=1, question_id=f"q{number}", dataset="d",
            question=f"{number}?", group=f"g{number}", hops=1, topic=None, answer="x", em=em, f1=em,
            format_valid=True, cost_usd=cost_usd, calls=1, failures=0, prompt_tokens=1,
            completion_tokens=1, policy_tokens=1, latency_s=0.1, called=["Atlas"], best_calls=0,
            judged_calls=0, trajectory='{"question": {"golden_answers": ["x"]}}',
        )  # fmt: skip

    figures = {
        "policy": (1.0, 0.2), "best_single": (0.5, 0.4), "random": (1.0, 0.1), "oracle": (1.0, 0.0),
        "baseline/largest": (1.0, 0.1), "baseline/mlp": (0.5, 0.3), "baseline/knn": (0.5, 0.2),
        "baseline/bert": (0.0, 0.1),
    }  # fmt: skip
    rows = [row(name, n, em, cost) for name, (em, cost) in figures.items() for n in range(2)]
    found = rivals_of(rows, 1)
    assert {role: rival.router for role, rival in found.items()} == {
        "best_single": "best_single",
        "best_learned": "baseline/knn",  # as right as mlp, and cheaper
    }
    assert set(rivals_of(rows, 1, "baseline/knn")) == {"best_single"}
    worse = rivals_of(rows, 1, "baseline/mlp")
    assert worse["best_learned"].router == "baseline/knn"
    samples = [sample_of(each) for each in rows[:2]]
    kept = Evidence(samples, (), "p", "u", rivals=found, simulated=True)
    write_evidence(tmp_path / "evidence.json", kept)
    assert read_evidence(tmp_path / "evidence.json") == kept._replace(unseen=[])
