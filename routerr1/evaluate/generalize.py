"""The trained policy on pools without retraining: new models, and every perturbation."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

from routerr1.config import EvaluateParams, GeneralizeParams
from routerr1.data.rewording import WORDINGS
from routerr1.errors import DataError
from routerr1.evaluate import controls
from routerr1.evaluate.controls import POLICY, Job, Policy, Router
from routerr1.evaluate.perturbations import (
    ADDED,
    DRAWN,
    Controls,
    Perturbation,
    Perturbations,
    mean_performance,
    perturb_pool,
)
from routerr1.evaluate.redrawn import CARDS, TopicOf, by_the_cards
from routerr1.evaluate.result_matrix import ResultMatrix
from routerr1.evaluate.results import (
    Comparison,
    Estimate,
    Flips,
    Generalization,
    Measure,
    PoolResult,
    Ratio,
)
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import (
    TRAINING_POOL,
    Progress,
    choose_questions,
    derived_rows,
    play_all,
)
from routerr1.evaluate.stats import SHARE, interval, paired_difference, ratio_interval
from routerr1.evaluate.store import Store
from routerr1.evaluate.table import range_of_difference, summarise
from routerr1.jobs.rejected import Rejected
from routerr1.matching import normalise
from routerr1.pool.base import Pool
from routerr1.pool.grading import Grade, compared
from routerr1.types import Card, Question

_Place = tuple[int, str, str]  # seed, data set, question
_Rows = Mapping[_Place, Row]


async def generalize(
    policies: Sequence[Policy],
    pool: Pool,
    new_models: Perturbations,
    questions: Sequence[Question],
    params: EvaluateParams,
    limits: GeneralizeParams,
    *,
    topic_of: TopicOf | None = None,
    few_probes: Sequence[Card] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    rejected: Rejected | None = None,
    grade: Grade = compared,
    processes: int = 1,
) -> tuple[list[Row], Perturbations]:
    """Evaluate each policy on the training pool, with new models and on every perturbation.

    Args:
        topic_of: with it, every perturbation is also played with each call sent to the candidate that is best by card.
        few_probes: see `perturb_pool`.
        grade, processes: see `play_all`.

    Returns: the rows, with the perturbation's name in `pool`, and all perturbations in order.
    Raises: DataError without questions; PoolError if the pool is too small to be perturbed.
    """
    chosen = choose_questions(questions, limits.max_questions, params.seed)
    control = None if topic_of is None else best_by_card(topic_of)
    home = [
        router
        for policy in policies
        for router in (
            controls.policy_router(policy, pool, TRAINING_POOL, params.seed),
            *(control(policy, pool, TRAINING_POOL, params.seed) if control else ()),
        )
    ]
    base = await play_all(
        _jobs(home, chosen), concurrency=params.concurrency, store=store, rejected=rejected,
        grade=grade,
    )  # fmt: skip
    favourite = most_called([row for row in base if row.router == POLICY], pool)
    perturbations = new_models + perturb_pool(
        pool, favourite, params.seed, policies[0].render, controls=control, few_probes=few_probes
    )
    away = [
        job for each in perturbations.made for job in _jobs_on(each, policies, chosen, params.seed)
    ]
    rows = await play_all(
        away, concurrency=params.concurrency, store=store, progress=progress, rejected=rejected,
        grade=grade, processes=processes,
    )  # fmt: skip
    for perturbation in perturbations.made:
        if perturbation.name in (DRAWN, ADDED):
            best = _best_on_cards(perturbation.pool)
            for policy in policies:
                rows += derived_rows(rows, perturbation.name, policy.seed, best)
    return [*base, *rows], perturbations


def best_by_card(topic_of: TopicOf) -> Controls:
    """The control of every perturbation: the policy's text, each call to the candidate that is best by card."""

    def made(policy: Policy, pool: Pool, name: str, seed: int) -> list[Router]:
        return [by_the_cards(policy, pool, topic_of, name, seed)]

    return made


def _jobs_on(
    perturbation: Perturbation, policies: Sequence[Policy], questions: Sequence[Question], seed: int
) -> list[Job]:
    def routers(pool: Pool) -> list[Router]:
        found: list[Router] = []
        for policy in policies:
            found.append(controls.policy_router(policy, pool, perturbation.name, seed))
            if perturbation.controls:
                found += perturbation.controls(policy, pool, perturbation.name, seed)
        return found

    if perturbation.reword:
        worded = [perturbation.reword(question) for question in questions]
        return [(router, question) for question, pool in worded for router in routers(pool)]
    if perturbation.redraw:
        drawn = [(routers(perturbation.redraw(question)), question) for question in questions]
        return [(router, question) for mine, question in drawn for router in mine]
    return _jobs(routers(perturbation.pool), questions)


def _best_on_cards(pool: Pool) -> str:
    """The candidate with the highest mean performance in profiling; the cheaper on ties."""
    best = min(
        pool.cards,
        key=lambda card: (-mean_performance(card), card.completion_usd_per_mtok, card.name),
    )
    return best.name


def _jobs(routers: Iterable[Router], questions: Sequence[Question]) -> list[Job]:
    return [(router, question) for router in routers for question in questions]


def most_called(rows: Iterable[Row], pool: Pool) -> str:
    """The candidate with the most calls; the first of the pool without any call."""
    counts = Counter(name for row in rows for name in row.called)
    order = [card.name for card in pool.cards]
    return max(order, key=lambda name: (counts[name], -order.index(name)))


def compare_pools(
    rows: Sequence[Row], perturbations: Perturbations, params: EvaluateParams
) -> Generalization:
    """The policy on every perturbed pool against the training pool, on the same questions."""
    home = [row for row in rows if row.pool == TRAINING_POOL]
    base = [row for row in home if row.router == POLICY]
    return Generalization(
        confidence=params.confidence,
        n=len({(row.dataset, row.question_id) for row in base}),
        groups=len({row.group for row in base}),
        training=summarise(base, params).router(POLICY),
        training_ratio=worst_ratio(home),
        pools=tuple(_compare(each, base, rows, params) for each in perturbations.made),
        not_made=dict(perturbations.not_made),
    )


def _compare(
    perturbation: Perturbation, base: Sequence[Row], rows: Sequence[Row], params: EvaluateParams
) -> PoolResult:
    here = [row for row in rows if row.pool == perturbation.name]
    table = summarise(here, params)
    before = {_place(row): row for row in base}
    after = {_place(row): row for row in here if row.router == POLICY}
    if before.keys() != after.keys():
        raise DataError(
            f"pool {perturbation.name}: the policy was not evaluated on the same questions"
        )
    measures: tuple[Measure, ...] = ("em", "f1", "cost_usd")
    return PoolResult(
        pool=perturbation.name,
        policy=table.router(POLICY),
        difference={what: _paired(what, before, after, params) for what in measures},
        target=perturbation.target,
        target_share=_share_of_calls(after.values(), perturbation.target, params),
        target_share_before=_share_of_calls(base, perturbation.target, params),
        flipped=Flips(
            answer=_share(before, after, _answers_differ, params),
            right_to_wrong=_share(before, after, lambda a, b: a.em > b.em, params),
            wrong_to_right=_share(before, after, lambda a, b: a.em < b.em, params),
        ),
        table=table if _has_table(perturbation) else None,
        ratio=worst_ratio(here),
    )


def _has_table(perturbation: Perturbation) -> bool:
    """Whether more than best-on-cards is played beside the policy."""
    shown = perturbation.redraw is not None or perturbation.name in (DRAWN, ADDED)
    return shown and perturbation.controls is not None


def worst_ratio(rows: Sequence[Row]) -> Ratio | None:
    """Exact match of the policy over that of best-on-cards on one pool, in the seed where it is the smallest.

    None without that control, or where it answers nothing right.
    """
    found = []
    for seed in sorted({row.seed for row in rows}):
        policy, control = (
            [row.em for row in rows if (row.seed, row.router) == (seed, name)]
            for name in (POLICY, CARDS)
        )
        if control and sum(control):
            right = sum(policy) / len(policy)
            found.append(Ratio(ratio=right / (sum(control) / len(control)), em=right, seed=seed))
    return min(found, key=lambda ratio: ratio.ratio, default=None)


def _place(row: Row) -> _Place:
    return (row.seed, row.dataset, row.question_id)


def _share_of_calls(
    rows: Iterable[Row], target: Sequence[str], params: EvaluateParams
) -> Estimate | None:
    """Share of calls that go to `target`; None without a target, or without a call."""
    matrix = ResultMatrix(list(rows))
    found = ratio_interval(
        matrix.map(lambda row: sum(name in target for name in row.called)),
        matrix.map(lambda row: len(row.called)),
        matrix.groups,
        within=SHARE,
        **_sampling(params),
    )
    return Estimate.of(found) if found and target else None


def _answers_differ(one: Row, other: Row) -> bool:
    return normalise(one.answer or "") != normalise(other.answer or "")


def _share(
    before: _Rows, after: _Rows, differs: Callable[[Row, Row], bool], params: EvaluateParams
) -> Estimate:
    """Share of questions that differ."""
    matrix = ResultMatrix(list(before.values()))
    changed = matrix.map(lambda row: differs(row, after[_place(row)]))
    return Estimate.of(interval(changed, matrix.groups, within=SHARE, **_sampling(params)))


class _Sampling(TypedDict):
    resamples: int
    confidence: float
    seed: int


def _sampling(params: EvaluateParams) -> _Sampling:
    return {
        "resamples": params.bootstrap, "confidence": params.confidence, "seed": params.seed,
    }  # fmt: skip


def _paired(measure: Measure, before: _Rows, after: _Rows, params: EvaluateParams) -> Comparison:
    """Perturbed minus training pool, on the same questions and seeds."""
    here, home = ResultMatrix(list(after.values())), ResultMatrix(list(before.values()))
    return Comparison.of(
        paired_difference(
            here.values(measure),
            home.values(measure),
            home.groups,
            within=range_of_difference(measure),
            **_sampling(params),
        )
    )


def headline(found: Generalization) -> dict[str, float]:
    """Headline metrics for `dvc metrics show` and MLflow; pools.json has every pool.

    `worst_change` is the smallest ratio to best-on-cards, `worst_em_delta` the largest loss of exact match, over
    all perturbed pools. `worst_wording` is the smallest share that is left of exact match where questions are worded
    otherwise.
    """
    deltas = {pool.pool: pool.difference["em"].mean for pool in found.pools}
    figures: dict[str, float] = {}
    for pool in found.pools:
        if pool.pool == DRAWN:
            figures["unseen_em"] = pool.policy.em.mean
    if deltas:
        figures["worst_em_delta"] = min(deltas.values())
    ratios = [pool.ratio.ratio for pool in found.pools if pool.ratio is not None]
    if ratios:
        figures["worst_change"] = min(ratios)
    worded = [pool.policy.em.mean for pool in found.pools if pool.pool in WORDINGS]
    if worded and found.training.em.mean:
        figures["worst_wording"] = min(worded) / found.training.em.mean
    return figures
