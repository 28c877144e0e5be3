"""A small chain in a folder of its own: real git, real DVC, one stage whose outputs a version is made of.

The checkpoint's weights are not a model; what is tested with it is everything around the model.
"""

import subprocess
import sys
from pathlib import Path

import yaml

from routerr1.config import Params, load_params
from routerr1.data.splits import write_questions
from routerr1.pool.cards import write_cards
from routerr1.simulation.candidates import default_candidates
from routerr1.train.checkpoint import save_policy
from routerr1.types import Card, Question

ROOT = Path(__file__).parent.parent

FIGURES: dict[str, float | str] = {
    "right": 0.6,  # share of questions answered right
    "unseen": 0.6,  # likewise with new models
    "cost": 0.001,  # USD of a question
    "asks": "question",  # what every question begins with
    "price": 0.1,  # of a candidate
    "size": 10,  # of the weights
}

MAKE = '''
"""Writes what the stages leave, by the figures in made.yaml."""
import hashlib, json, sys
from dataclasses import asdict
from pathlib import Path
import yaml
from routerr1.evaluate.rows import Row, write_rows
from routerr1.files import write_json
from routerr1.pool.cards import write_cards
from routerr1.types import Card

params = {**FIGURES, **yaml.safe_load(Path("made.yaml").read_text())}
policy = Path("models/policy")
policy.mkdir(parents=True)
(policy / "config.json").write_text("{}")
(policy / "model.safetensors").write_bytes(str(params).encode() * params["size"])
sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(policy.iterdir())}
write_json(policy / "routerr1.json", {"files": sums, "prompt": "p1", "seed": 1})

def rows(pool, right):
    return [
        Row(pool=pool, router="policy", seed=1, question_id=f"q{i}", dataset="embedded", question=f"{params['asks']} {i}?",
            group=f"g{i // 2}", hops=1, topic="money", answer="x", em=float(i < right * 40), f1=0.5,
            format_valid=True, cost_usd=params["cost"], calls=1, failures=0, prompt_tokens=1,
            completion_tokens=1, policy_tokens=1, latency_s=0.1, called=["Atlas" if i % 2 else "Mint"],
            best_calls=1, judged_calls=1, trajectory='{"question": {"golden_answers": ["x"]}}')
        for i in range(40)
    ]

write_rows(Path("data/eval/rows.parquet"), rows("training", params["right"]))
write_rows(Path("data/generalize/rows.parquet"), [
    *rows("drawn", params["unseen"]), *rows("all_renamed", 1.0),
])
write_cards(Path("data/pool/cards.json"), [Card("Atlas", prompt_usd_per_mtok=params["price"]), Card("Mint")])
Path("data/questions").mkdir(parents=True)
Path("data/questions/train.parquet").write_bytes(b"q")
write_json(Path("data/train/results.json"), {"train_cost_usd": 0.5, "seed_1": {"validation/em": 0.7}})
write_json(Path("data/train/run.json"), {"training": "0" * 15 + str(params["size"] % 10)})
'''

STAGE = f"""
stages:
  make:
    cmd: {sys.executable} make.py
    deps: [make.py]
    params:
    - made.yaml:
    outs: [models/policy, data/eval, data/generalize, data/pool, data/questions, data/train]
"""


def make_chain(folder: Path) -> Params:
    """Set up the repository in `folder` (the working directory) and give its parameters."""
    for name in ("params.yaml", "presets"):
        source = ROOT / name
        target = folder / name
        if source.is_dir():
            target.mkdir()
            for file in source.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
        else:
            text = source.read_text(encoding="utf-8")
            text = text.replace("preset: embedded", "preset: simulated", 1)
            # The rows that `make.py` writes hold no best-on-cards and no other router.
            for rule in (
                "min_worst_change: 0.8",
                "margin_best_single: 0.02",
                "margin_best_learned: 0.05",
            ):
                assert rule in text
                text = text.replace(rule, f"{rule.partition(':')[0]}: null")
            target.write_text(text)
    (folder / "make.py").write_text(MAKE.replace("FIGURES", repr(FIGURES)))
    (folder / "dvc.yaml").write_text(STAGE)
    (folder / ".gitignore").write_text("/runs/\n/mlflow.db*\n/mlruns/\n")
    _run("git", "init", "-q", "-b", "main")
    dvc("init", "-q")
    dvc("config", "core.analytics", "false")
    make_outputs()
    return load_params()


def make_outputs(**made: float | str) -> None:
    """Run the stage with these figures, see `FIGURES`, and commit the result."""
    Path("made.yaml").write_text(yaml.safe_dump({"right": FIGURES["right"], **made}))
    dvc("repro")
    _run("git", "add", ".")
    _commit(f"{made}")


def put_policy(policy: Path, price: float = 0.0) -> None:
    """A real checkpoint in the place of the made one, with the cards it knows and the questions that were made."""
    save_policy(policy, Path("models/policy"), {"seed": 1})
    cards = [Card(each.name, prompt_usd_per_mtok=price) for each in default_candidates()]
    write_cards(Path("data/pool/cards.json"), cards)
    asks = FIGURES["asks"]
    rows = [Question(f"q{i}", "embedded", f"{asks} {i}?", ("x",), "test") for i in range(40)]
    write_questions(Path("data/questions"), rows)
    dvc("commit", "-f", "-q")


def commit_nothing() -> None:
    """Another commit of the same outputs."""
    _commit("nothing", "--allow-empty")


def commit_all(message: str) -> None:
    """Commit everything in the working folder."""
    _run("git", "add", ".")
    _commit(message)


def _commit(message: str, *options: str) -> None:
    _run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message, *options)


def dvc(*words: str) -> None:
    """In this process: importing DVC takes longer than most of what it does here."""
    from dvc.cli import main

    assert main(list(words)) == 0, words


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
