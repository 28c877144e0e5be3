"""The report's first page, for a decision maker: which models to keep, what it costs, where it fails."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from statistics import fmean

from routerr1.evaluate.controls import BEST_SINGLE, POLICY
from routerr1.evaluate.results import Comparison, EvaluationTable, RouterResult
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.rows import Row
from routerr1.report.formatting import measured, number, shown
from routerr1.report.glossary import label
from routerr1.report.sections import Cell, Line, Section, Table, Tile, table_of

_KEPT = 0.02  # share of the policy's calls below which a model is hardly used
_RELIED = 0.1  # share of the calls from which a router relies on a model, question by question
_MAX_TOPICS = 12  # columns of the table of topics
_EXAMPLES = 2  # failed questions shown of each topic
_NO_TOPIC = "no single topic"
Part = Callable[[Row], str]
"""The group of a row."""


def summary_section(table: EvaluationTable, rows: Sequence[Row]) -> Section:
    """The answers in sentences, headline figures and a line for each candidate."""
    policy = table.router(table.reference)
    mine = _rows_of(rows, table.reference)
    points = [_quality_point(policy, table), *_against_best(policy, table)]
    points += [
        _models_point(policy, needless(rows, policy.collapse.call_share)),
        *_failures_point(mine),
    ]
    return Section(
        "Summary",
        points=tuple(points),
        tiles=_tiles(policy)[: None if table.has_policy else 3],
        table=_models_table(table, rows),
        note=f"Each model's own figures are {_alone_words(table)}.",
    )


def _alone_words(table: EvaluationTable) -> str:
    """How a candidate was evaluated alone."""
    if not table.takes_whole_replies:
        return "with the policy's text and that model for every call"
    return "of its replies to the whole questions"


def _alone_at_once(table: EvaluationTable) -> str:
    if not table.takes_whole_replies:
        return "with one model for every call and the policy's text"
    return "with one model for all of them"


def _subject(router: str) -> str:
    """A router at the beginning of a sentence."""
    return "The policy" if router == POLICY else label(router)


def _possessive(router: str) -> str:
    return "the policy's" if router == POLICY else f"{label(router)}'s"


def _tiles(policy: RouterResult) -> tuple[Tile, ...]:
    em, cost = measured(policy.em, "em"), measured(policy.cost_usd, "cost_usd")
    return (
        Tile("Exact match (EM)", em.text, f"{em.low} to {em.high}"),
        Tile("USD per 1,000 questions", cost.text, f"{cost.low} to {cost.high}"),
        Tile("Calls per question", shown("calls", policy.calls.mean)),
        Tile("Valid format", f"{shown('format_valid', policy.format_valid.mean)} %"),
    )


def _quality_point(policy: RouterResult, table: EvaluationTable) -> str:
    em = policy.em
    interval = (
        ""
        if em.low is None or em.high is None
        else f" ({round(100 * table.confidence)} % interval {em.low:.1%} to {em.high:.1%})"
    )
    return (
        f"{_subject(policy.router)} answers {em.mean:.1%} of {table.n} questions "
        f"{'right' if table.takes_whole_replies else 'exactly'}{interval}. Its calls cost "
        f"{_per_thousand(policy)} USD per 1,000 questions."
    )


def _against_best(policy: RouterResult, table: EvaluationTable) -> list[str]:
    known = {entry.router: entry for entry in table.routers}
    best = known.get(BEST_SINGLE)
    if best is None or best.router == policy.router:
        return []
    names = " or ".join(dict.fromkeys(table.best_single.values()))
    cost = _cost_words(_subject(policy.router), policy.cost_usd.mean, best.cost_usd.mean)
    return [
        f"Always calling the best model ({names}) costs {_per_thousand(best)} USD per 1,000 questions and is "
        f"right on {best.em.mean:.1%}. {cost} {_em_words(best.difference['em'])}"
    ]


def _cost_words(subject: str, mine: float, theirs: float) -> str:
    """A cost beside that of the best model.

    >>> [_cost_words("It", usd, 1.0) for usd in (0.9984, 0.8, 1.2, 2.5)]
    ['It costs about the same.', 'It costs 20% less.', 'It costs 20% more.', 'It costs 2.5 times as much.']
    """
    if mine == theirs:
        return f"{subject} costs the same."
    if theirs == 0:
        return "The best model's calls are free."
    percent = round(100 * (mine / theirs - 1))
    if percent == 0:
        return f"{subject} costs about the same."
    if percent >= 100:
        return f"{subject} costs {mine / theirs:.1f} times as much."
    return f"{subject} costs {abs(percent)}% {'more' if percent > 0 else 'less'}."


def _em_words(gap: Comparison) -> str:
    """The difference in words; only what the interval supports is called a difference."""
    if not gap.is_clear:
        return (
            "Their quality does not differ clearly: the interval of the difference includes zero."
        )
    better = "more" if gap.mean > 0 else "fewer"
    return f"It answers {100 * abs(gap.mean):.1f} percentage points {better} of the questions."


def _models_point(policy: RouterResult, needless: Collection[str]) -> str:
    shares = policy.collapse.call_share
    called = [name for name in _by_share(shares) if shares[name] >= _KEPT]
    if not called:
        return "Models to keep: the policy makes no calls, so it needs none of them."
    kept = [name for name in called if name not in needless] or called
    return (
        f"Models to keep: {', '.join(kept)}. Each gets at least {_KEPT:.0%} of "
        f"{_possessive(policy.router)} calls."
    )


def _by_share(shares: Mapping[str, float]) -> list[str]:
    return sorted(shares, key=lambda name: (-shares[name], name))


def _failures_point(mine: Sequence[Row]) -> list[str]:
    topics = _topics(mine)
    failed = [row for row in mine if row.em < 1]
    if not failed:
        return ["It fails on none of these questions."]
    causes = Counter(cause_of(row) for row in failed)
    cause, count = min(causes.items(), key=lambda item: (-item[1], item[0]))
    found = f"Where it fails: most often “{cause}” ({count} of {len(failed)} failures)."
    if len(topics) > 1:
        worst = min(topics, key=lambda topic: (_em(topics[topic]), topic))
        found += f" The weakest topic is {worst} (EM {_em(topics[worst]):.3f}, {len(topics[worst])} answers)."
    return [found]


def _models_table(table: EvaluationTable, rows: Sequence[Row]) -> Table | None:
    """Every candidate: its part in the policy's calls, its own figures and its best topics."""
    shares = table.router(table.reference).collapse.call_share
    alone = _alone(table)
    if not alone:
        return None
    best_at, spared = _best_topics(rows), needless(rows, shares)
    lines = []
    for name in sorted(
        alone, key=lambda name: (-shares.get(name, 0.0), -alone[name].em.mean, name)
    ):
        kept = shares.get(name, 0.0) >= _KEPT and name not in spared
        advice = "keep" if kept else "not worth calling" if name in spared else "hardly used"
        cells = (
            Cell(name),
            measured(alone[name].em, "em"),
            measured(alone[name].cost_usd, "cost_usd"),
            Cell(f"{100 * shares.get(name, 0.0):.0f}"),
            Cell(advice, tone="better" if kept else ""),
            Cell(", ".join(best_at.get(name, ())) or "–", words=True),
        )
        lines.append(Line(cells))
    heads = ("Model", "EM alone", "USD per 1,000 alone", "Share of calls, %", "Advice", "Best on")
    return Table(heads, tuple(lines))


def _alone(table: EvaluationTable) -> dict[str, RouterResult]:
    """Candidate -> the router that sends every call to it."""
    ids = {RouterId.parse(entry.router): entry for entry in table.routers}
    return {router.name: entry for router, entry in ids.items() if router.kind == "fixed"}


def _best_topics(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Candidate -> topics on which no other has a higher EM; the cheapest of equal ones, and zeros left out."""
    cells = _candidate_topics(rows)
    found: dict[str, list[str]] = {}
    for topic in sorted({topic for own in cells.values() for topic in own}):
        figures = {name: _figures(own[topic]) for name, own in cells.items() if topic in own}
        best = max(figures, key=lambda name: (figures[name][0], -figures[name][1], name))
        em, cost = figures[best]
        # Of models that differ in nothing no one is the best.
        if len(figures) > 1 and em > 0 and list(figures.values()).count((em, cost)) == 1:
            found.setdefault(best, []).append(topic)
    return found


def needless(rows: Sequence[Row], shares: Mapping[str, float]) -> list[str]:
    """Candidates that another one beats or equals on every topic, for no more money.

    Args:
        shares: candidate -> share of the calls of the router that is used; it relies on those with a tenth.
    """
    figures = {
        name: {topic: _figures(own) for topic, own in topics.items()}
        for name, topics in _candidate_topics(rows).items()
    }
    return [
        name
        for name, own in sorted(figures.items())
        if shares.get(name, 0.0) < _RELIED
        and all(_is_beaten(name, topic, figures) for topic in own)
    ]


def _figures(rows: Sequence[Row]) -> tuple[float, float]:
    return _em(rows), fmean(row.cost_usd for row in rows)


def _is_beaten(
    name: str, topic: str, figures: Mapping[str, Mapping[str, tuple[float, float]]]
) -> bool:
    em, cost = figures[name][topic]
    return any(
        own[topic][0] >= em and own[topic][1] <= cost and own[topic] != (em, cost)
        for other, own in figures.items()
        if other != name and topic in own
    )


def topics_section(table: EvaluationTable, rows: Sequence[Row]) -> Section | None:
    """EM of each candidate, and of the policy, on each topic; None without candidates or topics."""
    return _parts_section(table, rows, _topic, "topic")


def tasks_section(table: EvaluationTable, rows: Sequence[Row]) -> Section | None:
    """The same by task of the questions; None if all have one."""
    return _parts_section(table, rows, lambda row: row.task, "task")


def _parts_section(
    table: EvaluationTable, rows: Sequence[Row], part: Part, kind: str
) -> Section | None:
    cells = _candidate_parts(rows, part)
    reference = table.reference
    mine = _parts(_rows_of(rows, reference), part)
    if not cells or len(mine) < 2:
        return None
    topics = sorted(mine, key=lambda topic: (-len(mine[topic]), topic))[:_MAX_TOPICS]
    left_out = len(mine) - len(topics)
    alone = _alone(table)
    overall = table.router(reference).em.mean
    lines = [_topics_line(label(reference), mine, topics, overall, marked=True)]
    best = {
        topic: max(_em(own[topic]) for own in cells.values() if topic in own) for topic in topics
    }
    for name in sorted(cells, key=lambda name: (-alone[name].em.mean, name)):
        lines.append(_topics_line(name, cells[name], topics, alone[name].em.mean, best=best))
    sizes = [f"{topic} ({len({_question(row) for row in mine[topic]})})" for topic in topics]
    more = f" The {left_out} {kind}s with the fewest questions are left out." if left_out else ""
    return Section(
        f"Models and {kind}s",
        f"EM on the questions of each {kind}, {_alone_at_once(table)}. Green: the "
        f"best model of the {kind}. In brackets: questions.{more}",
        Table(("Model", "All", *sizes), tuple(lines)),
    )


def _topics_line(
    name: str,
    own: Mapping[str, Sequence[Row]],
    topics: Sequence[str],
    overall: float,
    *,
    best: Mapping[str, float] | None = None,
    marked: bool = False,
) -> Line:
    cells = [Cell(name), Cell(number(overall, 3))]
    for topic in topics:
        em = _em(own[topic]) if topic in own else None
        leads = best is not None and em is not None and em > 0 and em == best[topic]
        cells.append(Cell(number(em, 2), tone="better" if leads else ""))
    return Line(tuple(cells), marked=marked)


def failures_section(rows: Sequence[Row], reference: str = POLICY) -> Section:
    """The failures of a router by topic and cause, with examples."""
    mine = _rows_of(rows, reference)
    topics = _topics(mine)
    failed = {topic: [row for row in own if row.em < 1] for topic, own in topics.items()}
    causes = sorted({cause_of(row) for own in failed.values() for row in own})
    lines = []
    for topic in sorted(topics, key=lambda topic: (-len(failed[topic]), topic)):
        counts = Counter(map(cause_of, failed[topic]))
        cells = [Cell(topic), Cell(str(len(failed[topic]))), Cell(str(len(topics[topic])))]
        cells += [
            Cell(number(_em(topics[topic]), 3)),
            *(Cell(str(counts[each])) for each in causes),
        ]
        lines.append(Line(tuple(cells)))
    return Section(
        "Failures",
        f"{_possessive(reference).capitalize() if reference == POLICY else _possessive(reference)} wrong "
        "answers by topic, and the first cause that applies to each.",
        Table(("Topic", "Failures", "Answers", "EM", *map(str.capitalize, causes)), tuple(lines)),
        parts=(_examples(failed),) if any(failed.values()) else (),
    )


def _examples(failed: Mapping[str, Sequence[Row]]) -> Section:
    rows = []
    for topic in sorted(failed, key=lambda topic: (-len(failed[topic]), topic)):
        chosen = sorted(failed[topic], key=lambda row: (row.seed, row.dataset, row.question_id))
        rows += [
            (
                topic,
                row.question,
                row.answer if row.answer else "no answer",
                " or ".join(reference_answers(row)),
                ", ".join(row.called) or "no call",
                cause_of(row),
            )
            for row in one_of_each_group(chosen, _EXAMPLES)
        ]
    heads = ("Topic", "Question", "Answer", "Reference", "Called", "Cause")
    return Section(
        "Examples of failures",
        f"The first {_EXAMPLES} of each topic, no question in two wordings; the browser below has all of them.",
        table_of(heads, rows),
        folded=True,
    )


def one_of_each_group(rows: Iterable[Row], most: int) -> list[Row]:
    """The first row of each group, `most` at most: other wordings of a question show nothing new."""
    groups: dict[tuple[str, str], Row] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.group), row)
    return list(groups.values())[:most]


def cause_of(row: Row) -> str:
    """Why a wrong answer is wrong: the first of the causes, in the order of a rollout, that applies."""
    if row.rejected:
        return "put aside"
    if not row.format_valid:
        return "broken format"
    if not row.called:
        return "no call"
    if row.failures:
        return "a call failed"
    if row.best_calls < row.judged_calls:
        return "not the best model"
    if not row.answer:
        return "no answer"
    return "wrong in spite of the best model" if row.judged_calls else "wrong after its calls"


def reference_answers(row: Row) -> list[str]:
    """The reference answers of the row's question."""
    return [str(each) for each in json.loads(row.trajectory)["question"]["golden_answers"]]


def _candidate_topics(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Candidate -> topic -> the rows with that candidate for every call."""
    return _candidate_parts(rows, _topic)


def _candidate_parts(rows: Sequence[Row], part: Part) -> dict[str, dict[str, list[Row]]]:
    by_candidate: dict[str, list[Row]] = {}
    for row in rows:
        kind, name = RouterId.parse(row.router)
        if kind == "fixed":
            by_candidate.setdefault(name, []).append(row)
    return {name: _parts(own, part) for name, own in by_candidate.items()}


def _topics(rows: Iterable[Row]) -> dict[str, list[Row]]:
    return _parts(rows, _topic)


def _parts(rows: Iterable[Row], part: Part) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(part(row), []).append(row)
    return found


def _topic(row: Row) -> str:
    return row.topic or _NO_TOPIC


def _question(row: Row) -> tuple[str, str]:
    return (row.dataset, row.question_id)


def _rows_of(rows: Sequence[Row], router: str) -> list[Row]:
    return [row for row in rows if row.router == router]


def _em(rows: Sequence[Row]) -> float:
    return fmean(row.em for row in rows)


def _per_thousand(entry: RouterResult) -> str:
    return number(entry.cost_usd.mean, 4, 1000)
