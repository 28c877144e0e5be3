"""The advice for the person who decides, on rows worked by hand."""

from math import ceil

from routerr1.config import Params
from routerr1.evaluate.results import EvaluationTable
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import Evaluation
from routerr1.report.advice import advice_section, advise
from routerr1.report.outputs import evaluation_table
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
    assert "costs 50% of it" in said
    assert "B is never worth calling" in said
    assert "weakest on places (EM 0.90, n = 20)" in said
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
    assert "It fails on none of these questions." in section.points
    assert section.parts == ()


def test_few_questions_are_a_hint(params: Params):
    parts = [
        [each for each in rows(name, right, 0.001) if each.question_id < "q10"]
        for name, right in (("baseline/knn", 1.0), ("best_single", 0.1), ("fixed/A", 0.1))
    ]
    table = table_of(params, *parts, reference="baseline/knn")
    section = advice_section(table, [r for own in parts for r in own], params.gate)
    assert section.points[0].startswith("10 independent test questions are too few")
