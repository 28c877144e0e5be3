"""`routerr1 init` makes a workspace outside the clone in which the stages run on own questions and models."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.cli.app import app
from routerr1.cli.scaffold import VERSION_FILE, Own, make_workspace, require_version, shares_of
from routerr1.config import ColumnsParams, Params, load_params
from routerr1.data.embedded import build_world, questions
from routerr1.data.splits import read_file
from routerr1.errors import ConfigError, DataError, PoolError
from routerr1.evaluate.results import EvaluationTable
from routerr1.files import read_yaml
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from tests.servers import write_pool_file

ROOT = Path(__file__).parents[2]
COLUMNS = ColumnsParams(
    id=None, question="text", golden_answers="solution", metadata=None, separator="|"
)
FOUR = ("Goliath", "Atlas", "Mint", "Curie")


@pytest.fixture(scope="module")
def own(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 questions of three topics as a team has them: text and solution in a CSV file."""
    section = params.dataset.embedded
    rows = [row for row in questions(build_world(section), section, 42) if row.hops == 1]
    path = tmp_path_factory.mktemp("own") / "Support tickets.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "solution"])
        for topic in ("chemistry", "geography", "money"):
            chosen = [row for row in rows if row.metadata["topic"] == topic][:20]
            writer.writerows([row.question, "|".join(row.golden_answers)] for row in chosen)
    return path


@pytest.fixture
def git_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a git identity, as a new laptop is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture(scope="module")
def pool_file(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four models behind a real server on loopback."""
    four = tuple(each for each in default_candidates() if each.name in FOUR)
    pool = SimulatedPool(four, known_facts(build_world(params.dataset.embedded)), seed=7)
    with serving(build_app(pool, time_scale=0)) as url:
        yield write_pool_file(tmp_path_factory.mktemp("pool") / "models.yaml", url, four)


@pytest.mark.usefixtures("git_user")
def test_a_workspace_holds_what_the_stages_need(own: Path, pool_file: Path, tmp_path: Path):
    folder = tmp_path / "ws"
    made = make_workspace(folder, Own(own, COLUMNS, pool_file))
    assert made.imported is not None
    assert made.imported.rows.total() == 60
    loaded = load_params(folder / "params.yaml")
    assert loaded.looks_up_questions
    assert (loaded.pool.calls, loaded.pool.store) == ("record", Path("data/calls/mine.jsonl"))
    assert "/data/calls/" in (folder / ".gitignore").read_text()
    assert [str(path) for path in loaded.dataset.imported] == [
        "data/imported/support_tickets.parquet"
    ]
    held = list(read_file(folder / "data/imported/support_tickets.parquet"))
    assert {row.metadata["matching"] for row in held} == {"text"}
    assert (folder / "pools/mine.yaml").read_bytes() == pool_file.read_bytes()
    status = subprocess.run(
        ["git", "status", "--short"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
    assert (folder / "data/imported/support_tickets.parquet.dvc").is_file()
    assert ".env" in (folder / ".gitignore").read_text()


@pytest.mark.usefixtures("git_user")
def test_inside_a_repository_init_names_the_one_that_it_commits_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert "was committed" not in CliRunner().invoke(app, ["init", "alone"]).output
    subprocess.run(["git", "init", "-q", "team"], check=True)
    (tmp_path / "team/notes.txt").write_text("not of the workspace")
    said = CliRunner().invoke(app, ["init", "team/ws"]).output
    team = (tmp_path / "team").resolve()
    assert f"team/ws: was committed to the git repository around it, {team}\n" in said
    listed = ["git", "ls-files"]
    tracked = subprocess.run(listed, cwd=team, capture_output=True, text=True, check=True).stdout
    assert "ws/dvc.yaml" in tracked
    assert "notes.txt" not in tracked


def at_a_terminal(command: list[str], answers: Mapping[str, list[str]]) -> tuple[int, str]:
    """Run a command in a pseudo-terminal; each prompt gets the next of its answers.

    Returns: the exit status, and what was on the screen.
    """
    left = {prompt: list(given) for prompt, given in answers.items()}
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(terminal)
    said, read = "", 0
    with suppress(OSError):  # the terminal is gone with its last user
        while part := os.read(master, 4096):
            said += part.decode(errors="replace")
            if asked := next((each for each in left if said[read:].endswith(each)), None):
                read = len(said)
                os.write(master, f"{left[asked].pop(0)}\n".encode())
    os.close(master)
    assert not any(left.values()), left
    return process.wait(), said.replace("\r\n", "\n")


INIT = [sys.executable, "-c", "from routerr1.cli.app import main; main()", "init"]


@pytest.mark.usefixtures("git_user")
def test_at_a_terminal_it_asks_for_what_is_missing_and_again_after_a_mistake(
    own: Path, pool_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/tickets.csv").write_bytes(own.read_bytes())
    status, said = at_a_terminal([*INIT, "ws"], {
        "File of your questions (empty: later): ": ["tickets.csv", "~/tickets.csv"],
        "Pool file of your models (empty: later): ": [str(pool_file)],
        "Column of the question [question]: ": ["", "text"],
        "Column of the answers [answers]: ": ["solution"],
    })  # fmt: skip
    assert status == 0, said
    assert "Error: tickets.csv: not found\n" in said
    assert "tickets.csv: no column 'question' (there are: text, solution)\n" in said
    assert "data/imported/tickets.parquet: 60 questions" in said
    assert said.count("ws: is a workspace. Next:") == 1
    assert (tmp_path / "ws/pools/mine.yaml").read_bytes() == pool_file.read_bytes()


@pytest.mark.usefixtures("git_user")
def test_at_a_terminal_all_may_be_left_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    later = {
        "File of your questions (empty: later): ": [""],
        "Pool file of your models (empty: later): ": [""],
    }
    status, said = at_a_terminal([*INIT, "ws"], later)
    assert status == 0, said
    assert "  edit pools/mine.yaml " in said
    assert "  routerr1 data import FILE" in said
    status, said = at_a_terminal([*INIT, "ws"], {})  # nothing is asked for a folder that is taken
    assert (status, said) == (2, "routerr1: ws: is not empty; name a new folder\n")


@pytest.mark.usefixtures("git_user")
def test_stages_parameters_and_deployments_are_the_repository_s(tmp_path: Path):
    folder = tmp_path / "ws"
    make_workspace(folder, Own())
    ours, own = read_yaml(ROOT / "dvc.yaml"), read_yaml(folder / "dvc.yaml")
    assert list(own["stages"]) == list(ours["stages"])
    for name, stage in own["stages"].items():
        same = ours["stages"][name]
        assert {k: stage[k] for k in ("cmd", "params", "outs")} == {
            k: same[k] for k in ("cmd", "params", "outs")
        }
        assert not any(dep.startswith("routerr1/") for dep in stage["deps"])
        assert stage["deps"][0] == str(VERSION_FILE)
    theirs, mine = load_params(ROOT / "params.yaml"), load_params(folder / "params.yaml")
    assert mine.registry == theirs.registry
    train = mine.train
    assert train.steps * train.questions_per_step * train.rollouts_per_question == 120 * 24 * 8
    assert mine.checks.max_question_chars == mine.serve.max_question_chars
    assert (mine.pool.kind, mine.pool.budget.run_usd, mine.model) == ("http", 5.0, theirs.model)
    lines = (ROOT / "params.yaml").read_text().splitlines()
    comments = [line.partition("#")[2] for line in lines if "#" in line]
    text = (folder / "params.yaml").read_text()
    assert len([comment for comment in comments if comment in text]) > 0.9 * len(comments)
    deployments = read_yaml(folder / "prefect.yaml")["deployments"]
    for one, other in zip(
        read_yaml(ROOT / "prefect.yaml")["deployments"], deployments, strict=True
    ):
        module, _, flow = one["entrypoint"].partition(".py:")
        assert other["entrypoint"] == f"{module.replace('/', '.')}.{flow}"


def test_another_version_than_the_stages_depend_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    require_version()
    VERSION_FILE.write_text("0.0.1\n")
    with pytest.raises(ConfigError, match=r"routerr1\.version: names 0\.0\.1, and .* is installed"):
        require_version()


@pytest.mark.usefixtures("git_user")
def test_what_cannot_be_used_leaves_no_folder(own: Path, tmp_path: Path):
    few = tmp_path / "few.csv"
    few.write_text("text,solution\n" + "".join(f"Question {n}?,{n}\n" for n in range(10)))
    with pytest.raises(DataError, match="10 questions are too few"):
        make_workspace(tmp_path / "ws", Own(few, COLUMNS))
    with pytest.raises(DataError, match="no column"):
        make_workspace(tmp_path / "ws", Own(own, COLUMNS.replace(question="frage")))
    bad = tmp_path / "bad.yaml"
    bad.write_text("candidates: []\n")
    with pytest.raises(PoolError, match=r"bad\.yaml"):
        make_workspace(tmp_path / "ws", Own(own, COLUMNS, bad))
    assert not (tmp_path / "ws").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ConfigError, match="full: is not empty"):
        make_workspace(tmp_path / "full", Own())


def test_a_missing_file_is_named_before_its_columns(tmp_path: Path):
    words = ["init", str(tmp_path / "ws"), "--questions", str(tmp_path / "none.csv")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert "none.csv: not found" in str(done.exception)


def test_shares_leave_something_to_test_on():
    assert [round(share, 2) for share in shares_of(1000)] == [0.2, 0.1]
    assert [round(share, 2) for share in shares_of(20)] == [0.4, 0.2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("git_user")
def test_own_questions_become_a_registered_policy(own: Path, pool_file: Path, tmp_path: Path):
    """The commands of a new user, outside the clone, with real DVC and a live pool."""
    folder = tmp_path / "ws"
    tools = str(Path(sys.executable).parent)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tools}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": "", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip

    def run(*command: str, cwd: Path = folder) -> str:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    routerr1 = (sys.executable, "-m", "routerr1.cli")
    said = run(
        *routerr1, "init", "ws", "--questions", str(own), "--question", "text", "--answers", "solution",
        "--separator", "|", "--pool", str(pool_file), cwd=tmp_path,
    )  # fmt: skip
    assert "topics found: " in said
    params = (folder / "params.yaml").read_text()
    for key, few in (
        ("steps: 900", "steps: 60"),
        ("steps: 120", "steps: 2"),
        ("bootstrap: 10000", "bootstrap: 200"),
        ("questions_per_step: 24", "questions_per_step: 4"),
        ("validation_questions: 240", "validation_questions: 12"),
    ):
        assert params.count(f"  {key}") == 1
        params = params.replace(f"  {key}", f"  {few}")
    params, count = re.subn(r"(?m)^  include: \[.*?\]", "  include: [knn]", params)
    assert count == 1
    (folder / "params.yaml").write_text(params)
    run("dvc", "repro")
    table = EvaluationTable.read(folder / "data/eval/table.json")
    assert table.has_policy
    calls = (folder / "data/calls/mine.jsonl").read_text().splitlines()
    assert (
        len(calls) >= 60 * 4
    )  # every question to every candidate; what was asked again is noted too
    oracle, best = table.router("oracle").em.mean, table.router("best_single").em.mean
    assert oracle >= table.router("baseline/knn").em.mean >= best - 0.2
    cards = json.loads((folder / "data/pool/cards.json").read_text())
    assert len(cards[0]["performance"]) > 1  # by the topics that were found
    run("git", "add", ".")
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "trained")
    # The policy as a version brings along what its look-ups rest on.
    assert "version 1" in run(*routerr1, "register")
    (folder / "data/pool/matrix.parquet").rename(folder / "elsewhere.parquet")
    asked = (
        "import mlflow\n"
        "model = mlflow.pyfunc.load_model('models:/routerr1/1')\n"
        "(found,) = model.predict(['What is the capital of Peru?'])\n"
        "print(found['trajectory']['text'])\n"
    )
    said = run(sys.executable, "-c", asked)
    assert "<think>" in said
