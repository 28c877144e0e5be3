"""How well questions from outside are recognised: `baselines/likeness.py` on eight sets of questions.

For every set in turn, 120 of its questions are the known ones, as after a profile of 120 probes. Others
of the same set ought to pass, and the questions of all other sets ought to be found unlike. The first set
is the embedded benchmark; the others are real questions that people or annotators wrote:

    python -m benchmarks.outside --questions FOLDER [--out STEM]

FOLDER holds SET/test.jsonl with a `question` each, such as the seven sets of the paper. Prints one JSON
object; --out also writes it, with a table as Markdown and a plot of the curves.

"Found" is the share of outside questions below the limit, "false alarms" the share of the set's own. AUROC is
the chance that an own question is nearer to a known one than an outside question is; .5 is a guess.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks import shared
from routerr1.baselines.embed import embedder
from routerr1.baselines.likeness import usual_similarity
from routerr1.config import load_params
from routerr1.data.embedded import build_world, questions

# Questions of a set: known, its own others, of each other set.
KNOWN, HELD_OUT, OUTSIDE = 120, 200, 60
FEWEST = 50  # of its own others that a set needs as the known one
EMBEDDED = "embedded"


def main() -> None:
    """Parse, embed, print."""
    parser = shared.parser(__doc__)
    parser.add_argument("--questions", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="writes OUT.json, OUT.md and OUT.svg")
    given = parser.parse_args()
    sets = {EMBEDDED: embedded_questions(), **read_sets(given.questions)}
    found, curves = compared(sets, given.seed)
    shared.report(found, given.out, page(found))
    if given.out:
        plot(curves, given.out.with_suffix(".svg"))


def embedded_questions() -> list[str]:
    """All of the default benchmark, by its parameters."""
    params = load_params(Path("params.yaml")).dataset
    world = build_world(params.embedded)
    return [question.question for question in questions(world, params.embedded, params.seed)]


def read_sets(folder: Path) -> dict[str, list[str]]:
    """Questions by name of the set."""
    return {
        path.parent.name: [
            json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in sorted(folder.glob("*/test.jsonl"))
    }


def compared(
    sets: Mapping[str, Sequence[str]], seed: int
) -> tuple[dict[str, Any], dict[str, tuple[NDArray[Any], NDArray[Any]]]]:
    """Figures of every set as the known one, and the similarities of its own and of outside questions."""
    rng = Random(seed)
    drawn = {
        name: rng.sample(list(dict.fromkeys(found)), min(KNOWN + HELD_OUT, len(set(found))))
        for name, found in sets.items()
    }
    encode = embedder("minilm", seed).embed
    vectors = {name: encode(found) for name, found in drawn.items()}
    figures, curves = {}, {}
    for name, own in vectors.items():
        known, held_out = own[:KNOWN], own[KNOWN:]
        if len(held_out) < FEWEST:
            continue
        others = np.concatenate(
            [each[:OUTSIDE] for other, each in vectors.items() if other != name]
        )
        inside, outside = ((each @ known.T).max(1) for each in (held_out, others))
        limit = usual_similarity(known)
        curves[name] = inside, outside
        figures[name] = {
            "own": len(inside),
            "outside": len(outside),
            "limit": limit,
            "auroc": float((inside[:, None] > outside).mean()),
            "found": float((outside < limit).mean()),
            "false_alarms": float((inside < limit).mean()),
        }
    return {"known": KNOWN, "seed": seed, "sets": figures}, curves


def page(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Questions from outside",
        "",
        "How well a question that is unlike the known ones is recognised, by its similarity to the nearest",
        f"of {found['known']} known questions. `python -m benchmarks.outside` makes this page and says what is",
        "compared.",
        "",
        "A set of one kind of question knows its own. A set that asks about anything, as nq and triviaqa do, has",
        "no outside: questions of the other sets are as near to it as its own, and hardly any is called unlike.",
        "",
        "![Found questions against false alarms](outside.svg)",
        "",
    ]
    rows = [
        (name, f"{each['limit']:.2f}", *(f"{each[key]:.3f}" for key in ("found", "false_alarms", "auroc")),
         f"{each['own']}, {each['outside']}")
        for name, each in found["sets"].items()
    ]  # fmt: skip
    heads = ("known questions of", "limit", "found", "false alarms", "AUROC", "own, outside")
    return "\n".join([*lines, shared.table(heads, rows), ""])


def plot(curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], path: Path) -> None:
    """For every set the share of outside questions that is found against that of false alarms."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, (inside, outside) in curves.items():
        limits = np.sort(np.concatenate([inside, outside, [-1.0, 1.0]]))
        own = (inside < limits[:, None]).mean(1)
        found = (outside < limits[:, None]).mean(1)
        axes.plot(own, found, label=name, linewidth=2 if name == EMBEDDED else 1)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.5, linestyle=":")
    axes.set(
        xlabel="false alarms: own questions found unlike", ylabel="outside questions found unlike",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    shared.save(figure, path)


if __name__ == "__main__":
    main()
