"""A workspace of one's own questions, from `routerr1 init` to the table: what it takes, and what the policy is worth.

    python -m benchmarks.own_questions [--languages en de] [--seeds 2] [--warmstart-steps N] [--work FOLDER] [--out FILE]

A support desk asks 240 questions of three themes, and no topic is named. Four models on loopback answer them. Each is
good at one theme at most, and one of them says that it does not know where it would be wrong. Questions, models and
replies are made up, so their figures say nothing of real models. They say if a policy of a few minutes learns to read
look-ups of `@question` in a language that nothing was made for. `routerr1 init` makes the workspace and `dvc repro`
trains it, as a user would; with --work, both are kept.

Prints one JSON object; --out also writes it to OUT.json and the table to OUT.md, between the markers.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks import shared
from routerr1.evaluate.results import EvaluationTable
from routerr1.evaluate.rows import Row, read_rows
from routerr1.rollout.record import from_row
from routerr1.types import Ask, LookUp

MARKS = "<!-- table of own-questions.json -->", "<!-- end of the table -->"
PER_THEME = 80
SKILLS = {  # share of right replies by theme
    "Large": (0.9, 0.65, 0.55),
    "Medium": (0.3, 0.95, 0.3),
    "Small": (0.4, 0.2, 0.9),  # says that it does not know where it would be wrong
    "Tiny": (0.5, 0.35, 0.35),
}
PRICES = {"Large": 2.0, "Medium": 0.5, "Small": 0.3, "Tiny": 0.1}  # USD per million prompt tokens
ROUTERS = ("policy", "baseline/knn", "baseline/frugal", "best_single", "oracle")
_SHOWN = re.compile(r"\b([0-9]+)% (m[1-9][0-9]*)\b")
_CALLED = re.compile(r"<search>\s*(m[1-9][0-9]*):")


class Language(NamedTuple):
    """Words that make questions.

    Attributes:
        themes: for each theme its question in two wordings, what is asked about, and the answers; both are all
            pairs of two lists of words.
        unsure: the reply of a model that does not know.
    """

    themes: tuple[tuple[tuple[str, str], tuple[str, str], tuple[str, str]], ...]
    unsure: str


LANGUAGES = {
    "en": Language(
        (
            (
                ("Which carrier delivers parcels to {}?", "Who brings our goods to {}?"),
                ("Ash Birch Cold Deer East Fair Green High Iron Kings", "ford bury ton wick ham field gate mere port dale"),
                ("Swift Blue Star River Moor Sand Corn Light Lake Stone", "freight post haul cargo line van move ship road dash"),
            ),
            (
                ("Which spare part does error {} call for?", "What is broken when the display shows {}?"),
                ("A B C D E F H K P R", "11 12 23 24 35 36 47 48 59 60"),
                ("door drain feed heat lock main oven pump rinse spray", "-belt -coil -fan -filter -fuse -hose -motor -relay -seal -valve"),
            ),
            (
                ("Which tariff includes the option {}?", "What contract do I need to use {} for free?"),
                ("night home travel sport music film cloud game mail child", "pass pack plus box link guard call share card flat"),
                ("Comfort Smart Prime Giga Turbo Solo Duo Maxi Mini Pro", " Alpha, Beta, Delta, Sigma, Omega, Kappa, Gamma, Theta, Lambda, Zeta"),
            ),
        ),
        "Sorry, I don't know.",
    ),
    "de": Language(
        (
            (
                ("Welcher Paketdienst liefert Sendungen nach {}?", "Wer stellt in {} unsere Pakete zu?"),
                ("Alten Berg Eichen Franken Grün Hohen Kirch Linden Mühl Neuen", "burg dorf hausen heim berg feld stadt tal au bach"),
                ("Nord Wald Stern Fluss Moor Sand Korn Licht See Stein", "fracht bote eil kurier spedition post wagen lieferung trans express"),
            ),
            (
                ("Welches Ersatzteil muss bei Fehlercode {} getauscht werden?", "Welches Bauteil ist defekt, wenn die Anzeige {} meldet?"),
                ("A B C D E F H K P R", "11 12 23 24 35 36 47 48 59 60"),
                ("Tür Ablauf Zulauf Heiz Schloss Haupt Ofen Pumpen Spül Sprüh", "riemen spule lüfter filter sicherung schlauch motor relais dichtung ventil"),
            ),
            (
                ("In welchem Tarif ist die Option {} enthalten?", "Welchen Vertrag brauche ich, um {} kostenlos zu nutzen?"),
                ("Nacht Heim Reise Sport Musik Film Wolken Spiele Mail Kinder", "pass paket plus box netz schutz ruf teiler karte flat"),
                ("Komfort Smart Prima Giga Turbo Solo Duo Maxi Mini Profi", " Alpha, Beta, Delta, Sigma, Omega, Kappa, Gamma, Theta, Lambda, Zeta"),
            ),
        ),
        "Das weiß ich leider nicht.",
    ),
}  # fmt: skip


def main() -> None:
    """Make, train, print."""
    parser = shared.parser(__doc__)
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--warmstart-steps", type=int, help="in place of those that init writes")
    parser.add_argument("--work", type=Path, help="keeps the workspaces here")
    parser.add_argument("--out", type=Path, help="writes OUT.json and the table of OUT.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        runs = [
            play(work, language, seed, given.warmstart_steps)
            for language, seed in product(given.languages, range(1, given.seeds + 1))
        ]
    found = {"machine": shared.machine(), "warmstart_steps": given.warmstart_steps, "runs": runs}
    shared.report(found, given.out)
    if given.out:
        shared.fill(given.out.with_suffix(".md"), MARKS, table(runs))


def questions_of(language: Language) -> list[tuple[int, str, str]]:
    """(theme, question, answer) of `PER_THEME` questions for each theme, in an order of no meaning."""
    rng = Random(7)
    rows = []
    for theme, (wordings, subjects, answers) in enumerate(language.themes):
        about, said = (_pairs(*words, rng)[:PER_THEME] for words in (subjects, answers))
        rows += [
            (theme, rng.choice(wordings).format(subject), answer)
            for subject, answer in zip(about, said, strict=True)
        ]
    rng.shuffle(rows)
    return rows


def _pairs(heads: str, tails: str, rng: Random) -> list[str]:
    ends = tails.split(",") if "," in tails else tails.split()
    pairs = [head + end for head, end in product(heads.split(), ends)]
    return rng.sample(pairs, len(pairs))


def reply_of(model: str, question: str, rows: Sequence[tuple[int, str, str]], unsure: str) -> str:
    """What a model says: always the same to one question, whatever stands around it."""
    asked = [row for row in rows if row[1] in question]
    if not asked:
        return unsure
    theme, question, answer = asked[0]
    if _uniform("knows", model, question) < SKILLS[model][theme]:
        return f"{answer}."
    if model == "Small":
        return unsure
    wrong = [other for of_theme, _, other in rows if of_theme == theme and other != answer]
    return f"{wrong[int(_uniform('wrong', model, question) * len(wrong))]}."


def _uniform(*names: str) -> float:
    return int(hashlib.sha256("|".join(names).encode()).hexdigest()[:8], 16) / 2**32


@contextmanager
def served(rows: Sequence[tuple[int, str, str]], unsure: str) -> Iterator[str]:
    """The models behind an OpenAI-compatible server on loopback; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            question = asked["messages"][-1]["content"]
            said = reply_of(asked["model"], question, rows, unsure)
            message = {"role": "assistant", "content": said}
            tokens = len(question) // 4, len(said) // 4 + 1
            body = json.dumps(
                {
                    "id": "x", "object": "chat.completion", "created": 0, "model": asked["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
                }
            ).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def play(work: Path, name: str, seed: int, warmstart_steps: int | None) -> dict[str, Any]:
    """One workspace, from questions to the table.

    Raises: CalledProcessError with the output of a command that fails.
    """
    language = LANGUAGES[name]
    rows = questions_of(language)
    with served(rows, language.unsure) as address:
        folder = work / f"{name}-{seed}"
        inputs = work / f"{name}-{seed}-inputs"
        inputs.mkdir()
        questions, pool = inputs / "questions.jsonl", inputs / "models.yaml"
        lines = [{"ask": question, "gold": answer} for _, question, answer in rows]
        questions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        pool.write_text(_pool_file(address), encoding="utf-8")
        routerr1 = Path(sys.executable).with_name("routerr1")
        _run(
            [routerr1, "init", folder, "--questions", questions, "--question", "ask", "--answers", "gold",
             "--pool", pool],
            work,
        )  # fmt: skip
        params = folder / "params.yaml"
        changed = re.sub(r"(?m)^seeds: \[1\]", f"seeds: [{seed}]", params.read_text("utf-8"))
        if warmstart_steps is not None:
            changed = re.sub(r"(warmstart:\n  steps: )[0-9]+", rf"\g<1>{warmstart_steps}", changed)
        params.write_text(changed, encoding="utf-8")
        began = time.monotonic()
        _run([sys.executable, "-m", "dvc", "repro"], folder)
        seconds = time.monotonic() - began
    made = {"name": folder.name, "language": name, "seed": seed, "seconds": round(seconds, 1)}
    return {**made, **figures_of(folder)}


def figures_of(workspace: Path) -> dict[str, Any]:
    """What the evaluation of a workspace found."""
    evaluation = workspace / "data" / "eval"
    evaluated = EvaluationTable.model_validate_json((evaluation / "table.json").read_text("utf-8"))
    played = [row for row in read_rows(evaluation / "rows.parquet") if row.router == "policy"]
    return {
        "n": evaluated.n,
        "best_single": sorted(set(evaluated.best_single.values())),
        "em": {
            entry.router: {"mean": entry.em.mean, "low": entry.em.low, "high": entry.em.high}
            for entry in evaluated.routers
            if entry.router in ROUTERS
        },
        "format_valid": sum(row.format_valid for row in played) / len(played),
        "best_shown": _best_shown(played),
    }


def _run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def _pool_file(address: str) -> str:
    candidates = "".join(
        f"  - {{name: {name}, endpoint: here, model: {name}, prompt_usd_per_mtok: {price}, "
        f"completion_usd_per_mtok: {3 * price:.1f}, context_window: 8192}}\n"
        for name, price in PRICES.items()
    )
    return (
        "prices: {as_of: 2026-12-01, source: made up}\n"
        f"endpoints:\n  here: {{base_url: {address}}}\ncandidates:\n{candidates}"
    )


def _best_shown(rows: Sequence[Row]) -> float | None:
    """Share of calls to a candidate with the highest figure of the look-up before."""
    hits = []
    for row in rows:
        shown: Mapping[str, int] = {}
        for turn in from_row(json.loads(row.trajectory)).turns:
            if isinstance(turn.action, LookUp):
                shown = {
                    handle: int(figure) for figure, handle in _SHOWN.findall(turn.inserted or "")
                }
            called = _CALLED.search(turn.generation.text)
            if isinstance(turn.action, Ask) and called and shown:
                hits.append(shown.get(called[1]) == max(shown.values()))
    return sum(hits) / len(hits) if hits else None


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """A row for each run."""
    heads = [
        "Language",
        "Seed",
        "Policy",
        "kNN",
        "FrugalGPT",
        "Best single model",
        "Oracle",
        "Format",
        "Best shown called",
        "Minutes",
    ]
    lines = [
        [
            run["language"], str(run["seed"]),
            *(shared.ranged(run["em"][name]) if name in run["em"] else "" for name in ROUTERS),
            f"{run['format_valid']:.2f}", "" if run["best_shown"] is None else f"{run['best_shown']:.2f}",
            f"{run['seconds'] / 60:.1f}",
        ]
        for run in runs
    ]  # fmt: skip
    return shared.table(heads, lines)


if __name__ == "__main__":
    main()
