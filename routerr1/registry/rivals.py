"""Rules against the other routers of a version's own evaluation: a champion has to be worth its policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from routerr1.config import GateParams
from routerr1.evaluate.controls import BEST_SINGLE
from routerr1.evaluate.routers import is_learned
from routerr1.registry.rules import Rule, better, no_worse
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
_LACKING = "the evaluation has none"


@dataclass(frozen=True, slots=True)
class RivalComparison:
    """A challenger compared with another router of its evaluation.

    Attributes:
        shared: share of the challenger's questions that the rival answered, in [0, 1].
        em: challenger minus rival; None unless both answered the same questions.
        cost_ratio: USD of the challenger over USD of the rival; None likewise.
        cost_bounds: its interval; None if the rival paid nothing.
    """

    router: str
    em: "Difference | None"
    cost_ratio: float | None
    cost_bounds: Bounds | None = None
    shared: float = 1.0


def compare_rivals(evidence: Evidence, sampling: Sampling) -> dict[str, RivalComparison] | None:
    """Compare a version with each rival, question by question; None if it is older than rivals."""
    if evidence.rivals is None:
        return None
    found = {}
    for role, rival in evidence.rivals.items():
        pairs = paired(evidence.samples, rival.samples, lambda play: play.content)
        if len(pairs) < len(evidence.samples):
            shared = len(pairs) / len(evidence.samples)
            found[role] = RivalComparison(rival.router, None, None, shared=shared)
            continue
        ratio, bounds = cost_ratio(pairs, sampling)
        found[role] = RivalComparison(rival.router, em_difference(pairs, sampling), ratio, bounds)
    return found


def rival_rules(
    router: str, rivals: Mapping[str, RivalComparison] | None, params: GateParams
) -> list[Rule]:
    """The rules that `params` asks for; a router is not compared with itself.

    Args:
        rivals: None for a version that is older than rivals.
    """
    asked = (
        (BEST_SINGLE, params.margin_best_single, router == BEST_SINGLE),
        (BEST_LEARNED, params.margin_best_learned, is_learned(router)),
    )
    known = rivals or {}
    lacking = "the evidence of the version is older than this rule" if rivals is None else _LACKING
    return [
        _rule(role, known[role], margin, params.max_rival_cost_ratio)
        if role in known
        else _refused(role, margin, f"{lacking}; gate.margin_{role}: null asks for none")
        for role, margin, is_itself in asked
        if margin is not None and not (is_itself and rivals is not None and role not in rivals)
    ]


def _refused(role: str, margin: float, why: str) -> Rule:
    return Rule(role, None, None, -margin, False, why)


def _rule(role: str, rival: RivalComparison, margin: float, max_ratio: float) -> Rule:
    """Exact match is not worse than the rival's; clearly better if that is much cheaper."""
    what = f"exact match minus that of {rival.router}"
    if rival.shared < 1:
        why = f"{what}: that was measured on other questions, {rival.shared:.3g} of these are among them"
        return _refused(role, margin, why)
    ratio = rival.cost_ratio
    if ratio is None or not ratio >= 0:  # NaN is not either
        return _refused(role, margin, f"{what}: costs cannot be compared")
    what = f"{what}, at {ratio:.3g} times its cost"
    if ratio > max_ratio:
        what = f"{what} (over {max_ratio:g}, so it has to be better), lower end of the interval"
        return better(role, rival.em, what)
    return no_worse(role, rival.em, margin, f"{what}, lower end of the interval")
