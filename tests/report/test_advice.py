"""The advice for the person who decides, on rows worked by hand."""

from dataclasses import replace
from math import ceil

from routerr1.config import Params
from routerr1.evaluate.results import EvaluationTable
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import Evaluation
from routerr1.report.advice import advice_section, advise
from routerr1.report.outputs import evaluation_table
from routerr1.report.summary import one_of_each_group, summary_section
from tests.evaluate.made import row

N = 40


def rows(router: str, right: float, cost: float, called: str = "A") -> list[Row]:
    """The first `right` of N questions are answered; the first half asks about money, the other about places."""
    return [
        row(
            router=router, question_id=f"q{place:02}", em=float(place < right * N), cost_usd=cost,
            topic="money" if place < N / 2 else "places", called=[called], question=f"Question {place}?",
            trajectory='{"question": {"golden_answers": ["x"]}}', calls=1,
        )
        for place in range(N)
    ]  # fmt: skip


def table_of(params: Params, *routers: list[Row], reference: str) -> EvaluationTable:
    found = Evaluation([each for own in routers for each in own], {1: "A"}, reference)
    return evaluation_table(found, params.evaluate.replace(bootstrap=500))


def test_a_router_that_is_clearly_better_is_advised(params: Params):
    parts = [
        rows("baseline/knn", 0.95, 0.001), rows("best_single", 0.5, 0.002),
        rows("fixed/A", 0.5, 0.002), rows("fixed/B", 0.4, 0.003, "B"), rows("oracle", 1.0, 0.001),
        rows("random", 0.45, 0.002),
    ]  # fmt: skip
    table = table_of(params, *parts, reference="baseline/knn")
    found = advise(table, params.gate)
    assert (found.router, found.worth_it) == ("baseline/knn", True)
    said = " ".join(advice_section(table, [r for own in parts for r in own], params.gate).points)
    assert "Use kNN (baseline/knn). It answers 95.0% of the questions" in said
    assert "Always calling the best model (A) answers 50.0%" in said
    assert "kNN answers 45.0 percentage points" in said
    assert "costs 50% of it (-1.0000 to -1.0000 USD per 1,000 questions)" in said
    assert "B is never worth calling" in said
    assert "kNN is weakest on places (EM 0.90, n = 20)" in said
    assert "Undecided" not in said


def test_as_good_and_cheaper_is_worth_it_but_as_good_and_as_expensive_is_not(params: Params):
    single = [rows("best_single", 0.5, 0.002), rows("fixed/A", 0.5, 0.002)]
    cheap = table_of(params, rows("baseline/knn", 0.5, 0.0005), *single, reference="baseline/knn")
    assert advise(cheap, params.gate).router == "baseline/knn"
    same = table_of(params, rows("baseline/knn", 0.5, 0.002), *single, reference="baseline/knn")
    found = advise(same, params.gate)
    assert (found.router, found.worth_it, found.gain) == ("best_single", False, None)
    section = advice_section(same, single[0] + rows("baseline/knn", 0.5, 0.002), params.gate)
    assert section.points[0].startswith(
        "Use one model for all questions: A. Routing is not worth it"
    )


def test_a_policy_that_another_router_beats_is_called_so(params: Params):
    parts = [
        rows("policy", 0.5, 0.004), rows("baseline/knn", 0.95, 0.001),
        rows("best_single", 0.5, 0.002), rows("fixed/A", 0.5, 0.002),
    ]  # fmt: skip
    table = table_of(params, *parts, reference="policy")
    assert advise(table, params.gate).router == "baseline/knn"
    said = " ".join(advice_section(table, [r for own in parts for r in own], params.gate).points)
    assert "The trained policy is not the best choice here: it answers 50.0%" in said
    assert "fewer than kNN" in said


def test_a_policy_is_not_advised_where_another_router_is_as_good_for_far_less(params: Params):
    single = [rows("best_single", 0.5, 0.004), rows("fixed/A", 0.5, 0.004)]
    for usd, advised in ((0.0014, "policy"), (0.0016, "baseline/knn")):  # the gate's ratio is 1.5
        parts = [rows("policy", 0.9, usd), rows("baseline/knn", 0.9, 0.001), *single]
        assert advise(table_of(params, *parts, reference="policy"), params.gate).router == advised


def test_a_policy_that_the_gate_would_refuse_beside_a_cheaper_router_is_not_advised(params: Params):
    """Two of 40 more for twice the price: the lower end of the interval is 0."""
    single = [rows("best_single", 0.5, 0.004), rows("fixed/A", 0.5, 0.004)]
    learned = rows("baseline/frugal", 0.85, 0.001)
    gate = params.gate.replace(margin_best_learned=0.05)
    for usd, advised in ((0.0014, "policy"), (0.002, "baseline/frugal")):
        parts = [rows("policy", 0.9, usd), learned, *single]
        table = table_of(params, *parts, reference="policy")
        assert advise(table, gate).router == advised
    said = " ".join(advice_section(table, [r for own in parts for r in own], gate).points)
    assert (
        "costs $2.0000 per 1,000 questions (200% of it (+1.0000 to +1.0000 USD per 1,000 questions)), and answers 5.0 percentage points"
        in said
    )
    assert "not enough for the gate (gate.margin_best_learned" in said
    assert "would settle a difference of this size" in said
    assert advise(table, gate.replace(margin_best_learned=None)).router == "policy"


def test_what_answers_without_the_pool_is_named_and_not_advised(params: Params):
    parts = [
        rows("policy", 0.9, 0.001), rows("baseline/search_r1", 1.0, 0.0),
        rows("best_single", 0.5, 0.002), rows("fixed/A", 0.5, 0.002),
    ]  # fmt: skip
    table = table_of(params, *parts, reference="policy")
    assert advise(table, params.gate).router == "policy"
    said = " ".join(advice_section(table, [r for own in parts for r in own], params.gate).points)
    assert "Search-R1 (baseline/search_r1) answers 100.0% and calls no model of the pool" in said
    assert "not the best choice" not in said


def test_an_undecided_test_says_how_many_questions_would_settle_it(params: Params):
    parts = [
        rows("baseline/knn", 0.525, 0.002), rows("best_single", 0.5, 0.002),
        rows("fixed/A", 0.5, 0.002),
    ]  # fmt: skip
    table = table_of(params, *parts, reference="baseline/knn")
    gap = table.pairs.between("baseline/knn", "best_single").difference["em"]
    assert not gap.is_clear
    said = " ".join(advice_section(table, [r for own in parts for r in own], params.gate).points)
    assert gap.mde is not None
    assert f"A test of about {ceil(N * (gap.mde / gap.mean) ** 2):,} questions" in said


def test_no_failure_is_said_and_has_no_examples(params: Params):
    parts = [
        rows("baseline/knn", 1.0, 0.001), rows("best_single", 0.5, 0.002),
        rows("fixed/A", 0.5, 0.002),
    ]  # fmt: skip
    table = table_of(params, *parts, reference="baseline/knn")
    section = advice_section(table, [r for own in parts for r in own], params.gate)
    assert "kNN fails on none of these questions." in section.points
    assert section.parts == ()


def test_few_questions_are_a_hint(params: Params):
    parts = [
        [each for each in rows(name, right, 0.001) if each.question_id < "q10"]
        for name, right in (("baseline/knn", 1.0), ("best_single", 0.1), ("fixed/A", 0.1))
    ]
    table = table_of(params, *parts, reference="baseline/knn")
    section = advice_section(table, [r for own in parts for r in own], params.gate)
    assert section.points[0].startswith("10 independent test questions are too few")
    assert section.points[1].startswith("Use kNN")


def test_a_gain_of_few_questions_that_may_be_none_is_undecided(params: Params):
    """Two of eight gained, none lost: resampling finds no worse than +0.0, at half the price."""
    parts = [
        [each for each in rows(name, right, cost) if each.question_id < "q08"]
        for name, right, cost in (
            ("baseline/frugal", 0.1, 0.001), ("best_single", 0.05, 0.002), ("fixed/A", 0.05, 0.002),
        )
    ]  # fmt: skip
    table = table_of(params, *parts, reference="baseline/frugal")
    gap = table.pairs.between("baseline/frugal", "best_single").difference["em"]
    assert (gap.mean, gap.low) == (0.25, 0.0)
    found = advise(table, params.gate)
    assert (found.router, found.worth_it) == ("best_single", False)
    said = said_of(params, *parts)
    assert "Use FrugalGPT" not in said
    assert "Undecided. Until more questions are tested, use one model for all questions: A." in said
    assert "Undecided: FrugalGPT answers 25.0 percentage points (+0.0 to" in said
    assert "questions in place of 8 would settle" in said


def said_of(params: Params, *parts: list[Row], validation: int | None = None) -> str:
    table = table_of(params, *parts, reference=parts[0][0].router)
    every = [each for own in parts for each in own]
    return " ".join(advice_section(table, every, params.gate, validation=validation).points)


def test_a_model_that_ties_at_a_higher_price_is_never_worth_calling_though_it_is_called(
    params: Params,
):
    routed = rows("baseline/knn", 0.5, 0.001)
    routed[0] = rows("baseline/knn", 0.5, 0.001, "B")[0]  # 1 call of 40: 2.5 %
    parts = [
        routed, rows("best_single", 0.5, 0.001), rows("fixed/A", 0.5, 0.001),
        rows("fixed/B", 0.5, 0.017, "B"),
    ]  # fmt: skip
    assert "B is never worth calling" in said_of(params, *parts)
    table = table_of(params, *parts, reference="baseline/knn")
    summary = summary_section(table, [each for own in parts for each in own])
    assert summary.table is not None
    cells = {
        line.cells[0].text: [cell.text for cell in line.cells[4:]] for line in summary.table.lines
    }
    assert cells == {"A": ["keep", "money"], "B": ["not worth calling", "–"]}
    assert "Models to keep: A." in " ".join(summary.points)


def test_as_many_answers_for_less_money_are_mentioned_though_not_shown(params: Params):
    other = rows("baseline/knn", 0.5, 0.0001)
    # As many right answers, but to other questions: the interval is wide.
    other = [replace(each, em=float(place % 2)) for place, each in enumerate(other)]
    parts = [other, rows("best_single", 0.5, 0.002), rows("fixed/A", 0.5, 0.002)]
    said = said_of(params, *parts)
    assert "Undecided: kNN (baseline/knn) answers as many of these questions" in said
    assert "costs 5% of it" in said
    cheap = [*parts, rows("fixed/B", 0.5, 0.0001, "B")]
    assert "On these very questions B alone answers 50.0%" in said_of(params, *cheap)


def test_few_validation_questions_are_said(params: Params):
    parts = [rows("baseline/knn", 0.95, 0.001), rows("best_single", 0.5, 0.002), rows("fixed/A", 0.5, 0.002)]  # fmt: skip
    assert "6 validation questions are few" in said_of(params, *parts, validation=6)
    assert "validation" not in said_of(params, *parts, validation=60)


def test_where_nothing_answers_there_is_no_advice(params: Params):
    parts = [rows("baseline/knn", 0.0, 0.001), rows("best_single", 0.0, 0.002), rows("fixed/A", 0.0, 0.002)]  # fmt: skip
    said = said_of(params, *parts)
    assert said.startswith("Nothing answers here: the best router is right on 0.0%")
    assert "Use " not in said


def test_examples_show_a_question_in_one_wording_only():
    worded = [
        row(question_id=f"q{place}", group=f"g{place // 3}", question=f"Question {place}?")
        for place in range(9)
    ]
    assert [each.question_id for each in one_of_each_group(worded, 2)] == ["q0", "q3"]
    assert len(one_of_each_group(worded, 5)) == 3
