"""Whether a challenger may become champion: one rule a line, each with its figure, limit and verdict.

Pure: measured values in, a decision out. A figure that is missing or not finite fails its rule.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from routerr1.config import GateParams
from routerr1.entropy import entropy_bits

if TYPE_CHECKING:
    from routerr1.evaluate.stats import Difference


@dataclass(frozen=True, slots=True)
class Play:
    """One question as the gate sees it.

    Attributes:
        em: exact match, 0 or 1.
        called: canonical names of the candidates asked, in order.
    """

    question_id: str
    group: str
    em: float
    cost_usd: float
    formed: bool
    called: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metrics:
    """A policy's figures over its questions; None where it was not measured.

    Attributes:
        cost_usd: mean per question.
        format_validity: share of trajectories that keep the protocol, in [0, 1].
        top_model_share: share of all calls that went to the most called candidate, in [0, 1].
        no_call_rate: share of questions without a call, in [0, 1].
        call_entropy: of the shares of calls to each candidate, in bits; 0 without calls.
        unseen_em: exact match on a pool never trained on.
    """

    questions: int
    em: float | None
    cost_usd: float | None
    format_validity: float | None
    top_model_share: float | None
    no_call_rate: float | None
    call_entropy: float | None
    unseen_em: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a decision. `limit` is what `figure` is held against; `why` says it in words."""

    name: str
    figure: float | None
    interval: tuple[float, float] | None
    limit: float | None
    passed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All rules, and whether all of them passed."""

    rules: tuple[Rule, ...]

    @property
    def passed(self) -> bool:
        """True only if every rule passed."""
        return all(rule.passed for rule in self.rules)

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Names of the rules that failed."""
        return tuple(rule.name for rule in self.rules if not rule.passed)


def measure(plays: Sequence[Play], unseen: Sequence[Play] = ()) -> Metrics:
    """The figures of `plays`; `unseen` are those on a pool never trained on."""
    if not plays:
        return Metrics(0, None, None, None, None, None, None)
    calls = Counter(name for play in plays for name in play.called)
    total = sum(calls.values())
    shares = [count / total for count in calls.values()]
    return Metrics(
        questions=len(plays),
        em=_mean([play.em for play in plays]),
        cost_usd=_mean([play.cost_usd for play in plays]),
        format_validity=_mean([play.formed for play in plays]),
        # Without a call there is no top model; that collapse shows in the no-call rate.
        top_model_share=max(shares, default=0.0),
        no_call_rate=_mean([not play.called for play in plays]),
        call_entropy=entropy_bits(calls),
        unseen_em=_mean([play.em for play in unseen]) if unseen else None,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def compare(
    challenger: Sequence[Play],
    champion: Sequence[Play],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> "Difference | None":
    """Paired bootstrap of EM, challenger minus champion, over the questions both played.

    Returns: None if they share no question, or a value is not finite.
    """
    from routerr1.evaluate.stats import paired_difference

    known = {play.question_id: play for play in champion}
    pairs = [(play, known[play.question_id]) for play in challenger if play.question_id in known]
    if not pairs or not all(math.isfinite(play.em) for pair in pairs for play in pair):
        return None
    return paired_difference(
        [new.em for new, _ in pairs],
        [old.em for _, old in pairs],
        [new.group for new, _ in pairs],
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def decide(
    challenger: Metrics,
    champion: Metrics | None,
    params: GateParams,
    difference: "Difference | None" = None,
) -> Decision:
    """Hold the challenger against the champion, or against absolute floors if there is none.

    Args:
        champion: its figures on the same questions.
        difference: from `compare`; needed where there is a champion.
    """
    versus = (
        [_at_least("em_floor", challenger.em, params.min_em, "exact match of a first champion")]
        if champion is None
        else _against(challenger, champion, params, difference)
    )
    ceiling = (
        []
        if params.max_cost_usd is None
        else [_at_most("cost", challenger.cost_usd, params.max_cost_usd, "mean USD per question")]
    )
    return Decision(
        (
            *versus,
            *ceiling,
            _at_least(
                "format",
                challenger.format_validity,
                params.min_format_validity,
                "share of trajectories that keep the protocol",
            ),
            _at_most(
                "top_model",
                challenger.top_model_share,
                params.max_top_model_share,
                "share of calls to the most called candidate",
            ),
            _at_most(
                "no_call",
                challenger.no_call_rate,
                params.max_no_call_rate,
                "share of questions without a call",
            ),
            _at_least(
                "call_entropy",
                challenger.call_entropy,
                params.min_call_entropy,
                "entropy of the calls in bits",
            ),
            _at_least(
                "unseen_pool",
                challenger.unseen_em,
                params.min_unseen_em,
                "exact match on a pool never trained on",
            ),
        )
    )


def _against(
    challenger: Metrics, champion: Metrics, params: GateParams, difference: "Difference | None"
) -> list[Rule]:
    shared = None if difference is None else difference.n / max(challenger.questions, 1)
    limit = (
        None
        if champion.cost_usd is None or not math.isfinite(champion.cost_usd)
        else champion.cost_usd * params.max_cost_ratio
    )
    return [
        _at_least("same_questions", shared, 1.0, "share of the questions that the champion played"),
        _em_difference(difference, params.margin_em),
        _at_most(
            "cost_ratio",
            challenger.cost_usd,
            limit,
            f"mean USD per question, against {params.max_cost_ratio:g} times the champion's",
        ),
    ]


def _em_difference(difference: "Difference | None", margin: float) -> Rule:
    name, what = "em_difference", "exact match minus the champion's, lower end of the interval"
    if difference is None:
        return Rule(name, None, None, -margin, False, f"{what}: no comparison was made")
    if difference.low is None or difference.high is None:
        why = f"{what}: a single group of questions has none"
        return Rule(name, difference.mean, None, -margin, False, why)
    interval = (difference.low, difference.high)
    passed = all(map(math.isfinite, (difference.mean, *interval))) and difference.low >= -margin
    sign = ">=" if passed else "is not >="
    return Rule(
        name,
        difference.mean,
        interval,
        -margin,
        passed,
        f"{what}: {difference.low:.4g} {sign} {-margin:.4g}",
    )


def _at_least(name: str, figure: float | None, limit: float | None, what: str) -> Rule:
    return _held(name, figure, limit, what, ">=")


def _at_most(name: str, figure: float | None, limit: float | None, what: str) -> Rule:
    return _held(name, figure, limit, what, "<=")


def _held(name: str, figure: float | None, limit: float | None, what: str, sign: str) -> Rule:
    if figure is None or not math.isfinite(figure):
        return Rule(name, None, None, limit, False, f"{what}: not measured, or not finite")
    if limit is None or not math.isfinite(limit):
        return Rule(
            name, figure, None, None, False, f"{what}: there is no limit to hold it against"
        )
    # Figures are means of floats; a hair's breadth of rounding is no difference.
    near = math.isclose(figure, limit, rel_tol=1e-9, abs_tol=1e-12)
    passed = near or (figure > limit if sign == ">=" else figure < limit)
    relation = sign if passed else f"is not {sign}"
    return Rule(name, figure, None, limit, passed, f"{what}: {figure:.4g} {relation} {limit:.4g}")


def to_dict(decision: Decision) -> dict[str, Any]:
    """JSON values: `passed`, `refused_by`, and the rules."""
    return {
        "passed": decision.passed,
        "refused_by": list(decision.refused_by),
        "rules": [asdict(rule) for rule in decision.rules],
    }


def to_markdown(decision: Decision, facts: Mapping[str, str] | None = None) -> str:
    """The decision for people; `facts` (challenger, champion, run ...) are listed above the rules."""
    lines = [f"# Gate: {'passed' if decision.passed else 'refused'}", ""]
    lines += [f"- {name}: {value}" for name, value in (facts or {}).items()]
    lines += [""] if facts else []
    lines += ["| rule | figure | interval | limit | verdict | why |", "|---|---|---|---|---|---|"]
    for rule in decision.rules:
        low_high = (
            "" if rule.interval is None else f"{rule.interval[0]:.4g} to {rule.interval[1]:.4g}"
        )
        verdict = "pass" if rule.passed else "**FAIL**"
        lines.append(
            f"| {rule.name} | {_shown(rule.figure)} | {low_high} | {_shown(rule.limit)} "
            f"| {verdict} | {rule.why} |"
        )
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"
