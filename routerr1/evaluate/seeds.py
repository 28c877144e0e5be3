"""Does training lead to routing with every seed? The policy of each seed against bounds of its own.

In these bounds, the oracle and one model for every call, the same policy writes sub-questions and answers.
"""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from routerr1.config import EvaluateParams
from routerr1.evaluate.collapse import collapse
from routerr1.evaluate.controls import ORACLE, POLICY
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import interval, paired_difference, ratio_interval
from routerr1.evaluate.table import shorten

_FORCED = "forced/"
FIGURES = (
    ("em", "exact match"),
    ("em_of_oracle", "of the oracle's"),
    ("over_best_forced", "above the best single model"),
    ("best_model_share", "calls to the topic's best model"),
)


def by_seed(rows: Sequence[Row], params: EvaluateParams) -> list[dict[str, Any]]:
    """One entry for each training seed, then one over all of them with `seed` None; JSON values.

    Each has em, em_of_oracle (a ratio), over_best_forced (a difference; the best on these very questions)
    and best_model_share with intervals over question groups; by hops, em and em_of_oracle; top_model_share
    and formed. Over all seeds a question's values are means over the seeds. What a pool without ground
    truth cannot tell is None.
    """
    seeds = sorted({row.seed for row in rows if row.router == POLICY})
    wanted: list[tuple[int | None, list[int]]] = [(seed, [seed]) for seed in seeds]
    found = []
    for label, chosen in [*wanted, (None, seeds)]:
        mine = [row for row in rows if row.seed in chosen]
        found.append({"seed": label, **shorten(_entry(mine, params))})
    return found


def _entry(rows: Sequence[Row], params: EvaluateParams) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "resamples": params.bootstrap, "confidence": params.confidence, "seed": params.seed,
    }  # fmt: skip
    played = [row for row in rows if row.router == POLICY]
    names = sorted({row.router for row in rows if row.router.startswith(_FORCED)})
    em = {name: _by_question(rows, name) for name in (POLICY, ORACLE, *names)}
    groups = [group for _, group, _ in em[POLICY]]
    hops = [hop for _, _, hop in em[POLICY]]
    own, oracle = (_values(em[name]) for name in (POLICY, ORACLE))
    best = max(names, key=lambda name: fmean(_values(em[name])), default=None)
    ordered = sorted(played, key=lambda row: (row.group, row.seed))
    share = ratio_interval(
        [row.best_calls for row in ordered], [row.judged_calls for row in ordered],
        [row.group for row in ordered], **sampling,
    )  # fmt: skip
    ratio = ratio_interval(own, oracle, groups, **sampling) if oracle else None
    found: dict[str, Any] = {
        "em": asdict(interval(own, groups, **sampling)),
        "em_of_oracle": asdict(ratio) if ratio else None,
        "best_forced": best.removeprefix(_FORCED) if best else None,
        "over_best_forced": (
            asdict(paired_difference(own, _values(em[best]), groups, **sampling)) if best else None
        ),
        "best_model_share": asdict(share) if share else None,
        "top_model_share": fmean(
            collapse([row for row in played if row.seed == seed])["top_model_share"]
            for seed in {row.seed for row in played}
        ),
        "formed": fmean(row.formed for row in played),
        "by_hops": {},
    }
    for hop in sorted({hop for hop in hops if hop}):
        kept = [place for place, each in enumerate(hops) if each == hop]
        mean = fmean(own[place] for place in kept)
        bound = fmean(oracle[place] for place in kept) if oracle else 0.0
        found["by_hops"][str(hop)] = {"em": mean, "em_of_oracle": mean / bound if bound else None}
    return found


def _by_question(rows: Sequence[Row], router: str) -> list[tuple[float, str, int | None]]:
    """Exact match (mean over seeds), group and hops of each question, in one order for all routers."""
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.router == router:
            cells.setdefault((row.dataset, row.question_id), []).append(row)
    return [
        (fmean(row.em for row in cells[key]), cells[key][0].group, cells[key][0].hops)
        for key in sorted(cells)
    ]


def _values(cells: Sequence[tuple[float, str, int | None]]) -> list[float]:
    return [value for value, _, _ in cells]


def seeds_markdown(found: Sequence[dict[str, Any]]) -> str:
    """A column for each seed and one for all; intervals in brackets."""
    heads = ["all" if entry["seed"] is None else f"seed {entry['seed']}" for entry in found]
    lines = [f"| | {' | '.join(heads)} |", f"|{' --- |' * (len(heads) + 1)}"]
    for key, label in FIGURES:
        signed = key == "over_best_forced"
        lines.append(_line(label, [_cell(entry[key], signed=signed) for entry in found]))
    for hop in found[-1]["by_hops"]:
        cells = [entry["by_hops"][hop] for entry in found]
        lines.append(_line(f"exact match, {hop} hop", [_number(cell["em"]) for cell in cells]))
        ratios = [_number(cell["em_of_oracle"]) for cell in cells]
        lines.append(_line(f"{hop} hop, of the oracle's", ratios))
    lines.append(_line("best single model", [entry["best_forced"] or "" for entry in found]))
    for key, label in (
        ("top_model_share", "top model's share of calls"),
        ("formed", "well formed"),
    ):
        lines.append(_line(label, [_number(entry[key]) for entry in found]))
    return "\n".join(lines) + "\n"


def _line(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def _cell(value: dict[str, float] | None, *, signed: bool) -> str:
    if value is None:
        return ""
    sign = "+" if signed else ""
    mean, low, high = (f"{value[key]:{sign}.3f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
