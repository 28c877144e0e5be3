"""Draw the pictures of the documentation as SVG files in docs/assets.

    python scripts/diagrams.py

`rollout.svg` shows one recorded rollout, `question.svg` the way of a question through the code, and
`layers.svg` the layers of the import-linter contract in pyproject.toml.
"""

import tomllib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs" / "assets"
INK, FAINT, PAPER = "#1f2937", "#6b7280", "#ffffff"
BLUE, GREEN, AMBER, GREY = "#dbeafe", "#dcfce7", "#fef3c7", "#f3f4f6"
FONT = "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"

# Of the default policy: `routerr1 ask` with this question. Handles stand for Travel-0.5B, Pocket-135M, Qwen-1.5B.
QUESTION = "Name the calling code of the country of the airport ADZ."
ROLLOUT = (
    ("search", "cards: aviation"),
    ("information", "$6 5% m9   $9 55% m1   $3 85% m4   $10 5% m11"),
    ("search", "m1: in which country is the airport ADZ?"),
    ("information", "@1 Not in my notes."),
    ("search", "cards: aviation"),
    ("information", "$10 5% m3   $6 5% m9   $3 85% m4   $10 5% m11"),
    ("search", "m4: in which country is the airport ADZ?"),
    ("information", "@2 The airport ADZ is located in Colombia."),
    ("search", "cards: telephony"),
    ("information", "$9 5% m1   $10 100% m11   $10 25% m3   $8 60% m12"),
    ("search", "m11: what is the calling code of @2?"),
    ("information", "@3 57"),
    ("answer", "@3"),
)
HOLDS = {
    "cli": "one module per group of commands",
    "flows": "when things run, approval (Prefect)",
    "serve": "the gateway: OpenAI's protocol",
    "registry": "versions, the gate, promotion, serving (MLflow)",
    "stages": "the stages of dvc.yaml",
    "laptop": "local servers for real models, and their recording",
    "workspace": "paths, questions, cards, pool and policies of a folder",
    "report": "sections, plots, the trajectory browser",
    "tracking": "runs and traces (MLflow)",
    "baselines": "the routers of the paper",
    "evaluate": "rows, intervals, paired differences, perturbations",
    "train": "warm start and reinforcement learning",
    "rollout": "the one loop, and what generates for it",
    "policy": "a model and its tokenizer",
    "simulation": "simulated candidates and their ground truth",
    "pool": "candidates: asking, budgets, recording, profiling",
    "data": "questions: sources, splits, checks",
    "fingerprints": "digests of what a piece of work depends on",
}
PAID = {
    3: "$0.0000081",
    7: "$0.0000005",
    11: "$0.0000102",
}  # by place in ROLLOUT; look-ups are free


def text(x: float, y: float, words: str, size: int = 13, fill: str = INK, **style: str) -> str:
    """A line of text whose baseline begins at (x, y)."""
    extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{extra}>{escape(words)}</text>'
    )


def box(x: float, y: float, width: float, height: float, fill: str) -> str:
    """A rounded box."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" '
        f'stroke="{FAINT}" stroke-width="0.8"/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight arrow."""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{FAINT}" '
        'stroke-width="1.4" marker-end="url(#head)"/>'
    )


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """A whole SVG file on white ground, so that it reads on dark pages as well."""
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{FAINT}"/></marker>'
    )
    lines = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="{FONT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<defs>{head}</defs>",
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *parts,
        "</svg>",
    )
    return "\n".join(lines) + "\n"


def rollout() -> str:
    """One rollout, line by line: what the policy writes on the left, what the pool replies on the right."""
    parts = [
        text(20, 28, QUESTION, 15, font_weight="600"),
        text(20, 54, "the policy writes", 12, FAINT),
        text(440, 54, "the pool replies, after a look-up the cards", 12, FAINT),
    ]
    fills = {"search": BLUE, "information": GREEN, "answer": AMBER}
    y = 64.0
    for place, (tag, words) in enumerate(ROLLOUT):
        reply = tag == "information"
        x, width = (440.0, 470.0) if reply else (20.0, 380.0)
        y -= 36 if reply else 0
        parts.append(box(x, y, width, 28, fills[tag]))
        parts.append(text(x + 10, y + 18, f"<{tag}>", 11, FAINT, font_family="monospace"))
        parts.append(text(x + 28 + 7 * len(tag), y + 18, words, 12))
        if reply:
            if place in PAID:
                parts.append(text(840, y + 18, PAID[place], 11, FAINT))
            parts.append(arrow(404, y + 14, 436, y + 14))
        y += 36
    parts.append(
        text(
            440,
            y - 18,
            "3 calls, $0.0000188 in all; recorded replies of real models; thoughts left out",
            12,
            FAINT,
        )
    )
    return picture(930, int(y + 8), "One rollout: three calls, then the answer", parts)


def question() -> str:
    """The way of one question through the code."""
    rows: Sequence[Sequence[tuple[str, str, str]]] = (
        (("Question", "data/questions", GREY), ("Cards", "data/pool/cards.json", GREY)),
        (("Prompt", "routerr1.prompt renders question and cards", BLUE),),
        (("Generate", "the policy samples tokens up to </search> or </answer>", BLUE),),
        (("Parse", "routerr1.protocol finds the action", BLUE),),
        (("Call", "routerr1.pool asks one candidate, within budgets", GREEN),),
        (("Insert", "the reply is neutralised, cut and masked; at most max_rounds calls", GREEN),),
        (("Trajectory", "turns, replies and the ledger of the costs", AMBER),),
        (("Reward", "routerr1.reward: training", GREY), ("Row", "em, f1, cost: evaluation", GREY)),
    )
    parts: list[str] = []
    for place, row in enumerate(rows):
        y, width = 20 + 70 * place, (540 - 20 * (len(row) - 1)) / len(row)
        for number, (name, words, fill) in enumerate(row):
            x = 20 + number * (width + 20)
            parts += [box(x, y, width, 46, fill), text(x + 14, y + 20, name, 14, font_weight="600")]
            parts.append(text(x + 14, y + 37, words, 12, FAINT))
        if place + 1 < len(rows):
            parts.append(arrow(290, y + 47, 290, y + 68))
    insert, generate = 20 + 70 * 5 + 23, 20 + 70 * 2 + 23
    loop = f"M560 {insert} H610 V{generate} H564"
    parts.append(
        f'<path d="{loop}" fill="none" stroke="{FAINT}" stroke-width="1.4" marker-end="url(#head)"/>'
    )
    parts.append(text(618, (insert + generate) / 2, "next round", 12, FAINT))
    parts.append(text(302, 20 + 70 * 6 - 8, "after </answer>, or after the last round", 11, FAINT))
    return picture(700, 70 * len(rows) + 20, "The way of a question", parts)


def layers(contract: Sequence[str]) -> str:
    """The layers of the packages; `contract` has them from top to bottom, several of one layer with | between."""
    parts = [text(20, 26, "A package imports only from the layers below its own.", 13, FAINT)]
    for place, layer in enumerate(contract):
        names = [name.strip(" ()") for name in layer.replace(":", "|").split("|")]
        y, width = 40 + 40 * place, (700 - 8 * (len(names) - 1)) / len(names)
        for number, name in enumerate(names):
            x = 20 + number * (width + 8)
            parts.append(box(x, y, width, 32, BLUE if name in HOLDS else GREY))
            parts.append(text(x + 10, y + 21, name, 13, font_weight="600"))
            parts.append(text(x + 130, y + 21, HOLDS.get(name, ""), 12, FAINT))
    return picture(740, 40 * len(contract) + 52, "Layers of routerr1", parts)


def contract_layers() -> list[str]:
    """The layers of the contract in pyproject.toml, from top to bottom; none without such a contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"].get("importlinter", {}).get("contracts", [])
    found = [each["layers"] for each in contracts if each["type"] == "layers"]
    return list(found[0]) if found else []


def pictures() -> dict[str, str]:
    """File name in docs/assets -> content."""
    made = {"rollout.svg": rollout(), "question.svg": question()}
    contract = contract_layers()
    return {**made, "layers.svg": layers(contract)} if contract else made


def main() -> None:
    """Write every picture."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    for name, content in pictures().items():
        (ASSETS / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
