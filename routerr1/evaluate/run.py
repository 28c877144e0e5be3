"""Run any routers on any questions concurrently, one row each; a killed run resumes."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from routerr1.config import EvaluateParams, Params
from routerr1.data.contracts import evaluation_breaches
from routerr1.errors import BudgetExceeded, DataError, ungrouped
from routerr1.evaluate import controls
from routerr1.evaluate.controls import (
    BEST_OF_SINGLES,
    BEST_SINGLE,
    ORACLE,
    POLICY,
    Job,
    Policy,
    Router,
)
from routerr1.evaluate.processes import Take, parts_of, play_parts
from routerr1.evaluate.results import NOTHING_ASKED, LearningCost
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.rows import Row, row_of
from routerr1.evaluate.store import Key, Store
from routerr1.jobs.rejected import Fault, Rejected
from routerr1.pool.base import Pool
from routerr1.pool.grading import Grade, compared, graded
from routerr1.pool.profile import ProbeRow
from routerr1.prompt import Renderer
from routerr1.rollout.generate import Generator
from routerr1.rollout.loop import rejected as placeholder
from routerr1.types import Question, Trajectory

Progress = Callable[[int, int], None]
"""Called with (done, total) after each trajectory."""

TRAINING_POOL = "training"
WHOLE = "whole"  # pool of the rows that `best_of_singles` is chosen from
_VALIDATION = "validation"
_ALIKE = 0.02  # difference in EM on validation below which the cheaper router is preferred


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Rows of the evaluated split.

    Attributes:
        best_single: training seed -> the candidate that is best on probes and validation.
        reference: the router that the others are compared with.
        validated: what choosing the best single model asked.
    """

    rows: list[Row]
    best_single: Mapping[int, str]
    reference: str = POLICY
    validated: LearningCost = NOTHING_ASKED


def choose_questions(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """All questions, or `limit` drawn by seed and left in their order.

    Raises: DataError if there is none.
    """
    if not questions:
        raise DataError("the split to evaluate holds no question; run the dataset stage again")
    if limit is None or limit >= len(questions):
        return list(questions)
    drawn = np.random.default_rng(seed).choice(len(questions), size=limit, replace=False)
    return [questions[place] for place in sorted(drawn)]


def evaluation_jobs(
    policies: Iterable[Policy],
    pool: Pool,
    questions: Sequence[Question],
    validation: Sequence[Question],
    params: EvaluateParams,
    *,
    others: Iterable[Router] = (),
    wholes: Iterable[Router] = (),
    pool_name: str = TRAINING_POOL,
) -> list[Job]:
    """The policy of each training seed, every control and `others`, all on the same questions.

    Args:
        policies: one per training seed.
        questions: of the split to report, limited to `params.max_questions`.
        validation: the best single model is chosen on these, so that the choice never sees the
            test. The runs on them come last.
        others: further routers, such as baselines.
        wholes: each candidate with whole questions, on the pool `WHOLE`; only the best of them is
            reported.

    Raises: DataError without questions.
    """
    chosen = choose_questions(questions, params.max_questions, params.seed)
    held = choose_questions(validation, params.max_questions, params.seed)
    routers: list[Router] = []
    tryouts: list[Router] = []
    for policy in policies:
        routers.append(controls.policy_router(policy, pool, pool_name, params.seed))
        routers += controls.control_routers(policy, pool, pool_name, params.seed)
        tryouts += [
            controls.fixed_router(policy, pool, card.name, _VALIDATION, params.seed)
            for card in pool.cards
        ]
    routers += [*others, *wholes]
    return [(router, question) for router in routers for question in chosen] + [
        (router, question) for router in tryouts for question in held
    ]


def evaluation_of(rows: Sequence[Row], probes: Sequence[ProbeRow] = ()) -> Evaluation:
    """The rows of `evaluation_jobs` with the derived rows: best single model and oracles.

    Args:
        probes: what profiling heard, by which the best single model is chosen beside validation.
    """
    tested = [row for row in rows if row.pool not in (_VALIDATION, WHOLE)]
    tried = [row for row in rows if row.pool == _VALIDATION]
    best = {seed: best_single(tried, seed, probes) for seed in sorted({row.seed for row in tried})}
    pool_name = tested[0].pool
    for seed, name in best.items():
        tested += derived_rows(tested, pool_name, seed, name)
    wholes = _best_of_each([row for row in rows if row.pool == WHOLE])
    tested += [replace(row, pool=pool_name, router=BEST_OF_SINGLES) for row in wholes]
    with_policy = not tried or any(row.router == POLICY for row in tested)
    reference = POLICY if with_policy else preferred(tried, best)
    runs = [row for row in tried if RouterId.parse(row.router).kind == "fixed"]
    seeds = max(1, len(best))
    validated = LearningCost(
        calls=sum(row.calls for row in runs) / seeds,
        cost_usd=sum(row.cost_usd for row in runs) / seeds,
    )
    return Evaluation(tested, best, reference, validated)


def jobs_without_policy(
    routers: Callable[[str], Iterable[Router]],
    questions: Sequence[Question],
    validation: Sequence[Question],
    *,
    params: EvaluateParams,
    pool_name: str = TRAINING_POOL,
) -> list[Job]:
    """Every router on the evaluated questions, then on those of validation, by which one is preferred.

    Args:
        routers: makes the routers for the pool of a name.

    Raises: DataError without questions.
    """
    chosen = choose_questions(questions, params.max_questions, params.seed)
    held = choose_questions(validation, params.max_questions, params.seed)
    return [(router, question) for router in routers(pool_name) for question in chosen] + [
        (router, question)
        for router in routers(_VALIDATION)
        if router.name != controls.RANDOM
        for question in held
    ]


def preferred(tried: Sequence[Row], best_single: Mapping[int, str]) -> str:
    """The router to use, by the rows of validation: of those within `_ALIKE` of the highest EM the cheapest.

    One candidate for every question counts as one router, the best single model.
    """
    runs: dict[str, list[Row]] = {}
    for row in tried:
        kind, name = RouterId.parse(row.router)
        if kind != "fixed":
            runs.setdefault(row.router, []).append(row)
        elif name == best_single[row.seed]:
            runs.setdefault(BEST_SINGLE, []).append(row)
    em = {name: float(np.mean([row.em for row in rows])) for name, rows in runs.items()}
    cost = {name: float(np.mean([row.cost_usd for row in rows])) for name, rows in runs.items()}
    good = [name for name in sorted(runs) if em[name] >= max(em.values()) - _ALIKE]
    return min(good, key=lambda name: cost[name])


def policies_of(
    generators: Mapping[int, Generator], render: Renderer, params: Params
) -> list[Policy]:
    """The policy of each training seed, as it is evaluated."""
    temperature = params.evaluate.temperature
    return [
        Policy(seed, generator, render, params.rollout, temperature)
        for seed, generator in generators.items()
    ]


async def play_all(
    jobs: Sequence[Job],
    *,
    concurrency: int,
    store: Store | None = None,
    progress: Progress | None = None,
    rejected: Rejected | None = None,
    grade: Grade = compared,
    processes: int = 1,
) -> list[Row]:
    """Run every job that `store` does not have, at most `concurrency` at a time; rows in the jobs' order.

    Routers and data sets run side by side, so a slow one does not delay the others.

    Args:
        grade: of answers to questions whose task takes one.
        processes: of this machine, that play side by side. Budgets and records of calls are those of one process, so
            more are for free calls.
        rejected: where a row that breaks a contract is put; a row without answer, calls and cost takes its place.

    Raises: the first RouterError of a router, or DataError if too many rows break a contract (by default one);
        `store` keeps the other rows.
    """
    rejected = rejected or Rejected("evaluate")
    rejected.total += len(jobs)
    found: dict[Key, Row] = {}
    with store.open() if store else nullcontext(found) as earlier:
        wanted = [key_of(router, question) for router, question in jobs]
        found.update({key: earlier[key] for key in wanted if key in earlier})
        missing = [job for job, key in zip(jobs, wanted, strict=True) if key not in earlier]

        def take(played: Row | Fault) -> None:
            if isinstance(played, Fault):
                rejected.add(played)
                return
            found[played.key] = played
            if store:
                store.add(played)
            if progress:
                progress(len(found), len(jobs))

        try:
            with ungrouped():
                await play_parts(
                    parts_of(missing, processes),
                    partial(_play_part, concurrency=concurrency, grade=grade),
                    take,
                )
        except BudgetExceeded as spent:
            if store is None:
                raise
            raise BudgetExceeded(
                f"{spent}; {len(found)} rows are kept: raise pool.budget and run the stage again"
            ) from None
    return [found[key] for key in wanted]


async def _play_part(jobs: Sequence[Job], take: Take, *, concurrency: int, grade: Grade) -> None:
    learn(router for router, _ in jobs)
    slots = asyncio.Semaphore(concurrency)

    async def one(router: Router, question: Question) -> None:
        # Each router has its own budget and its own record for a question.
        player = f"{router.pool_name}/{router.name}/{router.seed}"
        async with slots:
            played = await graded(await router.play(question, player=player), grade)
            row = _checked_row(router, played, take)
        take(row)

    async with asyncio.TaskGroup() as group:
        for router, question in jobs:
            group.create_task(one(router, question))


def _checked_row(router: Router, played: Trajectory, take: Take) -> Row:
    """The row of a trajectory; if it breaks a contract `take` gets it, and the row is that of its placeholder."""
    row_for = partial(
        row_of,
        pool=router.pool_name,
        router=router.name,
        seed=router.seed,
        cards=router.pool.cards,
        judge=controls.judge_of(router.pool),
        whole_reply=router.whole_reply,
    )
    row = row_for(played)
    breaches = evaluation_breaches(asdict(row), router.pool.cards, written=not router.whole_reply)
    if not breaches:
        return row
    where = f"{row.pool} pool: trajectory {row.router}/{row.question_id}"
    take(Fault(where, str(breaches[0]), asdict(row)))
    return row_for(placeholder(played))


def learn(routers: Iterable[Router]) -> None:
    """Fit what the routers need, before the first call: fitting blocks the event loop."""
    for router in routers:
        if router.needs is not None:
            _, lesson = router.needs
            lesson()


def key_of(router: Router, question: Question) -> Key:
    """The key of the row of a router and a question."""
    return (router.pool_name, router.name, router.seed, question.dataset, question.id)


def best_single(rows: Iterable[Row], seed: int, probes: Iterable[ProbeRow] = ()) -> str:
    """The candidate that is right most often, over the runs in which it gets every call and its probes.

    On ties the cheaper run, then the first name. Probes are few for a topic and many for all: with 30
    validation questions alone, chance decides.
    """
    heard: dict[str, list[float]] = defaultdict(list)
    for probe in probes:
        heard[probe["candidate"]].append(probe["correct"])
    runs: dict[str, list[Row]] = {}
    for row in rows:
        kind, name = RouterId.parse(row.router)
        if row.seed == seed and kind == "fixed":
            runs.setdefault(name, []).append(row)
    return min(
        sorted(runs),
        key=lambda name: (
            -float(np.mean([row.em for row in runs[name]] + heard[name])),
            float(np.mean([row.cost_usd for row in runs[name]])),
        ),
    )


def derived_rows(rows: Sequence[Row], pool_name: str, seed: int, best: str) -> list[Row]:
    """Rows that are chosen among the runs with one candidate: best single and, if not there, the oracle.

    The oracle takes for each question the run with the highest EM, then F1, then the lowest cost.
    All have the trained policy's text. A baseline has another policy's text, so it may be above the
    oracle.
    """
    mine = [row for row in rows if row.pool == pool_name and row.seed == seed]
    runs = [row for row in mine if RouterId.parse(row.router).kind == "fixed"]
    derived = [replace(r, router=BEST_SINGLE) for r in runs if r.router == controls.fixed(best)]
    if not any(row.router == ORACLE for row in mine):
        derived += [replace(row, router=ORACLE) for row in _best_of_each(runs)]
    return derived


def _best_of_each(rows: Iterable[Row]) -> list[Row]:
    """For each training seed and question the row with the highest EM, then F1, then the lowest cost."""
    by_question: dict[tuple[int, str, str], list[Row]] = {}
    for row in rows:
        by_question.setdefault((row.seed, row.dataset, row.question_id), []).append(row)
    return [
        min(tried, key=lambda row: (-row.em, -row.f1, row.cost_usd, row.router))
        for tried in by_question.values()
    ]
