"""What the warm start taught and what reinforcement learning added: the policy before it and after, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routerr1.evaluate.controls import BEST_SINGLE, ORACLE, POLICY, RANDOM
from routerr1.evaluate.formatting import lines_of, number
from routerr1.evaluate.generalize import controls_lines
from routerr1.evaluate.redrawn import BEFORE, CARDS, REDRAWN

TITLE = "What the warm start taught, and what reinforcement learning added"
VALIDATION = "Validation"
WARM_START = "baseline/policy_before_rl"
"""On the training pool the baseline that is the policy before reinforcement learning; elsewhere it is `BEFORE`."""

_BEFORE = (WARM_START, BEFORE)
_SHOWN = (*_BEFORE, POLICY, RANDOM, BEST_SINGLE, CARDS, ORACLE)
_VALIDATED = (
    ("em", "EM", 3, 1), ("best_model_share", "calls to best, %", 0, 100), ("calls", "calls", 2, 1),
    ("format_valid", "keeps the format, %", 0, 100), ("cost_usd", "USD per 1000", 4, 1000),
)  # fmt: skip
"""Figure, heading, digits, scale."""


@dataclass(frozen=True, slots=True)
class Gains:
    """What there is to compare.

    Attributes:
        heads: of the validation's table.
        validated: its cells, for each training seed a line for the start and one for the chosen step.
        played: title -> those lines of a table of `evaluate.table.summarise` that tell.
    """

    heads: Sequence[str]
    validated: Sequence[Sequence[str]]
    played: Mapping[str, Mapping[str, Any]]


def gains(
    training: Mapping[str, Any] | None, table: Mapping[str, Any], pools: Mapping[str, Any] | None
) -> Gains | None:
    """What can be told; None where the policy before reinforcement learning was neither validated nor played.

    Args:
        training: data/train/metrics.json.
        table: of `evaluate.table.summarise`, on the training pool.
        pools: of `evaluate.generalize.compare_pools`.
    """
    tables = {"Training pool": table}
    for entry in pools["pools"] if pools else ():
        if entry["pool"] == REDRAWN:
            tables["Another drawn pool for each question"] = entry["table"]
    told = {title: _telling(found) for title, found in tables.items()}
    played = {title: found for title, found in told.items() if found}
    heads = ["training seed", "policy", *(head for _, head, _, _ in _VALIDATED)]
    validated = _validated(training or {})
    return Gains(heads, validated, played) if validated or played else None


def _telling(table: Mapping[str, Any]) -> dict[str, Any] | None:
    """The lines that tell, or None if the policy before is not among them."""
    lines = {entry["router"]: entry for entry in table["routers"]}
    if not lines.keys() & set(_BEFORE):
        return None
    return {**table, "routers": [lines[name] for name in _SHOWN if name in lines]}


def _validated(training: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, found in training.items():
        if name.startswith("seed_"):
            steps = {"start": "before", "validation": f"step {found['best_step']}"}
            rows += [
                [name.removeprefix("seed_"), label, *_figures(found, when)]
                for when, label in steps.items()
            ]
    return rows


def _figures(found: Mapping[str, Any], when: str) -> list[str]:
    return [
        number(found.get(f"{when}/{key}"), digits, scale) for key, _, digits, scale in _VALIDATED
    ]


def how_to_read(found: Gains) -> str:
    """What the tables say."""
    told = []
    if found.played:
        told.append(
            f"{' and '.join(name for name in _BEFORE if _has(found, name))}: the policy before reinforcement "
            "learning, played like the policy; its line tells what the warm start taught, and “EM: policy minus "
            "it” there what reinforcement learning added."
        )
    if found.validated:
        told.append(
            "On validation questions, with the pools of training, each seed's start stands beside the step that "
            "was chosen on these very questions, which flatters that step."
        )
    return " ".join(told)


def _has(found: Gains, router: str) -> bool:
    return any(
        entry["router"] == router for table in found.played.values() for entry in table["routers"]
    )


def gains_markdown(found: Gains) -> str:
    """All of it for people, without the title."""
    lines = [how_to_read(found)]
    if found.validated:
        lines += ["", f"{VALIDATION}:", "", *lines_of(found.heads, found.validated)]
    for title, table in found.played.items():
        lines += ["", f"{title}:", "", *controls_lines(table)]
    return "\n".join(lines) + "\n"
