"""Does training lead to routing with every seed? The policy of each seed against bounds of its own.

In these bounds, the oracle and one model for every call, the same policy writes sub-questions and answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from routerr1.config import EvaluateParams
from routerr1.evaluate.collapse import collapse
from routerr1.evaluate.controls import FORCED, ORACLE, POLICY
from routerr1.evaluate.formatting import NOTHING, bounded, lines_of, number
from routerr1.evaluate.grid import Grid
from routerr1.evaluate.rows import Row
from routerr1.evaluate.stats import (
    AMOUNT,
    SHARE,
    Estimate,
    Range,
    Sample,
    difference_of,
    interval_of,
    spread,
    subtract,
)
from routerr1.evaluate.table import shorten

FIGURES = (
    ("em", "exact match"),
    ("em_of_oracle", "of the oracle's"),
    ("over_best_forced", "above the best single model"),
    ("best_model_share", "calls to the topic's best model"),
)
SHARES = (("top_model_share", "top model's share of calls"), ("format_valid", "well formed"))


def by_seed(rows: Sequence[Row], params: EvaluateParams) -> list[dict[str, Any]]:
    """One entry for each training seed, then one over all of them with `seed` None; JSON values.

    Each has em, em_of_oracle (a ratio), over_best_forced (a difference; the best on these very questions)
    and best_model_share with intervals; by hops, em and em_of_oracle; top_model_share and format_valid. Figures
    over all seeds are means of the seeds' own, but for the best single model, which is then one for all;
    their intervals are over questions and seeds, and `sd` tells how far the seeds lie apart. What a pool
    without ground truth cannot tell is None.
    """
    bounds = {r.router for r in rows if r.router == ORACLE or r.router.startswith(FORCED)}
    grids = {name: Grid([row for row in rows if row.router == name]) for name in {POLICY, *bounds}}
    seeds = grids[POLICY].seeds
    each = [
        _entry({name: grid.only(seed) for name, grid in grids.items()}, params) for seed in seeds
    ]
    everyone = _entry(grids, params)
    everyone["sd"] = _spreads(each)
    return [
        {"seed": seed, **shorten(entry)}
        for seed, entry in zip([*seeds, None], [*each, everyone], strict=True)
    ]


def _entry(grids: Mapping[str, Grid], params: EvaluateParams) -> dict[str, Any]:
    policy, oracle = grids[POLICY], grids.get(ORACLE)
    sample = Sample(policy.groups, resamples=params.bootstrap, seed=params.seed)
    forced = sorted(name for name in grids if name.startswith(FORCED))
    names = [POLICY, *forced]
    em = dict(zip(names, sample.means([grids[n].values("em") for n in names]), strict=True))
    best = max(forced, key=lambda name: em[name].value, default=None)
    gap = difference_of(subtract(em[POLICY], em[best]), params.confidence) if best else None
    of_oracle = sample.ratio(policy.values("em"), oracle.values("em")) if oracle else None
    share = sample.ratio(policy.values("best_calls"), policy.values("judged_calls"))

    def told(found: Estimate | None, within: Range) -> dict[str, Any] | None:
        return asdict(interval_of(found, params.confidence, within)) if found else None

    return {
        "em": told(em[POLICY], SHARE),
        "em_of_oracle": told(of_oracle, AMOUNT),
        "best_forced": best.removeprefix(FORCED) if best else None,
        "over_best_forced": asdict(gap) if gap else None,
        "best_model_share": told(share, SHARE),
        "top_model_share": collapse(policy.rows)["top_model_share"],
        "format_valid": float(policy.values("format_valid").mean()),
        "by_hops": _by_hops(policy, oracle),
    }


def _by_hops(policy: Grid, oracle: Grid | None) -> dict[str, dict[str, float | None]]:
    """Exact match and its share of the oracle's, means over seeds, by the facts a question needs."""
    hops = [row.hops for row in policy.cells[0]]
    found: dict[str, dict[str, float | None]] = {}
    for hop in sorted({hop for hop in hops if hop}):
        kept = [place for place, each in enumerate(hops) if each == hop]
        own = policy.values("em")[:, kept].mean(axis=1)
        bounds = oracle.values("em")[:, kept].mean(axis=1) if oracle else 0.0 * own
        ratios = [mean / bound for mean, bound in zip(own, bounds, strict=True) if bound]
        found[str(hop)] = {
            "em": float(own.mean()),
            "em_of_oracle": float(fmean(ratios)) if ratios else None,
        }
    return found


def _spreads(each: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The standard deviation over seeds of each figure; None for one seed, or where a seed has none."""
    values = {key: [entry[key] and entry[key]["mean"] for entry in each] for key, _ in FIGURES}
    values |= {key: [entry[key] for entry in each] for key, _ in SHARES}
    return {key: None if None in found else spread(found).sd for key, found in values.items()}


def seeds_markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """A column for each seed, one for all and one for how far they lie apart; intervals in brackets."""
    everyone = found[-1]
    heads = ["all" if entry["seed"] is None else f"seed {entry['seed']}" for entry in found]
    rows: list[list[str]] = []
    for key, label in FIGURES:
        signed = key == "over_best_forced"
        cells = [bounded(entry[key], 3, signed=signed) for entry in found]
        rows.append([label, *cells, number(everyone["sd"][key], 3)])
    for hop in everyone["by_hops"]:
        own = [entry["by_hops"][hop] for entry in found]
        rows.append([f"exact match, {hop} hop", *(number(c["em"], 3) for c in own), ""])
        ratios = [number(cell["em_of_oracle"], 3) for cell in own]
        rows.append([f"{hop} hop, of the oracle's", *ratios, ""])
    best = [entry["best_forced"] or NOTHING for entry in found]
    rows.append(["best single model", *best, ""])
    for key, label in SHARES:
        cells = [number(entry[key], 3) for entry in found]
        rows.append([label, *cells, number(everyone["sd"][key], 3)])
    return "\n".join(lines_of(["", *heads, "sd"], rows)) + "\n"
