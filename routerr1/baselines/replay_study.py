"""Routers on recorded replies of real candidates to real questions; nothing is called or paid.

Each repetition halves the questions at random. A router learns on one half and is tested on the other, and
then the reverse, so that each repetition tests every question once. Intervals treat repetitions as `stats`
treats training seeds. A log has whole questions only, so the study compares single-round routers, and the
chosen candidate's reply is the answer.
"""

import gzip
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from routerr1.answers.short_answer import short_answer
from routerr1.baselines.build import CHOOSERS, fitted_models
from routerr1.baselines.learned import Majority
from routerr1.baselines.matrix import Matrix
from routerr1.config import BaselineParams, EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.pareto import area
from routerr1.evaluate.results import Comparison, Estimate, Figure, Result, Spread
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.stats import interval, paired_difference, spread
from routerr1.evaluate.table import corrected, order_routers
from routerr1.matching import exact_match, normalise, token_f1
from routerr1.pool.profile import contains_gold
from routerr1.protocol import extract_answer
from routerr1.types import Reply

Metric = Literal[
    "em_in_tag", "f1_in_tag", "gold_contained", "em_repaired", "f1_repaired", "em_readable"
]
METRICS: tuple[Metric, ...] = ("em_in_tag", "f1_in_tag", "gold_contained")
REPAIRED: tuple[Metric, ...] = ("em_repaired", "f1_repaired", "em_readable")
"""Replies without an answer tag are read as well; see `score`."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'*])|\n+")
_ANSWER_TAG = re.compile(r"</?answer>")
_BEST, _ORACLE, _RANDOM = "best_single", "oracle", "random"
_MAJORITY, _TWO_BEST, _TWO_KNOWING = "majority_of_three", "two_best_tagged", "two_knowing_tagged"


Line = TypeVar("Line", bound=BaseModel)


class RecordedReply(BaseModel):
    """One line of a log: a candidate's reply to a query. Other keys are ignored."""

    model_config = ConfigDict(frozen=True)

    query_id: str
    query: str
    golden_answers: tuple[str, ...]
    model: str
    response: str | None
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Half:
    """Rows of a log to learn from, as they are drawn, and to test on, in order. Numbers count from one."""

    halving: int
    fold: int
    learn: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"halving-{self.halving}-fold-{self.fold}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Quality and cost of one router, repetitions x questions."""

    quality: NDArray[np.float64]
    cost: NDArray[np.float64]


def read_log(path: Path, metric: Metric) -> Matrix:
    """A log of one JSON object per (query, model) as a matrix under `metric`.

    Raises: DataError naming file and line of what is malformed, or the query a model has no reply to, or two.
    """
    rows = read_lines(path, RecordedReply)
    names = tuple(sorted({row.model for row in rows}))
    cells: dict[tuple[str, str], RecordedReply] = {}
    for row in rows:
        place = (row.query_id, row.model)
        if place in cells:
            raise DataError(f"{path}: two replies for {place}")
        cells[place] = row
    queries = {row.query_id: row.query for row in rows}
    try:
        grid = [[cells[query, name] for name in names] for query in queries]
    except KeyError as missing:
        raise DataError(f"{path}: no reply for {missing}") from None
    return Matrix(
        tuple(queries.values()),
        names,
        np.array([[score(row, metric) for row in line] for line in grid]),
        np.array([[row.cost_usd for row in line] for line in grid]),
        tuple(tuple(row.response or "" for row in line) for line in grid),
    )


def score(row: RecordedReply, metric: Metric) -> float:
    """Score of a recorded reply, in [0, 1].

    Without an answer tag, `em_in_tag` and `f1_in_tag` are 0; `em_repaired` and `f1_repaired` take the answer
    from `repaired_answer`; `em_readable` is 1 if the reply contains a reference answer, which bounds what any
    reader of such replies can reach. With a tag, all of them read the tag.
    """
    reply, golds = row.response or "", row.golden_answers
    tagged = extract_answer(reply)
    if metric == "gold_contained" or (metric == "em_readable" and tagged is None):
        # Normalisation drops brackets: without this, "<answer>Ada" would read "answerada".
        return contains_gold(_ANSWER_TAG.sub(" ", reply), golds)
    said = tagged if metric in METRICS else repaired_answer(row.query, reply)
    if said is None:
        return 0.0
    return token_f1(said, golds) if metric.startswith("f1") else exact_match(said, golds)


def repaired_answer(query: str, reply: str) -> str:
    """The answer in the tag; without one, the short answer of the first sentence or item of a list.

    >>> repaired_answer("who made the film?", "The film was made by Ada Lovelace. It ran for years.")
    'Ada Lovelace'
    """
    tagged = extract_answer(reply)
    if tagged is not None:
        return tagged
    parts = _SENTENCE_END.split(reply.strip())
    first = next((part for part in parts if any(map(str.isalpha, part))), "")
    return short_answer(query, first)


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """The lines of a log of replies, gzipped or not, as values of `kind`.

    Raises: DataError naming file, line and key.
    """
    rows: list[Line] = []
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                number += 1
                rows.append(kind.model_validate_json(line))
    except ValidationError as error:
        raise DataError(f"{path}, line {number}: {_reason(error)}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not rows:
        raise DataError(f"{path}: holds no reply")
    return rows


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    match first["type"]:
        case "json_invalid":
            return "is not JSON"
        case "model_type":
            return "is not a JSON object"
        case "missing":
            return f"has no {first['loc'][0]}"
        case _:
            return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


class ReplayResult(Result):
    """One router on recorded replies.

    Attributes:
        per_repetition: spread over halvings.
        difference: router minus `best_single`, which is chosen on the learning half.
    """

    router: str
    quality: Estimate
    cost_usd: Estimate
    per_repetition: Spread
    difference: Comparison


class ReplayStudy(Result):
    """Every router on recorded replies under one metric; areas are under the Pareto front.

    Without any cost there are no areas. A vote that no reply has a tag for is left out.
    """

    n: int
    repetitions: int
    resamples: int
    confidence: float
    routers: tuple[ReplayResult, ...]
    pareto_area_singles: Figure | None
    pareto_area_with_learned: Figure | None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Votes that could not be played."""
        played = {result.router for result in self.routers}
        return tuple(vote for vote in map(_vote, (_MAJORITY, _TWO_BEST)) if vote not in played)


def study(
    matrix: Matrix,
    baselines: BaselineParams,
    params: EvaluateParams,
    *,
    known: Matrix | None = None,
    repair: bool = False,
    repetitions: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayStudy:
    """Every router that learns from a matrix, votes of candidates, the single models, random and the oracle.

    Args:
        known: the same log under `gold_contained`; with it, the two candidates that know most are asked, too.
        repair: a reply without an answer tag has a vote by `repaired_answer`; otherwise it has none.

    Without an answer tag in any reply there are no votes, except by `repaired_answer`.
    """
    halves = halves_of(len(matrix.questions), params.seed, repetitions)

    def routes(half: Half) -> dict[str, Route]:
        return routes_of(matrix, half, baselines, params.seed, known=known, repair=repair)

    outcomes = _play(matrix, halves, routes, progress)
    results = _results(outcomes, params)
    fixed = [_point(result) for result in results if is_single(result)]
    learned = [_point(result) for result in results if is_learned(result)]
    most = max(cost for cost, _ in fixed)
    return ReplayStudy(
        n=len(matrix.questions),
        repetitions=repetitions,
        resamples=params.bootstrap,
        confidence=params.confidence,
        routers=results,
        pareto_area_singles=area(fixed, most) if most else None,
        pareto_area_with_learned=area([*fixed, *learned], most) if most else None,
    )


def _point(result: ReplayResult) -> tuple[float, float]:
    return (result.cost_usd.mean, result.quality.mean)


def is_single(result: ReplayResult) -> bool:
    """True for one model that answers every question."""
    return RouterId.parse(result.router).kind == "fixed"


def is_learned(result: ReplayResult) -> bool:
    """True for a router that learns from the other half."""
    return RouterId.parse(result.router).kind == "baseline"


def _results(outcomes: Mapping[str, Outcome], params: EvaluateParams) -> tuple[ReplayResult, ...]:
    names = order_routers(set(outcomes))
    best = outcomes[_BEST].quality

    def estimate(values: NDArray[np.float64]) -> Estimate:
        return Estimate.of(
            interval(
                values, resamples=params.bootstrap, confidence=params.confidence, seed=params.seed
            )
        )

    gaps = {
        name: Comparison.of(
            paired_difference(
                outcomes[name].quality, best, resamples=params.bootstrap,
                confidence=params.confidence, seed=params.seed,
            )
        )
        for name in names
    }  # fmt: skip
    compared = [name for name in names if name != _BEST]
    gaps |= zip(compared, corrected([gaps[n] for n in compared], params.bootstrap), strict=True)
    return tuple(
        ReplayResult(
            router=name,
            quality=estimate(outcomes[name].quality),
            cost_usd=estimate(outcomes[name].cost),
            per_repetition=Spread.of(spread(outcomes[name].quality.mean(axis=1).tolist())),
            difference=gaps[name],
        )
        for name in names
    )


def _has_tags(matrix: Matrix) -> bool:
    return any(extract_answer(reply) is not None for line in matrix.replies for reply in line)


def _tagged_answer(query: str, reply: str) -> str | None:  # noqa: ARG001 - as `repaired_answer`
    return extract_answer(reply)


def halves_of(count: int, seed: int, repetitions: int, folds: int = 2) -> list[Half]:
    """Random halvings of `count` rows, in `folds` directions each."""
    found = []
    for repetition in range(repetitions):
        order = np.random.default_rng([seed, repetition]).permutation(count)
        parts = order[: count // 2], order[count // 2 :]
        for fold, (learn, test) in enumerate((parts, parts[::-1])[:folds]):
            found.append(Half(repetition + 1, fold + 1, learn, np.sort(test)))
    return found


def _play(
    matrix: Matrix,
    halves: Sequence[Half],
    routes: Callable[[Half], Mapping[str, "Route"]],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Outcome]:
    shape = repetitions, count = halves[-1].halving, len(matrix.questions)
    found: dict[str, Outcome] = {}
    for done, half in enumerate(halves, start=1):
        for name, route in routes(half).items():
            target = found.setdefault(name, Outcome(np.zeros(shape), np.zeros(shape)))
            for row in half.test:
                asked = route(matrix, int(row))
                target.quality[half.halving - 1, row] = matrix.quality[row, asked[-1]]
                target.cost[half.halving - 1, row] = matrix.cost[row, asked].sum()
        if progress:
            progress(done, len(halves))
    found[_RANDOM] = _constant(matrix.quality.mean(axis=1), matrix.cost.mean(axis=1), repetitions)
    rows, best = np.arange(count), oracle_places(matrix)
    found[_ORACLE] = _constant(matrix.quality[rows, best], matrix.cost[rows, best], repetitions)
    for place, name in enumerate(matrix.candidates):
        cells = matrix.quality[:, place], matrix.cost[:, place]
        found[str(RouterId("fixed", name.rpartition("/")[2]))] = _constant(*cells, repetitions)
    return found


def oracle_places(matrix: Matrix) -> NDArray[np.int64]:
    """The candidate with the best reply to each question, the cheapest on ties: no router can be above it."""
    return np.asarray(np.lexsort((matrix.cost, -matrix.quality), axis=1)[:, 0], dtype=np.int64)


def _constant(quality: NDArray[np.float64], cost: NDArray[np.float64], repetitions: int) -> Outcome:
    return Outcome(np.tile(quality, (repetitions, 1)), np.tile(cost, (repetitions, 1)))


Route = Callable[[Matrix, int], list[int]]
"""(matrix, row) -> places of the candidates asked, the last of which answered."""


def routes_of(
    matrix: Matrix,
    half: Half,
    baselines: BaselineParams,
    seed: int,
    *,
    known: Matrix | None = None,
    repair: bool = False,
) -> dict[str, Route]:
    """Routers that learn from one half, its best single model, and votes; arguments as for `study`."""
    seen = np.sort(half.learn)
    learn, with_tags = matrix.rows(seen), _has_tags(matrix)
    routes = _learned(learn, baselines, seed + half.halving - 1)
    if repair or with_tags:
        routes |= _majority(learn, repaired_answer if repair else _tagged_answer)
    if with_tags:
        routes |= _tagged(learn, known.rows(seen) if known else None)
    return routes


def _learned(learn: Matrix, baselines: BaselineParams, seed: int) -> dict[str, Route]:
    fitted = fitted_models(learn, baselines, seed=seed)
    routes: dict[str, Route] = {
        str(RouterId("baseline", name)): _by_question(fitted[name]().choose)
        for name in CHOOSERS
        if name in baselines.include
    }
    routes[_BEST] = _by_question(Majority(learn).choose)
    if "frugal" in baselines.include:
        cascade = fitted["frugal"]()

        def play(matrix: Matrix, row: int) -> list[int]:
            replies: list[Reply] = []
            asked: list[int] = []
            while (ask := cascade.next_call(matrix.questions[row], replies)) is not None:
                asked.append(matrix.candidates.index(ask.name))
                replies.append(Reply(ask.name, matrix.replies[row][asked[-1]]))
            return asked

        routes[str(RouterId("baseline", "frugal"))] = play
    return routes


AnswerOf = Callable[[str, str], str | None]
"""From a query and a reply to the answer in it; None without one."""


def _vote(name: str) -> str:
    return str(RouterId("baseline", name))


def _majority(learn: Matrix, answer: AnswerOf) -> dict[str, Route]:
    """The most frequent answer of the three candidates that are best on the learning half."""
    three = best_places(learn, 3)

    def said(matrix: Matrix, row: int, place: int) -> str | None:
        found = answer(matrix.questions[row], matrix.replies[row][place])
        return None if found is None else normalise(found)

    def route(matrix: Matrix, row: int) -> list[int]:
        answers = {place: said(matrix, row, place) for place in three}
        counts = Counter(each for each in answers.values() if each)
        # The first of the most frequent answers is that of the best candidate.
        most = max(counts, key=counts.__getitem__, default=None)
        chosen = next((place for place, each in answers.items() if each == most), three[0])
        return [*(place for place in three if place != chosen), chosen]

    return {_vote(_MAJORITY): route}


def _tagged(learn: Matrix, known: Matrix | None) -> dict[str, Route]:
    """The first reply with an answer tag, of the two candidates that are best, or that know most."""

    def of(pair: Sequence[int]) -> Route:
        def route(matrix: Matrix, row: int) -> list[int]:
            with_tag = [
                place for place in pair if extract_answer(matrix.replies[row][place]) is not None
            ]
            chosen = next(iter(with_tag), pair[0])
            return [*(place for place in pair if place != chosen), chosen]

        return route

    routes = {_vote(_TWO_BEST): of(best_places(learn, 2))}
    if known is not None:
        routes[_vote(_TWO_KNOWING)] = of(best_places(known, 2))
    return routes


def best_places(learn: Matrix, count: int) -> list[int]:
    """Places of the candidates with the highest mean quality; the cheaper first of those as good."""
    means = learn.quality.mean(axis=0)
    ranked = sorted(range(len(means)), key=lambda at: (-round(means[at], 9), learn.mean_cost[at]))
    return ranked[:count]


def _by_question(choose: Callable[[str], str]) -> Route:
    return lambda matrix, row: [matrix.candidates.index(choose(matrix.questions[row]))]
