"""What the warm start taught and what reinforcement learning added."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from routerr1.evaluate.controls import BEST_SINGLE, ORACLE, POLICY, RANDOM
from routerr1.evaluate.redrawn import BEFORE, CARDS, REDRAWN
from routerr1.evaluate.results import Generalization, RouterTable
from routerr1.evaluate.routers import RouterId
from routerr1.files import read_json
from routerr1.metrics import metric
from routerr1.report.formatting import shown
from routerr1.report.sections import Cell, Section, table_of
from routerr1.report.tables import controls_table

TITLE = "Before and after reinforcement learning"
VALIDATION = "Validation"
_BEFORE = (str(RouterId("baseline", "policy_before_rl")), BEFORE)
_SHOWN = (*_BEFORE, POLICY, RANDOM, BEST_SINGLE, CARDS, ORACLE)
_VALIDATED = ("em", "best_model_share", "calls", "format_valid", "cost_usd")


@dataclass(frozen=True, slots=True)
class SeedTraining:
    """One training run.

    Attributes:
        best_step: the step whose weights are kept.
        start: metrics of the warm start on the validation questions.
        validation: those of `best_step`.
    """

    best_step: int
    start: Mapping[str, float]
    validation: Mapping[str, float]


def read_training(path: Path) -> dict[int, SeedTraining]:
    """The runs in data/train/results.json, by training seed.

    Raises: DataError naming the file if it cannot be read.
    """
    found: Mapping[str, Mapping[str, float] | float] = read_json(path)
    runs: dict[int, SeedTraining] = {}
    for name, values in found.items():
        if name.startswith("seed_") and isinstance(values, Mapping):
            start = {
                k.removeprefix("start/"): v for k, v in values.items() if k.startswith("start/")
            }
            validation = {
                k.removeprefix("validation/"): v
                for k, v in values.items()
                if k.startswith("validation/")
            }
            seed = int(name.removeprefix("seed_"))
            runs[seed] = SeedTraining(int(values["best_step"]), start, validation)
    return runs


def training_section(
    training: Mapping[int, SeedTraining], table: RouterTable, pools: Generalization | None
) -> Section | None:
    """The policy before reinforcement learning beside the trained one; None if it was not evaluated.

    Args:
        training: by training seed.
        table: on the training pool.
        pools: perturbed pools, among them possibly one with another drawn pool for each question.
    """
    parts = [_validation(training)] if training else []
    tables = {"Training pool": table}
    for pool in pools.pools if pools else ():
        if pool.pool == REDRAWN and pool.table:
            tables["Another drawn pool for each question"] = pool.table
    for title, found in tables.items():
        entries = {entry.router: entry for entry in found.routers}
        if entries.keys() & set(_BEFORE):
            kept = tuple(entries[name] for name in _SHOWN if name in entries)
            short = found.model_copy(update={"routers": kept})
            parts.append(Section(title, table=controls_table(short)))
    if not parts:
        return None
    return Section(
        TITLE,
        "The line “Policy before RL” shows what the warm start taught; its difference to the policy shows what "
        "reinforcement learning added.",
        parts=tuple(parts),
    )


def _validation(training: Mapping[int, SeedTraining]) -> Section:
    rows: list[list[Cell | str]] = []
    for seed, found in training.items():
        for when, figures in (
            ("before", found.start),
            (f"step {found.best_step}", found.validation),
        ):
            cells = [Cell(shown(name, figures.get(name))) for name in _VALIDATED]
            rows.append([str(seed), when, *cells])
    heads = ("Training seed", "Policy", *(metric(name).label for name in _VALIDATED))
    return Section(
        VALIDATION,
        "Validation questions on the pools of training. The step was chosen on these very questions, which "
        "flatters it.",
        table_of(heads, rows),
    )
