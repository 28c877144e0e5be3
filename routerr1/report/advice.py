"""Is it worth it? Plain sentences for the person who decides, from the evaluation and the gate's limits.

A router is worth using instead of the best single model if it answers more questions, or if it answers no
fewer and costs less. The evaluation must show that with the gate's interval and margin. Of few questions
the interval of a router without a loss ends at 0, so these must show more right answers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from routerr1.config import GateParams
from routerr1.evaluate.controls import BEST_SINGLE, BOUNDS, CLOSED_BOOK, POLICY, RANDOM
from routerr1.evaluate.results import Comparison, EvaluationTable, RouterResult
from routerr1.evaluate.routers import RouterId, is_learned
from routerr1.evaluate.rows import Row
from routerr1.report.formatting import number
from routerr1.report.glossary import label
from routerr1.report.sections import Section, table_of
from routerr1.report.summary import needless, one_of_each_group, reference_answers

_NOTHING = 0.02  # EM of the best router below which there is nothing to advise
_TOPICS, _EXAMPLES = 3, 5  # of the weakest topics, and failures of each
_FEW = 20  # independent test questions
_WITHOUT_POOL = frozenset(
    f"baseline/{name}" for name in ("direct", "cot", "sft", "rag", "search_r1")
)
_FOREVER = 100  # times the questions of this test: no number that anybody collects


@dataclass(frozen=True, slots=True)
class Advice:
    """What to use here.

    Attributes:
        router: as in the rows.
        gain: its EM minus the best single model's; None if it is that model.
        worth_it: False if one model for all questions is as good.
    """

    router: str
    gain: Comparison | None
    worth_it: bool


def advise(table: EvaluationTable, gate: GateParams) -> Advice:
    """The router to use: the one preferred before the test, if the test confirms it; else the best confirmed.

    The policy, or without one the router that did best on validation, was preferred before the test. It is not
    advised if one that is as good costs so much less that the gate would refuse it beside that. If the gate would
    refuse it beside the best learned router, the advice is a router that it would take, if one is confirmed.

    Raises: DataError if the table holds no best single model.
    """
    best = table.router(BEST_SINGLE)
    confirmed = {entry.router: entry for entry in _usable(table) if _is_worth(entry, table, gate)}
    if not confirmed:
        return Advice(BEST_SINGLE, None, worth_it=False)
    if POLICY in confirmed and not _passes_beside_learned(POLICY, table, gate):
        passing = {
            name: entry
            for name, entry in confirmed.items()
            if _passes_beside_learned(name, table, gate)
        }
        confirmed = passing or confirmed
    leading = max(entry.em.mean for entry in confirmed.values())
    good = [e for e in confirmed.values() if e.em.mean >= leading - gate.margin_em]
    chosen = min(good, key=lambda e: (e.cost_usd.mean, e.router))
    asked = [e for e in good if e.router == table.reference]
    if asked and asked[0].cost_usd.mean <= gate.max_rival_cost_ratio * chosen.cost_usd.mean:
        chosen = asked[0]
    return Advice(chosen.router, _gap(table, chosen.router, best.router), worth_it=True)


def _usable(table: EvaluationTable) -> list[RouterResult]:
    """Routers that can be used: no bounds, no chance, no single model, and none that calls no model of the pool."""
    left_out = {*BOUNDS, RANDOM, CLOSED_BOOK, BEST_SINGLE, *_WITHOUT_POOL}
    return [
        entry
        for entry in table.routers
        if entry.router not in left_out and RouterId.parse(entry.router).kind != "fixed"
    ]


def _is_worth(entry: RouterResult, table: EvaluationTable, gate: GateParams) -> bool:
    em = _gap(table, entry.router, BEST_SINGLE)
    cost = table.pairs.between(entry.router, BEST_SINGLE).difference["cost_usd"]
    if em.low is None:
        return False
    affordable = gate.max_cost_usd is None or entry.cost_usd.mean <= gate.max_cost_usd
    cheaper = cost.high is not None and cost.high < 0
    as_good = em.low >= -gate.margin_em and table.groups >= _FEW
    return affordable and (em.low > 0 or (as_good and cheaper))


def _passes_beside_learned(router: str, table: EvaluationTable, gate: GateParams) -> bool:
    """What the gate's rule `best_learned` says."""
    learned = [entry for entry in table.routers if is_learned(entry.router)]
    if not learned or gate.margin_best_learned is None:
        return True
    rival = min(learned, key=lambda e: (-e.em.mean, e.cost_usd.mean, e.router))
    if rival.router == router:
        return True
    low = _gap(table, router, rival.router).low
    dear = table.router(router).cost_usd.mean > gate.max_rival_cost_ratio * rival.cost_usd.mean
    return low is not None and (low > 0 if dear else low >= -gate.margin_best_learned)


def _gap(table: EvaluationTable, router: str, other: str) -> Comparison:
    return table.pairs.between(router, other).difference["em"]


def advice_section(
    table: EvaluationTable,
    rows: Sequence[Row],
    gate: GateParams,
    *,
    validation: int | None = None,
) -> Section:
    """The first section of the report.

    Args:
        validation: questions of the validation split, if they are known.
    """
    highest = max(entry.em.mean for entry in table.routers if entry.router not in BOUNDS)
    if highest < _NOTHING:
        return Section(
            "Is it worth it?",
            f"From n = {table.n} questions in {table.groups} independent groups.",
            points=(
                f"Nothing answers here: the best router is right on {highest:.1%} of the questions. Take this as "
                "a smoke run; there is nothing to advise.",
            ),
        )
    found = advise(table, gate)
    mine = [row for row in rows if row.router == found.router]
    points = [
        *_caution(table),
        *_few_to_choose_by(validation),
        *_verdict(found, table),
        *_policy_words(found, table),
        *_better_without_pool(found, table),
        *_needless(rows, table.router(found.router).collapse.call_share),
        *_weak_topics(found.router, mine),
        *_undecided(found, table),
    ]
    return Section(
        "Is it worth it?",
        f"From n = {table.n} questions in {table.groups} independent groups; "
        f"{round(100 * table.confidence)} % intervals.",
        points=tuple(points),
        parts=_failures(mine),
    )


def _caution(table: EvaluationTable) -> list[str]:
    if table.groups >= _FEW:
        return []
    return [
        f"{table.groups} independent test questions are too few for a decision: take this as a hint, and bring at "
        f"least {_FEW}."
    ]


def _few_to_choose_by(validation: int | None) -> list[str]:
    if validation is None or validation >= _FEW:
        return []
    return [
        f"{validation} validation questions are few to choose the preferred router by: "
        f"bring at least {_FEW}."
    ]


def _verdict(found: Advice, table: EvaluationTable) -> list[str]:
    best = table.router(BEST_SINGLE)
    model = " or ".join(dict.fromkeys(table.best_single.values()))
    alone = (
        f"Always calling the best model ({model}) answers {_share(best)} and costs {_price(best)}."
    )
    if found.gain is None and table.groups < _FEW:
        return [
            f"Undecided. Until more questions are tested, use one model for all questions: {model}.",
            alone,
            *_hindsight(found, table),
        ]
    if found.gain is None:
        return [
            f"Use one model for all questions: {model}. Routing is not worth it here: no router is shown to "
            "answer more questions, or as many for less money.",
            alone,
            *_hindsight(found, table),
        ]
    chosen = table.router(found.router)
    return [
        f"Use {_called(found.router)}. It answers {_share(chosen)} and costs {_price(chosen)}.",
        f"{alone} {_sentence(found.router)} answers {_points(found.gain)} than that, "
        f"and costs {_times(table, chosen, best)}.",
        *_hindsight(found, table),
    ]


def _hindsight(found: Advice, table: EvaluationTable) -> list[str]:
    """A single model that does better on the test than the chosen one, or as well for less."""
    singles = [e for e in table.routers if RouterId.parse(e.router).kind == "fixed"]
    top = max(singles, key=lambda entry: (entry.em.mean, -entry.cost_usd.mean), default=None)
    best = table.router(BEST_SINGLE)
    if top is None or (top.em.mean, -top.cost_usd.mean) <= (best.em.mean, -best.cost_usd.mean):
        return []
    name = RouterId.parse(top.router).name
    said = (
        f"On these very questions {name} alone answers {_share(top)} and costs {_price(top)}, which "
        "probes and validation did not show"
    )
    if found.gain is None:
        return [f"{said}."]
    gap = _gap(table, found.router, top.router)
    return [f"{said}; {_name(found.router)} answers {_points(gap)} than that."]


def _policy_words(found: Advice, table: EvaluationTable) -> list[str]:
    if not table.has_policy:
        return []
    if found.router == POLICY:
        return []
    policy = table.router(POLICY)
    gap = _gap(table, POLICY, found.router)
    against = "one model for all questions" if found.gain is None else _name(found.router)
    if gap.mean > 0 and not gap.is_clear and found.gain is not None:
        chosen = table.router(found.router)
        return [
            f"The trained policy answers {_share(policy)}, costs {_price(policy)} ({_times(table, policy, chosen)}), and "
            f"answers {_points(gap)} than {against}. That is not enough for the gate (gate.margin_best_learned, "
            "gate.max_rival_cost_ratio).",
            *_settled_by(gap, table),
        ]
    return [
        f"The trained policy is not the best choice here: it answers {_share(policy)}, costs {_price(policy)}, and "
        f"answers {_points(gap)} than {against}."
    ]


def _better_without_pool(found: Advice, table: EvaluationTable) -> list[str]:
    """What answers more without the pool: a corpus to search may hold the answers."""
    best = max(
        (entry for entry in table.routers if entry.router in _WITHOUT_POOL),
        key=lambda entry: entry.em.mean,
        default=None,
    )
    if best is None or best.em.mean <= table.router(found.router).em.mean:
        return []
    return [
        f"{_called(best.router)} answers {best.em.mean:.1%} and calls no model of the pool: if it searches, ask "
        "whether its corpus is there where you answer questions."
    ]


def _needless(rows: Sequence[Row], shares: Mapping[str, float]) -> list[str]:
    names = needless(rows, shares)
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    return [
        f"{', '.join(names)} {verb} never worth calling: on every topic another model answers as many of these "
        "questions for no more money."
    ]


def _weak_topics(router: str, mine: Sequence[Row]) -> list[str]:
    topics = _by_topic(mine)
    weak = [each for each in topics if each[1] < 1][:_TOPICS]
    if not any(row.em < 1 for row in mine):
        return [f"{_sentence(router)} fails on none of these questions."]
    if len(topics) < 2:
        return []
    named = [f"{topic} (EM {number(em, 2)}, n = {len(own)})" for topic, em, own in weak]
    return [f"{_sentence(router)} is weakest on {', '.join(named)}."]


def _by_topic(mine: Sequence[Row]) -> list[tuple[str, float, list[Row]]]:
    """Topic, EM and rows, the weakest topic first."""
    topics: dict[str, list[Row]] = {}
    for row in mine:
        topics.setdefault(row.topic or row.dataset, []).append(row)
    found = [(topic, fmean(row.em for row in own), own) for topic, own in topics.items()]
    return sorted(found, key=lambda each: (each[1], each[0]))


def _failures(mine: Sequence[Row]) -> tuple[Section, ...]:
    lines = [
        (topic, row.question, row.answer or "no answer", " or ".join(reference_answers(row)))
        for topic, _, own in _by_topic(mine)[:_TOPICS]
        for row in one_of_each_group((row for row in own if row.em < 1), _EXAMPLES)
    ]
    if not lines:
        return ()
    heads = ("Topic", "Question", "Answer", "Reference")
    return (Section("Where it fails: examples", table=table_of(heads, lines), folded=True),)


def _undecided(found: Advice, table: EvaluationTable) -> list[str]:
    """How many questions would settle what this test leaves open."""
    gaps = {entry.router: _gap(table, entry.router, BEST_SINGLE) for entry in _usable(table)}
    open_ = {name: gap for name, gap in gaps.items() if not gap.is_clear and gap.mean > 0}
    if found.worth_it and found.gain is not None and found.gain.is_clear:
        return []
    best = table.router(BEST_SINGLE)
    equal = [
        entry
        for entry in _usable(table)
        if gaps[entry.router].mean == 0 and entry.cost_usd.mean < best.cost_usd.mean
    ]
    if not open_ and equal and found.gain is None:
        cheapest = min(equal, key=lambda entry: entry.cost_usd.mean)
        return [
            f"Undecided: {_called(cheapest.router)} answers as many of these questions as the best single model, "
            f"and costs {_times(table, cheapest, best)}; {table.n} questions are too few to show that it is as good."
        ]
    if not open_:
        return [
            "More questions would hardly change this: no router is ahead of the best single model."
        ]
    name, gap = max(open_.items(), key=lambda item: item[1].mean)
    if gap.mde is None:
        return [f"One group of questions cannot show whether {_name(name)} is better; bring more."]
    settled = _settled_by(gap, table)
    if not settled:
        return [
            f"{_sentence(name)} and the best single model are too close for any test of a usual size."
        ]
    return [
        f"Undecided: {_name(name)} answers {_points(gap)} than the best single model. {settled[0]}"
    ]


def _settled_by(gap: Comparison, table: EvaluationTable) -> list[str]:
    """The number of questions that would show a difference of this size; none if it is too large."""
    needed = math.ceil(table.n * (gap.mde / gap.mean) ** 2) if gap.mde and gap.mean else math.inf
    if needed > _FOREVER * table.n:
        return []
    return [
        f"A test of about {needed:,} questions in place of {table.n} would settle a difference of this size in four "
        "of five cases."
    ]


def _name(router: str) -> str:
    return "the trained policy" if router == POLICY else label(router)


def _called(router: str) -> str:
    """The router with its name for commands in brackets."""
    return _name(router) if router == POLICY else f"{label(router)} ({router})"


def _sentence(router: str) -> str:
    return "The trained policy" if router == POLICY else label(router)


def _share(entry: RouterResult) -> str:
    em = entry.em
    if em.low is None or em.high is None:
        return f"{em.mean:.1%} of the questions"
    return f"{em.mean:.1%} of the questions ({em.low:.1%} to {em.high:.1%})"


def _price(entry: RouterResult) -> str:
    return f"${number(entry.cost_usd.mean, 4, 1000)} per 1,000 questions"


def _points(gap: Comparison) -> str:
    """A difference in percentage points with its interval, ending in `more` or `fewer`."""
    low, high = number(gap.low, 1, 100, signed=True), number(gap.high, 1, 100, signed=True)
    more = "more" if gap.mean >= 0 else "fewer"
    return f"{abs(100 * gap.mean):.1f} percentage points ({low} to {high}) {more}"


def _times(table: EvaluationTable, chosen: RouterResult, best: RouterResult) -> str:
    """The cost as a share of the best's, with the interval of the difference."""
    mine, theirs = chosen.cost_usd.mean, best.cost_usd.mean
    if not theirs:
        return "the same" if not mine else "more, because the best model's calls are free"
    gap = table.pairs.between(chosen.router, best.router).difference["cost_usd"]
    low, high = (number(usd, 4, 1000, signed=True) for usd in (gap.low, gap.high))
    return f"{mine / theirs:.0%} of it ({low} to {high} USD per 1,000 questions)"
