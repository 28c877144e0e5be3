"""Rules against the other routers of a version's own evaluation: a champion has to be worth its policy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from routerr1.config import GateParams
from routerr1.evaluate.controls import BEST_SINGLE
from routerr1.evaluate.routers import RouterId
from routerr1.registry.rules import Rule, no_worse
from routerr1.registry.samples import (
    Bounds,
    Evidence,
    Sampling,
    cost_ratio,
    em_difference,
    paired,
)

if TYPE_CHECKING:
    from routerr1.evaluate.stats import Difference

BEST_LEARNED = "best_learned"
LEARNED_ROUTERS = ("knn", "mlp", "bert", "router_dc", "graph_router", "frugal", "knn_multi_turn")
"""Baselines that choose a candidate by what they learned from the whole profile, without their variants."""


@dataclass(frozen=True, slots=True)
class RivalComparison:
    """A challenger compared with another router of its evaluation.

    Attributes:
        em: challenger minus rival; None unless both answered the same questions.
        cost_ratio: USD of the challenger over USD of the rival; None likewise.
        cost_bounds: its interval; None if the rival paid nothing.
    """

    router: str
    em: "Difference | None"
    cost_ratio: float | None
    cost_bounds: Bounds | None = None


def is_learned(router: str) -> bool:
    """True for a baseline that learned which candidate to choose.

    >>> is_learned("baseline/knn"), is_learned("baseline/largest"), is_learned("policy")
    (True, False, False)
    """
    kind, name = RouterId.parse(router)
    return kind == "baseline" and name in LEARNED_ROUTERS


def compare_rivals(evidence: Evidence, sampling: Sampling) -> dict[str, RivalComparison]:
    """Compare a version with each rival, question by question."""
    found = {}
    for role, rival in evidence.rivals.items():
        pairs = paired(evidence.samples, rival.samples, lambda play: play.content)
        if len(pairs) < len(evidence.samples):
            found[role] = RivalComparison(rival.router, None, None)
            continue
        ratio, bounds = cost_ratio(pairs, sampling)
        found[role] = RivalComparison(rival.router, em_difference(pairs, sampling), ratio, bounds)
    return found


def rival_rules(
    router: str, rivals: Mapping[str, RivalComparison], params: GateParams
) -> list[Rule]:
    """The rules that `params` asks for; a router is not compared with itself."""
    asked = (
        (BEST_SINGLE, params.margin_best_single, router == BEST_SINGLE),
        (BEST_LEARNED, params.margin_best_learned, is_learned(router)),
    )
    return [
        _rule(role, rivals.get(role), margin, params.max_rival_cost_ratio)
        for role, margin, is_itself in asked
        if margin is not None and not (is_itself and role not in rivals)
    ]


def _rule(role: str, rival: RivalComparison | None, margin: float, max_ratio: float) -> Rule:
    """Exact match is not worse than the rival's; clearly better if that is much cheaper."""
    if rival is None:
        why = f"the evaluation has none; gate.margin_{role}: null asks for none"
        return Rule(role, None, None, -margin, False, why)
    what = f"exact match minus that of {rival.router}"
    ratio = rival.cost_ratio
    if ratio is None or math.isnan(ratio):
        return Rule(role, None, None, -margin, False, f"{what}: costs cannot be compared")
    if ratio > max_ratio:
        what = f"{what}, at {ratio:.3g} times its cost (over {max_ratio:g}, so no margin)"
        margin = 0.0
    else:
        what = f"{what}, at {ratio:.3g} times its cost"
    return no_worse(role, rival.em, margin, f"{what}, lower end of the interval")
