"""Whether a challenger may become champion: rules with a figure, an interval, a limit and a verdict.

Pure functions from measured values to a decision. A missing or non-finite figure fails its rule.
"""

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from routerr1.config import EvaluateParams, GateParams
from routerr1.evaluate.controls import BEST_SINGLE, POLICY
from routerr1.evaluate.routers import RouterId
from routerr1.metrics import routing_metrics

if TYPE_CHECKING:
    from routerr1.evaluate.stats import Difference, Interval

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class EvalSample:
    """One question as the gate sees it.

    Attributes:
        question_id: "data set/id".
        content: digest of data set, text and reference answers. Samples are paired by it, because an id may
            be the number of a line.
        pool: name of the pool.
        em: exact match, 0 or 1.
        called: canonical names of the called candidates, in order.
        matching: the rule by which answers are compared.
    """

    question_id: str
    content: str
    pool: str
    group: str
    em: float
    cost_usd: float
    format_valid: bool
    called: tuple[str, ...]
    matching: str = "squad"


class Evidence(NamedTuple):
    """What a version is judged by.

    Attributes:
        samples: on its own pool.
        unseen: on pools with models that training never saw; may be empty.
        pool: digest of the cards of its own pool: candidates, prices, measured skill.
        unseen_pool: digest of everything that decides the pools of `unseen`.
        router: the router that was evaluated, as in the rows.
        worst_change: smallest ratio of exact match to best-on-cards over the changed pools; None if not measured.
    """

    samples: Sequence[EvalSample]
    unseen: Sequence[EvalSample]
    pool: str
    unseen_pool: str
    router: str = POLICY
    worst_change: float | None = None


class Sampling(NamedTuple):
    """How intervals are computed; see `evaluate.stats`."""

    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of a policy over its questions; None if not measured.

    Attributes:
        cost_usd: mean per question.
        format_valid: share of trajectories that keep the protocol, in [0, 1].
        top_model_share: share of all calls that went to the most called candidate, in [0, 1].
        no_call_rate: share of questions without a call, in [0, 1].
        call_entropy: of the shares of calls to each candidate, in bits; 0 without calls.
        unseen_em: exact match on pools with models that training never saw.
        worst_change: see `Evidence`.
        intervals: of the metrics that are means, by name.
        router: the router that was evaluated, as in the rows.
        matching: the rules by which its answers are compared.
    """

    questions: int
    em: float | None
    cost_usd: float | None
    format_valid: float | None
    top_model_share: float | None
    no_call_rate: float | None
    call_entropy: float | None
    unseen_em: float | None = None
    worst_change: float | None = None
    intervals: Mapping[str, Bounds] = field(default_factory=dict)
    router: str = POLICY
    matching: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A challenger compared with the champion, on the questions that both answered.

    Attributes:
        same_pool: both had the same candidates, with the same prices and measured skill.
        shared: share of the challenger's questions that the champion answered, in [0, 1].
        em: challenger minus champion; None without a shared question, or if a value is not finite.
        cost_ratio: USD of the challenger over USD of the champion; None likewise.
        cost_bounds: its interval; None if the champion paid nothing.
        unseen_em: as `em`, on pools with unseen models; None if the two did not meet the same pools.
    """

    same_pool: bool
    shared: float
    em: "Difference | None"
    cost_ratio: float | None
    cost_bounds: Bounds | None = None
    unseen_em: "Difference | None" = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a decision: `figure` is compared with `limit`, and `why` says it in words."""

    name: str
    figure: float | None
    interval: Bounds | None
    limit: float
    passed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All rules of the gate, and how the answers behind them are compared."""

    rules: tuple[Rule, ...]
    matching: str = ""

    @property
    def passed(self) -> bool:
        """True only if every rule passed."""
        return all(rule.passed for rule in self.rules)

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Names of the rules that failed."""
        return tuple(rule.name for rule in self.rules if not rule.passed)


def sampling_of(params: EvaluateParams) -> Sampling:
    """The sampling of the evaluation."""
    return Sampling(params.bootstrap, params.confidence, params.seed)


def measure(evidence: Evidence, sampling: Sampling) -> Metrics:
    """The metrics of a version by itself."""
    samples = evidence.samples
    if not samples:
        return Metrics(0, None, None, None, None, None, None, router=evidence.router)
    routing = routing_metrics([play.called for play in samples])
    means = {
        "em": _mean(samples, lambda play: play.em, sampling),
        "cost_usd": _mean(samples, lambda play: play.cost_usd, sampling),
        "format_valid": _mean(samples, lambda play: play.format_valid, sampling),
        "no_call_rate": _mean(samples, lambda play: not play.called, sampling),
        "unseen_em": _mean(evidence.unseen, lambda play: play.em, sampling),
    }
    found = {name: each.mean for name, each in means.items() if each is not None}
    return Metrics(
        questions=len(samples),
        em=found.get("em"),
        cost_usd=found.get("cost_usd"),
        format_valid=found.get("format_valid"),
        # Without a call there is no top model; the no-call rate shows that collapse.
        top_model_share=routing.top_model_share,
        no_call_rate=found.get("no_call_rate"),
        call_entropy=routing.call_entropy,
        unseen_em=found.get("unseen_em"),
        worst_change=evidence.worst_change,
        intervals={
            name: bounds
            for name, each in means.items()
            if each is not None and (bounds := _bounds(each)) is not None
        },
        router=evidence.router,
        matching=", ".join(sorted({play.matching for play in samples})),
    )


def _bounds(found: "Interval") -> Bounds | None:
    """The interval, or None for a single group of questions."""
    return None if found.low is None or found.high is None else (found.low, found.high)


def _mean(
    samples: Sequence[EvalSample], value: Callable[[EvalSample], float], sampling: Sampling
) -> "Interval | None":
    """The mean with its interval; None without samples, or if a value is not finite."""
    from routerr1.evaluate.stats import interval

    values = [float(value(play)) for play in samples]
    if not values or not all(map(math.isfinite, values)):
        return None
    return interval(values, [play.group for play in samples], **sampling._asdict())


def compare(challenger: Evidence, champion: Evidence, sampling: Sampling) -> Comparison:
    """Compare challenger and champion question by question.

    A policy's exact match and a reply that contains the answer are different measures, so they are not
    compared.
    """
    same_measure = (challenger.router == POLICY) == (champion.router == POLICY)
    pairs = _pairs(challenger.samples, champion.samples, lambda play: play.content)
    unseen = (
        _pairs(challenger.unseen, champion.unseen, lambda play: (play.pool, play.content))
        if challenger.unseen_pool == champion.unseen_pool
        else []
    )
    ratio, bounds = _cost_ratio(pairs, sampling)
    return Comparison(
        same_pool=challenger.pool == champion.pool,
        shared=len(pairs) / max(len(challenger.samples), 1),
        em=_difference(pairs, sampling) if same_measure else None,
        cost_ratio=ratio,
        cost_bounds=bounds,
        # Over fewer pools it would measure something else than the floor does.
        unseen_em=_difference(unseen, sampling) if len(unseen) == len(challenger.unseen) else None,
    )


def _pairs(
    new: Sequence[EvalSample], old: Sequence[EvalSample], key: Callable[[EvalSample], Hashable]
) -> list[tuple[EvalSample, EvalSample]]:
    known = {key(play): play for play in old}
    return [(play, known[key(play)]) for play in new if key(play) in known]


def _difference(
    pairs: Sequence[tuple[EvalSample, EvalSample]], sampling: Sampling
) -> "Difference | None":
    from routerr1.evaluate.stats import paired_difference

    if not pairs or not all(math.isfinite(play.em) for pair in pairs for play in pair):
        return None
    return paired_difference(
        [new.em for new, _ in pairs],
        [old.em for _, old in pairs],
        [new.group for new, _ in pairs],
        **sampling._asdict(),
    )


def _cost_ratio(
    pairs: Sequence[tuple[EvalSample, EvalSample]], sampling: Sampling
) -> tuple[float | None, Bounds | None]:
    from routerr1.evaluate.stats import ratio_interval

    costs = [(new.cost_usd, old.cost_usd) for new, old in pairs]
    if not costs or not all(math.isfinite(cost) for pair in costs for cost in pair):
        return None, None
    new, old = zip(*costs, strict=True)
    found = ratio_interval(new, old, [play.group for play, _ in pairs], **sampling._asdict())
    if found is None:  # a free champion asks for a free challenger
        return (1.0 if sum(new) <= 0 else math.inf), None
    return found.mean, _bounds(found)


def decide(challenger: Metrics, comparison: Comparison | None, params: GateParams) -> Decision:
    """Apply the rules: against the champion, or against absolute floors if there is no comparison."""
    bounds = challenger.intervals
    versus = (
        [
            _at_least(
                "em_floor", challenger.em, params.min_em, "exact match by itself", bounds.get("em")
            )
        ]
        if comparison is None
        else _against(comparison, params)
    )
    ceiling = (
        []
        if params.max_cost_usd is None
        else [
            _at_most(
                "cost",
                challenger.cost_usd,
                params.max_cost_usd,
                "mean USD per question",
                bounds.get("cost_usd"),
            )
        ]
    )
    rules = (
        *versus,
        *ceiling,
        _at_least(
            "format",
            challenger.format_valid,
            params.min_format_valid,
            "share of trajectories that keep the protocol",
            bounds.get("format_valid"),
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
            bounds.get("no_call_rate"),
        ),
        _at_least(
            "call_entropy",
            challenger.call_entropy,
            params.min_call_entropy,
            "entropy of the calls in bits",
        ),
        *_unseen(challenger, comparison, params),
    )
    needless = _not_applicable(challenger.router)
    kept = tuple(rule for rule in rules if rule.name not in needless)
    return Decision(kept, challenger.matching)


def _not_applicable(router: str) -> tuple[str, ...]:
    """Rules that do not apply to a router without a policy.

    It writes no protocol and calls only the candidates of its own pool. One candidate for every question is
    a choice, not a collapse.
    """
    if router == POLICY:
        return ()
    without_policy = ("format", "unseen_pool", "unseen_difference")
    return (*without_policy, "top_model", "call_entropy") if is_single(router) else without_policy


def is_single(router: str) -> bool:
    """True for a router that is one candidate for every question."""
    return router in (BEST_SINGLE, "baseline/largest") or RouterId.parse(router).kind == "fixed"


def _against(comparison: Comparison, params: GateParams) -> list[Rule]:
    return [
        _at_least(
            "same_pool",
            float(comparison.same_pool),
            1.0,
            "1 if both had the same candidates, with the same prices and measured skill",
        ),
        _at_least(
            "same_questions",
            comparison.shared,
            1.0,
            "share of the questions that the champion answered",
        ),
        _no_worse(
            "em_difference",
            comparison.em,
            params.margin_em,
            "exact match minus the champion's, lower end of the interval",
        ),
        _at_most(
            "cost_ratio",
            comparison.cost_ratio,
            params.max_cost_ratio,
            "USD on these questions over the champion's",
            comparison.cost_bounds,
        ),
    ]


def _unseen(challenger: Metrics, comparison: Comparison | None, params: GateParams) -> list[Rule]:
    """Rules on unseen models: the floor if one is set, and the champion if both met the same pools."""
    rules = []
    if params.min_unseen_em is not None:
        rules.append(
            _at_least(
                "unseen_pool",
                challenger.unseen_em,
                params.min_unseen_em,
                "exact match with models that training never saw",
                challenger.intervals.get("unseen_em"),
            )
        )
    if params.min_worst_change is not None:
        rules.append(
            _at_least(
                "worst_change",
                challenger.worst_change,
                params.min_worst_change,
                "exact match over that of best-on-cards, on the changed pool where it is the smallest",
            )
        )
    if comparison is not None and comparison.unseen_em is not None:
        rules.append(
            _no_worse(
                "unseen_difference",
                comparison.unseen_em,
                params.margin_unseen_em,
                "the same minus the champion's, lower end of the interval",
            )
        )
    return rules


def _no_worse(name: str, difference: "Difference | None", margin: float, what: str) -> Rule:
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


def _at_least(
    name: str, figure: float | None, limit: float, what: str, interval: Bounds | None = None
) -> Rule:
    return _held(name, figure, limit, what, ">=", interval)


def _at_most(
    name: str, figure: float | None, limit: float, what: str, interval: Bounds | None = None
) -> Rule:
    return _held(name, figure, limit, what, "<=", interval)


def _held(
    name: str, figure: float | None, limit: float, what: str, sign: str, interval: Bounds | None
) -> Rule:
    if figure is None or not math.isfinite(figure):
        return Rule(name, None, None, limit, False, f"{what}: not measured, or not finite")
    # Figures are means of floats, so rounding errors must not decide.
    near = math.isclose(figure, limit, rel_tol=1e-9, abs_tol=1e-12)
    passed = near or (figure > limit if sign == ">=" else figure < limit)
    relation = sign if passed else f"is not {sign}"
    return Rule(
        name, figure, interval, limit, passed, f"{what}: {figure:.4g} {relation} {limit:.4g}"
    )


def to_tags(decision: Decision) -> dict[str, str]:
    """Each rule by name as compact JSON: figure, low, high, limit, verdict."""
    tags = {}
    for rule in decision.rules:
        low, high = rule.interval or (None, None)
        line: dict[str, float | str | None] = {
            "figure": _rounded(rule.figure),
            "low": _rounded(low),
            "high": _rounded(high),
            "limit": _rounded(rule.limit),
            "verdict": "pass" if rule.passed else "FAIL",
        }
        tags[rule.name] = json.dumps(line, separators=(",", ":"), allow_nan=False)
    return tags


def _rounded(value: float | None) -> float | None:
    """Six significant digits; None for a value that JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def to_markdown(decision: Decision, facts: Mapping[str, str] | None = None) -> str:
    """The decision as a page; `facts` (challenger, champion, run ...) are listed above the rules."""
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
