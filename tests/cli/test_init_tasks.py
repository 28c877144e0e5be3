"""Every task from `init` to `advise` in one workspace, and questions or pools that teach nothing."""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routerr1.answers.sandbox import can_confine
from routerr1.cli.app import app
from routerr1.errors import DataError, RouterError
from routerr1.evaluate.rows import Row, read_rows
from routerr1.pool.profile import read_probes
from tests.chat_server import Says, chatting, write_pool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
N = 20  # questions of a task
NAMES = [
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gus",
    "Hal",
    "Ida",
    "Jo",
    "Kim",
    "Leo",
    "Mia",
    "Ned",
    "Ola",
    "Pam",
    "Quin",
    "Ray",
    "Sue",
    "Tom",
]
CITIES = ["Rome", "Paris", "Bonn", "Oslo", "Lima", "Cairo", "Quito", "Delhi", "Seoul", "Tokyo", "Accra", "Minsk", "Riga", "Sofia", "Tunis", "Vaduz", "Malé", "Dakar", "Praia", "Suva"]  # fmt: skip


def write_sets(folder: Path) -> dict[str, dict[str, str]]:
    """Six files, one for each task; gives task -> question as asked -> a right reply."""
    right: dict[str, dict[str, str]] = {}
    rows = [(f"Where does the office of {n} lie?", c) for n, c in zip(NAMES, CITIES, strict=True)]
    with (folder / "short.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ask", "gold"), *rows])
    right["short"] = {ask: f"It lies in {gold}." for ask, gold in rows}
    right["choice"] = {}
    with (folder / "mmlu.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("question", "A", "B", "C", "D", "answer"))
        for place, name in enumerate(NAMES):
            options = [CITIES[(place + step) % N] for step in range(4)]
            letter = "ABCD"[place % 4]
            ask = f"Which town did the explorer {name} found?"
            writer.writerow((ask, *options, letter))
            shown = " ".join(f"{a}) {b}" for a, b in zip("ABCD", options, strict=True))
            right["choice"][f"{ask} {shown}"] = f"The answer is {letter}."
    gsm = [(f"{name} has {p + 2} apples and buys {p + 3} more. How many apples are there?", 2 * p + 5) for p, name in enumerate(NAMES)]  # fmt: skip
    (folder / "gsm8k.jsonl").write_text("\n".join(json.dumps({"question": q, "answer": f"Add them.\n#### {n}"}) for q, n in gsm))  # fmt: skip
    right["number"] = {q: f"That makes {n} apples." for q, n in gsm}
    chats, right["long"] = [], {}
    for name, city in zip(NAMES, CITIES, strict=True):
        said = [
            {"role": "user", "content": f"I ordered the {name} lamp from {city}, and it flickers."},
            {"role": "assistant", "content": "I am sorry. What would you like to know?"},
            {"role": "user", "content": "How do I send it back?"},
            {"role": "assistant", "content": f"Print the return label from your account, stick it on the box with the {name} lamp, and hand it to the depot in {city}."},
        ]  # fmt: skip
        chats.append(json.dumps({"messages": said}))
        asked = "\n".join(f"{each['role']}: {each['content']}" for each in said[:3])
        right["long"][asked] = (
            f"You find a return label in your account. Print it, put it on the box of the {name} lamp and bring "
            f"that to the depot in {city}."
        )
    (folder / "chats.jsonl").write_text("\n".join(chats))
    code = [(f"Write a function f{p} that adds {p} to its argument.", [f"assert f{p}(1) == {p + 1}", f"assert f{p}(-2) == {p - 2}"]) for p in range(N)]  # fmt: skip
    (folder / "mbpp.jsonl").write_text(
        "\n".join(json.dumps({"text": q, "test_list": tests}) for q, tests in code)
    )
    right["code"] = {q: f"```python\ndef f{p}(x):\n    return x + {p}\n```" for p, (q, _) in enumerate(code)}  # fmt: skip
    poems = [(f"Write a line of verse about {name} and the moss.", "It names the moss.") for name in NAMES]  # fmt: skip
    (folder / "poems.jsonl").write_text("\n".join(json.dumps({"ask": q, "gold": g}) for q, g in poems))  # fmt: skip
    right["judge"] = {q: "Upon the moss the evening fell." for q, _ in poems}
    return right


def referee(prompt: str) -> str:
    """A judge that asks for the word moss."""
    new = re.search(r"Is answer (\w) right", prompt)
    yes, no = re.search(r"(\w) if answer", prompt), re.search(r"(\w) if it is wrong", prompt)
    assert new
    assert yes
    assert no
    said = re.search(rf"^Answer {new[1]}:\n((?:> .*\n?)+)", prompt, re.MULTILINE)
    assert said
    return yes[1] if "moss" in said[1] else no[1]


def says(right: dict[str, dict[str, str]]) -> Says:
    """Small is right on short, number and code, Large on choice, long and judge."""
    good = {"Small": ("short", "number", "code"), "Large": ("choice", "long", "judge")}

    def reply(model: str, prompt: str) -> str:
        if model == "Referee":
            return referee(prompt)
        known = {q: a for task in good[model] for q, a in right[task].items()}
        return known.get(prompt, "I do not know.")

    return reply


@pytest.mark.skipif(not can_confine(), reason="needs unshare and Landlock")
def test_a_set_of_every_task_goes_from_init_to_advise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    right = write_sets(tmp_path)
    folder = tmp_path / "ws"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with chatting(says(right)) as url:
        pool = write_pool(tmp_path / "models.yaml", url, {"Small": 0.1, "Large": 1.0})
        invoked(
            "init", str(folder), "--questions", str(tmp_path / "short.csv"), "--question", "ask",
            "--answers", "gold", "--pool", str(pool),
        )  # fmt: skip
        monkeypatch.chdir(folder)
        write_pool(folder / "pools/mine-judge.yaml", url, {"Referee": 0.5})
        for name, task, file, question, answers, more in (
            ("mmlu", "choice", "mmlu.csv", "question", "answer", ("--options", "A,B,C,D")),
            ("gsm8k", "number", "gsm8k.jsonl", "question", "answer", ("--marker", "####")),
            ("chats", "long", "chats.jsonl", "messages", "messages", ()),
            ("mbpp", "code", "mbpp.jsonl", "text", "test_list", ()),
            ("poems", "judge", "poems.jsonl", "ask", "gold", ()),
        ):
            invoked(
                "data", "import", str(tmp_path / file), "--name", name, "--question", question,
                "--answers", answers, "--task", task, "--no-meaning", "--test", "0.4", "--validation", "0.2", *more,
            )  # fmt: skip
        params = (folder / "params.yaml").read_text()
        changes = {
            r"imported: \[.*?\]": "imported: [" + ", ".join(f"data/imported/{n}.parquet" for n in ("short", "mmlu", "gsm8k", "chats", "mbpp", "poems")) + "]",
            r"(?m)^  init: \S+": "  init: none",
            r"bootstrap: \d+": "bootstrap: 200",
            r"near_duplicate: \S+": "near_duplicate: 1.0",  # the questions are templates
            r"(?m)^  code: null": "  code: {time_s: 5}",
            r"(?m)^  judge: null": "  judge: {file: pools/mine-judge.yaml, candidate: Referee, budget_usd: 1}",
            r"(?m)^  include: \[.*?\]": "  include: [knn]",
        }  # fmt: skip
        for pattern, text in changes.items():
            params, count = re.subn(pattern, text, params, count=1)
            assert count == 1, pattern
        (folder / "params.yaml").write_text(params)
        said = advised()
    assert "Use " in said
    rows = [row for row in read_rows(folder / "data/eval/rows.parquet") if row.router.startswith("fixed/")]  # fmt: skip
    shares = shares_of(rows)
    good = {"short", "gsm8k", "mbpp"}
    assert {name for name, _ in shares} == {"short", "mmlu", "gsm8k", "chats", "mbpp", "poems"}
    assert shares == {
        (dataset, router): float((router == "fixed/Small") == (dataset in good))
        for dataset, router in shares
    }
    probed = read_probes(folder / "data/pool/matrix.parquet")
    assert {row["correct"] for row in probed if row["candidate"] == "Large" and row["dataset"] in good} == {0.0}  # fmt: skip
    assert {row["correct"] for row in probed if row["candidate"] == "Small" and row["dataset"] in good} == {1.0}  # fmt: skip
    judged = (folder / "data/calls/judge.jsonl").read_text().splitlines()
    assert 0 < len(judged) < 200
    assert (folder / "data/report/index.html").is_file()


def shares_of(rows: list[Row]) -> dict[tuple[str, str], float]:
    """EM by data set and router."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row.dataset, row.router), []).append(row.em)
    return {key: sum(values) / len(values) for key, values in found.items()}


STAGES = ("dataset", "checks", "profile", "warmstart", "train", "evaluate", "generalize", "report")


@contextmanager
def workspace(
    folder: Path, rows: list[tuple[str, str, str]], reply: Says, prices: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:  # fmt: skip
    """A workspace in the working directory, with a live pool."""
    file = folder / "own.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("ask", "gold", "kind"), *rows])
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with chatting(reply) as url:
        pool = write_pool(folder / "models.yaml", url, prices)
        words = ["init", str(folder / "ws"), "--questions", str(file), "--question", "ask", "--answers", "gold", "--topic", "kind", "--pool", str(pool)]  # fmt: skip
        invoked(*words)
        monkeypatch.chdir(folder / "ws")
        params = Path("params.yaml").read_text()
        for pattern, text in (
            (r"(?m)^  init: \S+", "  init: none"), (r"bootstrap: \d+", "bootstrap: 200"),
            (r"(?m)^  include: \[.*?\]", "  include: [knn, frugal]"),
        ):  # fmt: skip
            params = re.sub(pattern, text, params, count=1)
        Path("params.yaml").write_text(params)
        yield


def invoked(*words: str) -> str:
    """What a command prints; in this process, as each import of the stages takes seconds."""
    done = CliRunner().invoke(app, words)
    if done.exception is not None and done.exit_code != 0:
        raise done.exception
    return done.output


def advised() -> str:
    """What `advise` says after all stages."""
    for stage in STAGES:
        invoked(stage)
    return " ".join(invoked("advise").split())


def tickets(count: int, kinds: int) -> list[tuple[str, str, str]]:
    """Questions of some topics, each with an answer of its own."""
    topics = ["the invoice of", "the parcel for", "the password of"][:kinds]
    return [
        (f"What is the number of {topics[n % kinds]} customer {CITIES[n % 20]} {n}?", f"X{n:03}", topics[n % kinds].split()[1])
        for n in range(count)
    ]  # fmt: skip


def knows(rows: list[tuple[str, str, str]], who: dict[str, tuple[str, ...]]) -> Says:
    """Each model knows the answers of some topics."""
    golds = {ask: (gold, kind) for ask, gold, kind in rows}

    def reply(model: str, prompt: str) -> str:
        gold, kind = golds[prompt]
        return f"It is {gold}." if kind in who[model] else "I do not know."

    return reply


ALL = ("invoice", "parcel", "password")


@pytest.mark.parametrize(
    ("rows", "who", "said"),
    [
        pytest.param(tickets(60, 1), {"Alpha": ALL, "Beta": ()}, "Use one model for all questions: Alpha", id="one topic"),
        pytest.param(tickets(60, 3), {"Alpha": ALL}, "Use one model for all questions: Alpha", id="one candidate"),
        pytest.param(tickets(60, 3), {"Alpha": ALL, "Beta": ALL}, "Use one model for all questions: Alpha", id="all equal"),
        pytest.param(tickets(20, 3), {"Alpha": ("invoice",), "Beta": ALL}, "8 independent test questions are too few", id="20 questions"),
    ],
)  # fmt: skip
def test_what_teaches_nothing_ends_in_a_sensible_sentence(
    rows: list[tuple[str, str, str]], who: dict[str, tuple[str, ...]], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    prices = {name: 0.1 * 10**place for place, name in enumerate(who)}
    with workspace(tmp_path, rows, knows(rows, who), prices, monkeypatch):
        found = advised()
    assert said in found
    if len(rows) == 20:
        assert "Undecided" in found


def test_questions_without_answers_leave_no_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [(ask, "", kind) for ask, _, kind in tickets(30, 3)]
    with (
        pytest.raises(
            (DataError, RouterError), match="no usable row; 30 refused: there is no answer"
        ),
        workspace(tmp_path, rows, lambda *_: "x", {"A": 0.1}, monkeypatch),
    ):
        pass
    assert not (tmp_path / "ws").exists()
