"""The gate's rules, one by one, on figures worked by hand."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routerr1.config import GateParams
from routerr1.evaluate.routers import LEARNED_ROUTERS
from routerr1.evaluate.stats import Difference
from routerr1.files import read_json, write_json
from routerr1.registry import gate
from routerr1.registry.evidence import read_evidence, write_evidence
from routerr1.registry.gate import Comparison, Metrics, Setting
from routerr1.registry.rivals import RivalComparison, compare_rivals
from routerr1.registry.rules import to_markdown, to_tags
from routerr1.registry.samples import EvalSample, Evidence, Rival, Sampling
from routerr1.registry.shadow_report import ShadowReport

PARAMS = GateParams(
    margin_em=0.02,
    max_cost_ratio=1.25,
    max_cost_usd=None,
    min_format_valid=0.95,
    min_em=0.3,
    max_top_model_share=0.9,
    max_no_call_rate=0.5,
    min_call_entropy=0.3,
    min_unseen_em=0.1,
    min_worst_change=0.8,
    margin_unseen_em=0.05,
)
GOOD = Metrics(
    questions=100,
    em=0.6,
    cost_usd=0.001,
    format_valid=1.0,
    top_model_share=0.5,
    no_call_rate=0.1,
    call_entropy=1.5,
    unseen_em=0.4,
    worst_change=0.9,
)
BETTER = Difference(mean=0.05, low=0.01, high=0.09, p=0.01, mde=0.06, n=100, groups=40)
AGAINST = Comparison(
    same_pool=True,
    shared=1.0,
    em=BETTER,
    cost_ratio=1.0,
    cost_bounds=(0.9, 1.1),
    unseen_em=replace(BETTER, mean=0.0, low=-0.04, high=0.04),
)
SAMPLING = Sampling(resamples=400, confidence=0.99, seed=5)


def play(
    name: str, em: float = 1.0, *called: str, cost: float = 0.001, pool: str = ""
) -> EvalSample:
    return EvalSample(f"line {name}", name, pool, name, em, cost, True, called)


def evidence(
    samples: list[EvalSample], unseen: Sequence[EvalSample] = (), **digests: str
) -> Evidence:
    return Evidence(samples, unseen, **{"pool": "p", "unseen_pool": "u", **digests})


def test_figures_are_means_and_shares_over_the_plays() -> None:
    samples = [
        play("1", 1.0, "a", "b", cost=0.4),
        play("2", 0.0, "a", "a", cost=0.2),
        replace(play("3", 1.0, cost=0.0), format_valid=False),
    ]
    # Calls: a 3 of 4, b 1 of 4; entropy 3/4 log2(4/3) + 1/4 log2 4 = 0.8113.
    found = gate.measure(evidence(samples, samples[:2]), SAMPLING)
    assert found.questions == 3
    assert found.em == pytest.approx(2 / 3)
    assert found.cost_usd == pytest.approx(0.2)
    assert found.format_valid == pytest.approx(2 / 3)
    assert (found.top_model_share, found.no_call_rate) == (0.75, pytest.approx(1 / 3))
    assert found.call_entropy == pytest.approx(0.8113, abs=1e-4)
    assert found.unseen_em == 0.5
    assert set(found.intervals) == {
        "em",
        "cost_usd",
        "format_valid",
        "no_call_rate",
        "unseen_em",
    }
    # Of 27 resamples of three one is the cheapest three times, one the dearest; 99 % take in both.
    assert found.intervals["cost_usd"] == (pytest.approx(0.0), pytest.approx(0.4))


def test_a_policy_that_answers_with_whole_replies_is_compared_with_a_router() -> None:
    """The first policy of a workspace meets a champion that was made without one."""
    samples = [play(f"{number}", number % 2, "a") for number in range(8)]
    router = evidence(samples)._replace(router="baseline/knn")
    policy = evidence([replace(each, em=1.0) for each in samples])
    found = gate.compare(policy._replace(whole_replies=True), router, SAMPLING)
    assert found.em is not None
    assert found.em.mean == 0.5
    other = gate.compare(policy._replace(whole_replies=False), router, SAMPLING)
    assert (other.em, gate.compare(policy, router, SAMPLING).em) == (None, None)
    newer = policy._replace(whole_replies=True)
    assert gate.compare(newer, policy, SAMPLING).em is not None  # registered before that was kept
    decided = gate.decide(gate.measure(policy, SAMPLING), other, PARAMS)
    assert any("--without-comparison" in why for why in decided.refusals)


def test_no_plays_measure_nothing_and_fail() -> None:
    found = gate.measure(evidence([]), SAMPLING)
    assert found.em is None
    assert not gate.decide(found, None, PARAMS).passed


def test_a_good_challenger_passes_each_rule_of_the_comparison() -> None:
    decision = gate.decide(GOOD, AGAINST, PARAMS)
    assert decision.passed
    assert [rule.name for rule in decision.rules] == [
        "same_pool",
        "same_questions",
        "em_difference",
        "cost_ratio",
        "format",
        "top_model",
        "no_call",
        "call_entropy",
        "unseen_pool",
        "worst_change",
        "unseen_difference",
    ]


def test_the_decision_names_the_rule_by_which_answers_are_compared() -> None:
    plain, other = play("1"), replace(play("2"), matching="text")
    squad = gate.measure(evidence([plain]), SAMPLING)
    assert gate.decide(squad, None, PARAMS).matching == "squad"
    both = gate.measure(evidence([plain, other]), SAMPLING)
    assert gate.decide(both, None, PARAMS).matching == "squad, text"


@pytest.mark.parametrize(
    ("change", "refused_by"),
    [
        ({"format_valid": 0.94}, "format"),
        ({"format_valid": math.inf}, "format"),
        ({"top_model_share": 0.91}, "top_model"),
        ({"no_call_rate": 0.51}, "no_call"),
        ({"call_entropy": 0.29}, "call_entropy"),
        ({"unseen_em": 0.09}, "unseen_pool"),
        ({"worst_change": 0.79}, "worst_change"),
        ({"worst_change": None}, "worst_change"),
        ({"unseen_em": None}, "unseen_pool"),
    ],
)
def test_one_bad_figure_refuses_by_its_own_rule(change: dict[str, float], refused_by: str) -> None:
    decision = gate.decide(replace(GOOD, **change), AGAINST, PARAMS)
    assert decision.refused_by == (refused_by,)


@pytest.mark.parametrize(
    ("change", "refused_by"),
    [
        ({"same_pool": False}, ("same_pool",)),
        ({"shared": 0.99}, ("same_questions",)),  # one that the champion did not play
        ({"em": None}, ("em_difference",)),
        ({"cost_ratio": math.nan}, ("cost_ratio",)),
        ({"cost_ratio": None}, ("cost_ratio",)),
        ({"unseen_em": replace(BETTER, low=-0.051)}, ("unseen_difference",)),
        ({"unseen_em": None}, ()),  # the floor holds alone
    ],
)
def test_one_bad_comparison_refuses_by_its_own_rule(
    change: dict[str, Any], refused_by: tuple[str, ...]
) -> None:
    assert gate.decide(GOOD, replace(AGAINST, **change), PARAMS).refused_by == refused_by


@pytest.mark.parametrize(
    ("low", "passed"), [(-0.019, True), (-0.02, True), (-0.0201, False), (math.nan, False)]
)
def test_the_lower_end_of_the_interval_may_lie_by_the_margin_below_zero(
    low: float, passed: bool
) -> None:
    against = replace(AGAINST, em=replace(BETTER, low=low))
    assert gate.decide(GOOD, against, PARAMS).passed is passed


@pytest.mark.parametrize(
    ("ratio", "low", "passed"),
    [
        (1.26, 0.001, True),
        (math.inf, 0.001, True),  # over a champion that paid nothing
        (1.26, 0.0, False),
        (1.26, None, False),  # a single group of questions
        (1.25, 0.0, True),
    ],
)
def test_a_challenger_that_is_dearer_than_the_champion_has_to_be_better(
    ratio: float, low: float | None, passed: bool
) -> None:
    difference = replace(BETTER, mean=0.166, low=low, high=None if low is None else 0.3)
    against = replace(AGAINST, cost_ratio=ratio, em=difference, champion_em=0.667)
    decision = gate.decide(GOOD, against, PARAMS)
    (rule,) = (rule for rule in decision.rules if rule.name == "cost_ratio")
    assert (rule.passed, rule.figure, rule.interval, rule.limit) == (
        passed,
        ratio,
        (0.9, 1.1),
        1.25,
    )
    if ratio > 1.25:
        assert "exact match 0.833, of the champion 0.667" in rule.why
        assert ("gate.max_cost_ratio allows more" in rule.why) is not passed
    if not passed:
        assert f"cost_ratio: {rule.why}" in decision.refusals


def test_prices_that_no_model_has_refuse_also_a_first_champion() -> None:
    setting = Setting(odd_prices=("candidate 'One': request_usd is 5000 USD for each call",))
    decision = gate.decide(GOOD, None, PARAMS, setting)
    assert decision.refused_by == ("prices",)
    assert "name the candidate in its prices.confirmed (candidate 'One': " in decision.refusals[0]


def test_without_a_floor_no_plays_on_new_models_are_asked_for() -> None:
    params = PARAMS.model_copy(update={"min_unseen_em": None})
    decision = gate.decide(replace(GOOD, unseen_em=None), None, params)
    assert decision.passed
    assert "unseen_pool" not in [rule.name for rule in decision.rules]


@pytest.mark.parametrize(
    ("margin", "high", "refused_by"),
    [(0.0, -0.01, ("em_difference_number",)), (0.0, 0.01, ()), (0.05, -0.01, ()), (None, -0.5, ()),
     (0.0, math.nan, ("em_difference_number",)), (0.0, None, ())],
)  # fmt: skip
def test_a_gain_does_not_hide_what_is_surely_lost_on_another_task(
    margin: float | None, high: float | None, refused_by: tuple[str, ...]
) -> None:
    low = None if high is None else -0.6
    tasks = {"short": BETTER, "number": replace(BETTER, mean=-0.3, low=low, high=high)}
    params = PARAMS.model_copy(update={"margin_task_em": margin})
    decision = gate.decide(GOOD, replace(AGAINST, task_em=tasks), params)
    assert decision.refused_by == refused_by


def test_a_task_of_few_groups_decides_nothing() -> None:
    lost = replace(BETTER, mean=-1.0, low=-1.0, high=-1.0)
    for groups, passed in ((9, True), (10, False)):
        tasks = {"short": BETTER, "long": replace(lost, groups=groups)}
        assert gate.decide(GOOD, replace(AGAINST, task_em=tasks), PARAMS).passed is passed


def test_the_task_of_evidence_that_is_older_than_tasks_is_that_of_the_other() -> None:
    new = [replace(play(f"q{i}"), task="number" if i < 4 else "short") for i in range(8)]
    old = [replace(each, task="") for each in new]
    for pair in ((new, old), (old, new)):
        found = gate.compare(*(evidence(side) for side in pair), SAMPLING)
        assert set(found.task_em) == {"number", "short"}


def test_tasks_are_compared_each_by_itself() -> None:
    new = [
        replace(play(f"q{i}", em=float(i < 8)), task="number" if i < 4 else "short")
        for i in range(8)
    ]
    old = [replace(each, em=0.0) for each in new[:4]] + [replace(each, em=1.0) for each in new[4:]]
    found = gate.compare(evidence(new), evidence(old), SAMPLING)
    assert {task: each.mean for task, each in found.task_em.items()} == {
        "number": 1.0,
        "short": 0.0,
    }
    one = [replace(each, task="short") for each in new]
    assert gate.compare(evidence(one), evidence(old), SAMPLING).task_em == {}


def test_a_single_group_of_questions_has_no_interval_and_proves_nothing() -> None:
    against = replace(AGAINST, em=replace(BETTER, low=None, high=None))
    decision = gate.decide(GOOD, against, PARAMS)
    assert decision.refused_by == ("em_difference",)
    assert "a single group of questions has none" in to_markdown(decision)


def test_a_first_champion_needs_the_floor_instead() -> None:
    assert gate.decide(GOOD, None, PARAMS).passed
    assert gate.decide(replace(GOOD, em=0.29), None, PARAMS).refused_by == ("em_floor",)
    assert gate.decide(replace(GOOD, em=math.nan), None, PARAMS).refused_by == ("em_floor",)


def test_a_cost_ceiling_holds_with_and_without_a_champion() -> None:
    params = PARAMS.model_copy(update={"max_cost_usd": 0.0009})
    assert gate.decide(GOOD, None, params).refused_by == ("cost",)
    assert gate.decide(GOOD, AGAINST, params).refused_by == ("cost",)


def test_a_champion_that_costs_nothing_allows_no_cost() -> None:
    free, dear = evidence([play("1", cost=0.0)]), evidence([play("1", cost=0.1)])
    found = gate.compare(free, free, SAMPLING)
    assert (found.cost_ratio, found.cost_bounds) == (1.0, None)
    against = gate.compare(dear, free, SAMPLING)
    assert gate.decide(GOOD, against, PARAMS).refused_by == ("cost_ratio",)


def test_the_comparison_pairs_questions_by_content_whatever_their_order() -> None:
    new = [play("1", 1.0), play("2", 1.0), play("3", 0.0), play("4", 1.0)]
    old = [play("4", 1.0, cost=0.002), play("2", 0.0), play("1", 1.0), play("9", 1.0)]
    found = gate.compare(evidence(new), evidence(old), SAMPLING)
    assert found.em is not None
    assert (found.em.n, found.em.mean) == (3, pytest.approx(1 / 3))  # 1: 0, 2: +1, 4: 0
    assert found.shared == 0.75
    assert found.cost_ratio == pytest.approx(0.75)  # 0.003 over 0.004
    assert found.cost_bounds == (pytest.approx(0.5), pytest.approx(1.0))


def test_another_question_of_the_same_id_is_another_question() -> None:
    """Imported questions may be named by their lines."""
    new = replace(play("1"), question_id="mine/mine_1")
    old = replace(play("2"), question_id="mine/mine_1")
    found = gate.compare(evidence([new]), evidence([old]), SAMPLING)
    assert (found.shared, found.em, found.cost_ratio) == (0.0, None, None)


def test_another_pool_is_told() -> None:
    one, other = evidence([play("1")]), evidence([play("1")], pool="other prices")
    assert gate.compare(one, one, SAMPLING).same_pool
    assert not gate.compare(one, other, SAMPLING).same_pool


def test_what_cannot_be_compared_gives_no_comparison() -> None:
    one, other = evidence([play("1")]), evidence([play("2")])
    assert gate.compare(one, other, SAMPLING).em is None
    assert gate.compare(evidence([play("1", math.nan)]), one, SAMPLING).em is None
    assert gate.compare(evidence([play("1", cost=math.nan)]), one, SAMPLING).cost_ratio is None


def test_new_models_are_compared_where_both_met_the_same_ones() -> None:
    home = [play("1")]
    new = evidence(home, [play("1", 0.0, pool="drawn"), play("1", 1.0, pool="added")])
    old = evidence(home, [play("1", 1.0, pool="added"), play("1", 1.0, pool="drawn")])
    found = gate.compare(new, old, SAMPLING).unseen_em
    assert found is not None
    assert (found.n, found.mean) == (2, -0.5)  # drawn: -1, added: 0
    for other in (
        old._replace(unseen_pool="others"),
        old._replace(unseen=old.unseen[:1]),
        evidence(home),
    ):
        assert gate.compare(new, other, SAMPLING).unseen_em is None


def test_the_page_shows_every_rule_with_its_verdict() -> None:
    bad = replace(GOOD, unseen_em=None, intervals={"format_valid": (0.97, 1.0)})
    page = to_markdown(gate.decide(bad, AGAINST, PARAMS), {"challenger": "3"})
    assert page.startswith("# Gate: refused\n\n- challenger: 3\n")
    assert "| em_difference | 0.05 | 0.01 to 0.09 | -0.02 | pass |" in page
    assert "| cost_ratio | 1 | 0.9 to 1.1 | 1.25 | pass |" in page
    assert "| format | 1 | 0.97 to 1 | 0.95 | pass |" in page
    assert "| unseen_pool | missing |  | 0.1 | **FAIL** |" in page


def test_a_tag_holds_figure_interval_limit_and_verdict() -> None:
    tags = to_tags(gate.decide(GOOD, replace(AGAINST, cost_ratio=math.nan), PARAMS))
    assert tags["em_difference"] == (
        '{"figure":0.05,"low":0.01,"high":0.09,"limit":-0.02,"verdict":"pass"}'
    )
    assert json.loads(tags["cost_ratio"]) == {
        "figure": None,
        "low": None,
        "high": None,
        "limit": 1.25,
        "verdict": "FAIL",
    }


FIGURE = st.none() | st.floats()


@given(em=FIGURE, ratio=FIGURE, share=FIGURE, unseen=FIGURE, low=st.floats())
@example(em=None, ratio=-math.inf, share=1.0, unseen=1.0, low=1.0)
def test_nothing_that_is_not_finite_ever_passes(
    em: float | None,
    ratio: float | None,
    share: float | None,
    unseen: float | None,
    low: float,
) -> None:
    new = replace(GOOD, em=em, format_valid=share, unseen_em=unseen)
    against = replace(AGAINST, cost_ratio=ratio, em=replace(BETTER, low=low))
    for decision, needed in (
        (gate.decide(new, against, PARAMS), (ratio, share, unseen, low)),
        (gate.decide(new, None, PARAMS), (em, share, unseen)),
    ):
        dearer = (
            low > 0 and needed[0] == math.inf
        )  # passes, where it is better than a free champion
        bad = [f for f in needed if f is None or not math.isfinite(f)]
        if len(bad) > dearer:
            assert not decision.passed
        assert to_markdown(decision).startswith("# Gate: ")
        assert all(json.loads(tag)["verdict"] for tag in to_tags(decision).values())


ASKED = PARAMS.model_copy(update={"margin_best_single": 0.02, "margin_best_learned": 0.05})
LEVEL = Difference(mean=0.0, low=-0.04, high=0.04, p=1.0, mde=0.06, n=100, groups=40)
RIVALS = {
    "best_single": RivalComparison("best_single", BETTER, 0.6),
    "best_learned": RivalComparison("baseline/knn", LEVEL, 1.2),
}


def refused(router: str = "policy", **rivals: RivalComparison | None) -> tuple[str, ...]:
    left = {role: each for role, each in {**RIVALS, **rivals}.items() if each is not None}
    return gate.decide(replace(GOOD, router=router), None, ASKED, Setting(left)).refused_by


def test_a_first_champion_is_not_worse_than_the_best_single_model_and_the_best_learned_router() -> (
    None
):
    assert refused() == ()
    # -0.04 is within the margin of 0.05 of the learned router, but not within 0.02 of the single one.
    assert refused(best_single=RivalComparison("best_single", LEVEL, 0.6)) == ("best_single",)
    worse = replace(LEVEL, mean=-0.03, low=-0.06)
    assert refused(best_learned=RivalComparison("baseline/knn", worse, 1.2)) == ("best_learned",)


def test_the_rules_hold_beside_those_of_the_comparison_with_a_champion() -> None:
    decision = gate.decide(GOOD, AGAINST, ASKED, Setting(RIVALS))
    assert decision.passed
    assert {"em_difference", "best_single", "best_learned"} <= {r.name for r in decision.rules}


def test_more_than_half_as_dear_again_a_challenger_has_to_be_better() -> None:
    level, better = (
        RivalComparison("baseline/knn", LEVEL, 1.51),
        replace(RIVALS["best_single"], cost_ratio=math.inf),
    )
    assert refused(best_learned=level) == ("best_learned",)
    assert refused(best_learned=replace(level, cost_ratio=1.5)) == ()
    assert refused(best_single=better) == ()  # a free rival, and a clear gain
    page = to_markdown(gate.decide(GOOD, None, ASKED, Setting({**RIVALS, "best_learned": level})))
    assert (
        "at 1.51 times its cost (over 1.5, so it has to be better), lower end of the interval: "
        "-0.04 is not > 0" in page
    )
    # At ten times the cost of a single model the same answers are not worth it.
    same = RivalComparison("best_single", replace(LEVEL, low=0.0, high=0.0), 10.0)
    assert refused(best_single=same) == ("best_single",)
    assert refused(best_single=replace(same, cost_ratio=1.0)) == ()


def test_a_rival_that_was_not_evaluated_or_not_on_these_questions_refuses() -> None:
    assert refused(best_learned=None) == ("best_learned",)
    assert refused(best_single=RivalComparison("best_single", None, None)) == ("best_single",)
    assert refused(best_single=RivalComparison("best_single", BETTER, None)) == ("best_single",)
    assert gate.decide(GOOD, None, PARAMS).passed  # where the parameters ask for none
    partly = RivalComparison("best_single", None, None, shared=0.25)
    page = to_markdown(gate.decide(GOOD, None, ASKED, Setting({"best_single": partly})))
    assert "that was measured on other questions, 0.25 of these are among them" in page
    assert "the evaluation has none; gate.margin_best_learned: null asks for none" in page


def test_evidence_that_is_older_than_rivals_is_read_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    write_evidence(path, evidence([play("1"), play("2")]))
    stored = read_json(path)
    write_json(path, {key: stored[key] for key in stored.keys() - {"rivals", "simulated"}})
    found = read_evidence(path)
    assert (found.samples, found.rivals, found.simulated) == ([play("1"), play("2")], None, None)
    found = found._replace(odd_prices=("candidate 'One': a slip",))
    write_evidence(path, found)
    assert read_evidence(path) == found
    setting = Setting(compare_rivals(found, SAMPLING))
    decision = gate.decide(GOOD, None, ASKED, setting)
    assert decision.refused_by == ("best_single", "best_learned")
    assert "the evidence of the version is older than this rule" in to_markdown(decision)
    learned = gate.decide(replace(GOOD, router="baseline/knn"), None, ASKED, setting)
    assert "best_learned" in learned.refused_by  # whether it is the best one is not known


def test_a_router_is_not_its_own_rival() -> None:
    assert refused("best_single", best_single=None) == ()
    assert refused("baseline/knn", best_learned=None) == ()
    assert refused("baseline/largest", best_learned=None) == ("best_learned",)


def test_rivals_are_compared_on_the_same_questions_at_their_cost() -> None:
    own = [play("1", 1.0, cost=0.002), play("2", 0.0, cost=0.001)]
    rival = Rival("baseline/knn", [play("2", 1.0, cost=0.001), play("1", 1.0, cost=0.001)])
    short = Rival("best_single", rival.samples[:1])
    found = compare_rivals(
        Evidence(own, (), "p", "u", rivals={"best_learned": rival, "best_single": short}), SAMPLING
    )
    assert found is not None
    learned = found["best_learned"]
    assert learned.em is not None
    assert (learned.em.mean, learned.cost_ratio) == (-0.5, pytest.approx(1.5))  # 0.003 over 0.002
    assert found["best_single"] == RivalComparison("best_single", None, None, shared=0.5)


def test_learned_routers_are_those_that_are_fitted_to_the_profile() -> None:
    from routerr1.baselines.build import LEARNED

    assert set(LEARNED_ROUTERS) == {*LEARNED, "frugal", "knn_multi_turn"}


def test_what_was_judged_on_simulated_models_does_not_follow_real_ones() -> None:
    toy = Setting(simulated=True, serves_real=True)
    assert gate.decide(GOOD, AGAINST, PARAMS, toy).refused_by == ("real_candidates",)
    assert gate.decide(GOOD, None, PARAMS, toy).refused_by == ("real_candidates",)
    assert gate.decide(GOOD, None, PARAMS, toy._replace(simulated=False)).passed
    assert gate.decide(GOOD, None, PARAMS, toy._replace(serves_real=False)).passed
    allowed = PARAMS.model_copy(update={"allow_simulated": True})
    assert gate.decide(GOOD, None, allowed, toy).passed


SHADOWED = PARAMS.replace(shadow={"min_pairs": 100, "margin_verdict": 0.1})
REPORT = ShadowReport(champion="3", pairs=120, verdict=0.0, low=-0.08, high=0.08)


@pytest.mark.parametrize(
    ("report", "refused_by"),
    [
        (REPORT, ()),
        (None, ("shadow_pairs", "shadow_verdict")),
        (REPORT.model_copy(update={"pairs": 99}), ("shadow_pairs",)),
        (REPORT.model_copy(update={"low": -0.11}), ("shadow_verdict",)),
        (REPORT.model_copy(update={"low": None}), ("shadow_verdict",)),
        (REPORT.model_copy(update={"low": math.inf}), ("shadow_verdict",)),
        (REPORT.model_copy(update={"verdict": math.nan}), ("shadow_verdict",)),
    ],
)
def test_the_gate_can_ask_for_a_shadow_report(
    report: ShadowReport | None, refused_by: tuple[str, ...]
) -> None:
    setting = Setting(has_champion=True, shadow=report)
    assert gate.decide(GOOD, AGAINST, SHADOWED, setting).refused_by == refused_by
    # A first champion has nothing to be a shadow of, and by default none is asked for.
    assert gate.decide(GOOD, None, SHADOWED, Setting()).passed
    assert gate.decide(GOOD, AGAINST, PARAMS, setting).passed
