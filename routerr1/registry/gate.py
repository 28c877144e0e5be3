"""Whether a challenger may become champion: rules with a figure, an interval, a limit and a verdict.

Pure functions from measured values to a decision. A missing or non-finite figure fails its rule.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from routerr1.config import GateParams
from routerr1.evaluate.controls import BEST_SINGLE, POLICY
from routerr1.evaluate.routers import RouterId
from routerr1.metrics import routing_metrics
from routerr1.registry.rivals import RivalComparison, rival_rules
from routerr1.registry.rules import (
    Decision,
    Rule,
    at_least,
    at_most,
    better,
    no_worse,
    not_surely_worse,
)
from routerr1.registry.samples import (
    Bounds,
    EvalSample,
    Evidence,
    Sampling,
    bounds_of,
    cost_ratio,
    em_difference,
    paired,
)
from routerr1.registry.shadow_report import ShadowReport, shadow_rules

if TYPE_CHECKING:
    from routerr1.evaluate.stats import Difference, Interval


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
        champion_em: exact match of the champion on these questions; None as `em`.
        unseen_em: as `em`, on pools with unseen models; None if the two did not meet the same pools.
        same_measure: exact match means the same for both; `em` is None otherwise.
        task_em: `em` by task of the questions; empty if all have one.
    """

    same_pool: bool
    shared: float
    em: "Difference | None"
    cost_ratio: float | None
    cost_bounds: Bounds | None = None
    unseen_em: "Difference | None" = None
    champion_em: float | None = None
    same_measure: bool = True
    task_em: "Mapping[str, Difference]" = field(default_factory=dict)


class Setting(NamedTuple):
    """What a decision depends on beside the challenger's metrics and the champion's.

    Attributes:
        rivals: other routers of the challenger's evaluation, by role; None if its evidence is older than they.
        odd_prices: prices of its candidates that hardly any model has, in words.
        simulated: the challenger was judged on simulated candidates.
        serves_real: the registry has or had a champion that was judged on real ones, or is used with such a pool.
        has_champion: there is another version, beside which a shadow can be played.
        shadow: the report of the challenger beside it; None without one.
    """

    rivals: Mapping[str, RivalComparison] | None = MappingProxyType({})
    simulated: bool = False
    serves_real: bool = False
    has_champion: bool = False
    shadow: ShadowReport | None = None
    odd_prices: tuple[str, ...] = ()


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
            if each is not None and (bounds := bounds_of(each)) is not None
        },
        router=evidence.router,
        matching=", ".join(sorted({play.matching for play in samples})),
    )


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

    The exact match of a written answer and a reply that contains the answer are different measures, so they
    are not compared.
    """
    both = (challenger, champion)
    same_kind = (challenger.router == POLICY) == (champion.router == POLICY)
    same_measure = same_kind or all(each.judged_by_replies for each in both)
    pairs = paired(challenger.samples, champion.samples, lambda play: play.content)
    unseen = (
        paired(challenger.unseen, champion.unseen, lambda play: (play.pool, play.content))
        if challenger.unseen_pool == champion.unseen_pool
        else []
    )
    ratio, bounds = cost_ratio(pairs, sampling)
    em = em_difference(pairs, sampling) if same_measure else None
    return Comparison(
        same_measure=same_measure,
        same_pool=challenger.pool == champion.pool,
        shared=len(pairs) / max(len(challenger.samples), 1),
        em=em,
        champion_em=None if em is None else fmean(old.em for _, old in pairs),
        task_em=_by_task(pairs, sampling) if same_measure else {},
        cost_ratio=ratio,
        cost_bounds=bounds,
        # Over fewer pools it would measure something else than the floor does.
        unseen_em=em_difference(unseen, sampling)
        if len(unseen) == len(challenger.unseen)
        else None,
    )


def _by_task(
    pairs: Sequence[tuple[EvalSample, EvalSample]], sampling: Sampling
) -> "dict[str, Difference]":
    of_task: dict[str, list[tuple[EvalSample, EvalSample]]] = {}
    for pair in pairs:
        new, old = pair
        of_task.setdefault(new.task or old.task, []).append(pair)
    if len(of_task) < 2:
        return {}
    found = {task: em_difference(of_task[task], sampling) for task in sorted(of_task)}
    return {task: each for task, each in found.items() if each is not None}


def decide(
    challenger: Metrics,
    comparison: Comparison | None,
    params: GateParams,
    setting: Setting = Setting(),  # noqa: B008  # frozen
) -> Decision:
    """Apply the rules: against the champion, or against absolute floors if there is no comparison."""
    bounds = challenger.intervals
    versus = (
        [
            at_least(
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
            at_most(
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
        *rival_rules(challenger.router, setting.rivals, params),
        *_real(setting, params),
        *_prices(setting),
        *shadow_rules(setting.shadow, params, has_champion=setting.has_champion),
        *ceiling,
        at_least(
            "format",
            challenger.format_valid,
            params.min_format_valid,
            "share of trajectories that keep the protocol",
            bounds.get("format_valid"),
        ),
        at_most(
            "top_model",
            challenger.top_model_share,
            params.max_top_model_share,
            "share of calls to the most called candidate",
        ),
        at_most(
            "no_call",
            challenger.no_call_rate,
            params.max_no_call_rate,
            "share of questions without a call",
            bounds.get("no_call_rate"),
        ),
        at_least(
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


def _real(setting: Setting, params: GateParams) -> list[Rule]:
    """Made-up models may not decide what answers in place of real ones."""
    if params.allow_simulated or not setting.serves_real:
        return []
    what = "1 if judged on replies of real models, which this registry serves"
    return [at_least("real_candidates", float(not setting.simulated), 1.0, what)]


def _prices(setting: Setting) -> list[Rule]:
    """A slip in a price would decide which candidates are called, and what a call is said to cost."""
    odd = setting.odd_prices
    if not odd:
        return []
    what = (
        "prices that hardly any model has; correct the pool file and run `dvc repro`, or name the "
        f"candidate in its prices.confirmed ({'; '.join(odd)})"
    )
    return [at_most("prices", float(len(odd)), 0.0, what)]


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
        at_least(
            "same_pool",
            float(comparison.same_pool),
            1.0,
            "1 if both had the same candidates, with the same prices and measured skill",
        ),
        at_least(
            "same_questions",
            comparison.shared,
            1.0,
            "share of the questions that the champion answered",
        ),
        _em_difference(comparison, params.margin_em),
        *_task_differences(comparison.task_em, params.margin_task_em),
        _cost_ratio(comparison, params.max_cost_ratio),
    ]


def _em_difference(comparison: Comparison, margin: float) -> Rule:
    what = "exact match minus the champion's, lower end of the interval"
    if not comparison.same_measure:
        what = (
            "of champion and challenger, one writes its answers and one answers with whole replies, which are judged "
            "otherwise; `routerr1 promote --without-comparison --why ...` decides without"
        )
    return no_worse("em_difference", comparison.em, margin, what)


def _task_differences(task_em: "Mapping[str, Difference]", margin: float | None) -> list[Rule]:
    """A gain on many questions may not hide a loss on the few of another task; it has to be beyond doubt."""
    if margin is None:
        return []
    return [
        not_surely_worse(
            f"em_difference_{task}",
            found,
            margin,
            f"exact match on questions of the task {task!r} minus the champion's, upper end of the interval",
        )
        for task, found in task_em.items()
    ]


def _cost_ratio(comparison: Comparison, limit: float) -> Rule:
    """At most `limit` times the champion's cost, or clearly better."""
    ratio, bounds = comparison.cost_ratio, comparison.cost_bounds
    rule = at_most("cost_ratio", ratio, limit, "USD on these questions over the champion's", bounds)
    em = comparison.em
    if ratio is None or not ratio > limit or rule.passed or em is None:  # NaN is not above either
        return rule
    gain = better("", em, "exact match minus the champion's, lower end of the interval")
    found = f"USD on these questions are {ratio:.3g} times the champion's (over {limit:g}, so it has to be better)"
    if comparison.champion_em is not None:
        before = comparison.champion_em
        found += f", exact match {before + em.mean:.3f}, of the champion {before:.3f}"
    remedy = "" if gain.passed else "; gate.max_cost_ratio allows more"
    return Rule("cost_ratio", ratio, bounds, limit, gain.passed, f"{found}: {gain.why}{remedy}")


def _unseen(challenger: Metrics, comparison: Comparison | None, params: GateParams) -> list[Rule]:
    """Rules on unseen models: the floor if one is set, and the champion if both met the same pools."""
    rules = []
    if params.min_unseen_em is not None:
        rules.append(
            at_least(
                "unseen_pool",
                challenger.unseen_em,
                params.min_unseen_em,
                "exact match with models that training never saw",
                challenger.intervals.get("unseen_em"),
            )
        )
    if params.min_worst_change is not None:
        rules.append(
            at_least(
                "worst_change",
                challenger.worst_change,
                params.min_worst_change,
                "exact match over that of best-on-cards, on the changed pool where it is the smallest",
            )
        )
    if comparison is not None and comparison.unseen_em is not None:
        rules.append(
            no_worse(
                "unseen_difference",
                comparison.unseen_em,
                params.margin_unseen_em,
                "the same minus the champion's, lower end of the interval",
            )
        )
    return rules
