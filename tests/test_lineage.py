"""Whether dvc.lock describes the workspace; real DVC."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1 import lineage
from routerr1.cli.ops import ops_app
from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.types import Card
from tests.clone import commit, environment, make_clone, replace


@pytest.mark.slow
def test_without_data_the_lock_is_judged_by_code_and_parameters(chain: Params) -> None:  # noqa: ARG001
    for folder in ("data", "models", ".dvc/cache"):
        shutil.rmtree(folder)
    run = CliRunner().invoke
    assert run(ops_app, ["locked"]).output == "dvc.lock is up to date\n"
    replace(Path("made.yaml"), "right: 0.6", "right: 0.9")
    changed = run(ops_app, ["locked"])
    assert (changed.exit_code, "dvc.lock is behind: make;" in changed.output) == (1, True)


def test_changed_code_is_seen_too(chain: Params) -> None:  # noqa: ARG001
    make = Path("make.py")
    make.write_text(make.read_text() + "# changed\n")
    assert lineage.stages_to_run() == ["make"]
    assert lineage.changed_stages() == ["make"]


def test_changes_that_git_cannot_tell_are_not_taken_for_none(chain: Params) -> None:  # noqa: ARG001
    assert lineage.git_diff() == b""
    Path(".git/index").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"^`git diff HEAD .*` failed: fatal: "):
        lineage.git_diff()


def test_a_folder_of_another_owner_gives_gits_own_reason(
    chain: Params,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)  # where the folder may be called safe
    assert lineage.git_commit() is not None
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch, for its tests
    with pytest.raises(DataError, match="failed: fatal: detected dubious ownership in repository"):
        lineage.git_commit()
    assert lineage.known_commit() is None
    assert "the commit is not recorded" in caplog.text


def test_without_a_repository_or_a_commit_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lineage.git_commit() is None
    subprocess.run(["git", "init", "-q"], check=True)
    assert lineage.git_commit() is None


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_clone_without_data_tells_what_changed_of_imported_questions(tmp_path: Path) -> None:
    ours, theirs = make_clone(tmp_path / "ours"), tmp_path / "theirs"

    def run(folder: Path, *command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    rows = [{"q": f"Who was number {i} on the moon?", "a": [f"person {i}"]} for i in range(40)]
    lines = [*map(json.dumps, rows), json.dumps({"q": "Nobody?", "a": []})]
    (ours / "own.jsonl").write_text("\n".join(lines))
    own = ["own.jsonl", "--name", "mine", "--question", "q", "--answers", "a"]
    run(ours, "routerr1", "data", "import", *own)
    mine = "data/imported/mine.parquet"
    replace(ours / "params.yaml", "imported: []", f"imported: [{mine}]")
    run(ours, "dvc", "add", mine)
    run(ours, "dvc", "repro", "dataset")
    assert (ours / "data/imported/mine.refused.jsonl").stat().st_size > 0
    commit(ours, "own questions")
    run(tmp_path, "git", "clone", "-q", "ours", "theirs")
    assert not (theirs / mine).exists()
    assert not (theirs / "data/imported/mine.refused.jsonl").exists()
    behind = "dvc.lock is behind: checks, "  # which was never run
    assert run(theirs, "routerr1", "ops", "locked").startswith(behind)
    # What differs from what git knows is no longer what was locked, and is refused.
    content = (ours / mine).read_bytes()
    (ours / mine).unlink()  # may be linked to DVC's cache
    (ours / mine).write_bytes(content + b" ")
    refused = subprocess.run(
        ["routerr1", "dataset"], cwd=ours, env=environment(ours), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (refused.returncode, refused.stderr.splitlines()) == (
        2,
        [
            f"routerr1: {mine}: is not the file that data/imported.json knows; fetch that one "
            "(`dvc checkout`), or import yours"
        ],
    )
    (ours / "own.jsonl").write_text("\n".join(lines[:30]))
    run(ours, "routerr1", "data", "import", *own)
    shutil.copy(ours / "data/imported.json", theirs / "data/imported.json")
    assert run(theirs, "routerr1", "ops", "locked").startswith("dvc.lock is behind: dataset, ")


def test_without_a_lock_there_is_nothing_to_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"dvc\.lock: not found"):
        lineage.stages_to_run()
    with pytest.raises(DataError, match=r"dvc\.lock: cannot be read"):
        lineage.read_lock()
    for content, wanted in (
        ("stages: [", r"dvc\.lock, line 1: is not valid YAML; run `dvc repro`"),
        ("other: 1", r"dvc\.lock: is not a dvc\.lock"),
    ):
        Path("dvc.lock").write_text(content)
        with pytest.raises(DataError, match=wanted):
            lineage.read_lock()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may take on another account's number")
def test_an_account_without_a_name_is_told_by_its_number() -> None:
    """As in a container that runs under a number of its own."""
    code = "import os; from routerr1.lineage import user_name; os.setuid(54321); print(user_name())"
    names = ("ROUTERR1_USER", "LOGNAME", "USER", "LNAME", "USERNAME")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "uid-54321\n"


def test_the_price_book_is_prices_and_nothing_else() -> None:
    card = Card("a", prompt_usd_per_mtok=1.0, completion_usd_per_mtok=2.0)
    other = Card("a", "text", latency_s=3.0, prompt_usd_per_mtok=1.0, completion_usd_per_mtok=2.0)
    dearer = Card("a", prompt_usd_per_mtok=1.0, completion_usd_per_mtok=2.5)
    digest = lineage.price_book_digest([card])
    assert digest == lineage.price_book_digest([other])
    assert digest != lineage.price_book_digest([dearer])
