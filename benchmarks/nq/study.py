"""What every router does with the tested questions, and the figures of it.

The routers learn from a half of the log by exact match in the answer tag. The policy's plays come
from its trainings; variants of them say what each part of a play is worth.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from benchmarks.nq.training import Played, Training
from routerr1.answers.short_answer import is_unsure
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.replay_study import (
    METRICS,
    Half,
    Metric,
    best_places,
    oracle_places,
    read_log,
    routes_of,
)
from routerr1.config import BaselineParams, EvaluateParams
from routerr1.evaluate.results import Comparison, Estimate, Figure, Result
from routerr1.evaluate.stats import AMOUNT, SHARE, Range, Sample, difference_of, interval_of
from routerr1.evaluate.table import corrected
from routerr1.jobs.progress import track
from routerr1.protocol import extract_answer

LEARNED_BY: Metric = "em_in_tag"
POLICY, FIRST, BEFORE = "policy", "policy_first", "policy_before_rl"
BEST, ORACLE = "best_single", "oracle"
Array = NDArray[np.float64]


class Choice(NamedTuple):
    """What a router did with a question: places of the candidates asked, and of the one that answered."""

    asked: tuple[int, ...]
    answered: int | None


class Arm(Result):
    """One router; `difference` is to the best single model, whose choice the learning half made."""

    name: str
    quality: Mapping[Metric, Estimate]
    difference: Mapping[Metric, Comparison]
    cost_usd: Estimate
    calls: Estimate


class Run(Result):
    """One training in figures, on the questions of the tested half.

    Attributes:
        no_reference: share of answers that refer to no reply.
    """

    halving: int
    fold: int
    seed: int
    best_step: int
    minutes: Figure
    validation_before: Figure
    validation: Figure
    em: Figure
    best_single: Figure
    first_is_best_single: Figure
    calls: Figure
    no_reference_before: Figure
    no_reference: Figure


class Parts(Result):
    """What the policy's difference to the best single model in exact match is the sum of."""

    # fmt: off
    first_call: Comparison = Field(title="Routing of the first call: its reply instead of the best single model's")
    repair: Comparison = Field(title="Format: what further calls add where the first reply has no tag")
    again: Comparison = Field(title="Reading: what further calls add where the first reply has one")
    no_reference: Comparison = Field(title="Reference: answers that refer to no reply, such as `@2` after one reply")
    total: Comparison = Field(title="The policy")
    # fmt: on


class Behaviour(Result):
    """Shares of the policy's questions."""

    # fmt: off
    first_is_best_single: Figure = Field(title="the first call is to the best single model")
    first_answer_in_tag: Figure = Field(title="the first reply has an answer in its tag")
    first_no_answer_in_tag: Figure = Field(title="the first reply says in its tag that it has no answer")
    first_no_tag: Figure = Field(title="the first reply has no tag")
    again_after_answer_in_tag: Figure = Field(title="a further call, after an answer in the tag")
    again_after_no_answer_in_tag: Figure = Field(title="a further call, after a tag without an answer")
    again_after_no_tag: Figure = Field(title="a further call, after a reply without a tag")
    answers_with_first: Figure = Field(title="the answer is that of the first reply")
    no_call: Figure = Field(title="no call")
    no_reference: Figure = Field(title="an answer that refers to no reply, and so is wrong")
    # fmt: on


class Study(Result):
    """docs/results/nq-policy.json.

    Attributes:
        tested: plays of questions for each training seed: halvings times questions of the tested halves.
        learned_best: model -> halves of which it is the best single model.
    """

    log: str
    n: int
    halvings: int
    folds: int
    seeds: int
    tested: int
    steps: int
    warmstart_steps: int
    resamples: int
    confidence: float
    arms: tuple[Arm, ...]
    parts: Parts
    behaviour: Behaviour
    learned_best: Mapping[str, int]
    runs: tuple[Run, ...]

    def arm(self, name: str) -> Arm:
        """The router of this name."""
        return next(arm for arm in self.arms if arm.name == name)


Arms = Mapping[str, Mapping[tuple[int, int], Sequence[Choice]]]
"""Router -> (repetition, row of the log) -> its choices, one for each training seed."""


def choices_of(
    trainings: Sequence[Training],
    matrix: Matrix,
    halves: Sequence[Half],
    baselines: BaselineParams,
    seed: int,
) -> Arms:
    """What every router does with the tested questions; each learns by the quality of `matrix`."""
    arms: dict[str, dict[tuple[int, int], list[Choice]]] = {}
    with track("other routers", len(halves)) as bar:
        for half in halves:
            place = half.halving, half.fold
            own = [each for each in trainings if (each.halving, each.fold) == place]
            for row, name, choice in _choices(own, matrix, half, baselines, seed):
                made = arms.setdefault(name, {})
                made.setdefault((half.halving - 1, row), []).append(choice)
            bar.update()
    return arms


def _choices(
    trainings: Sequence[Training], matrix: Matrix, half: Half, baselines: BaselineParams, seed: int
) -> Iterator[tuple[int, str, Choice]]:
    # The routers of the published study, so that its figures and these are of one making.
    routes = routes_of(matrix, half, baselines, seed)
    ranked = best_places(matrix.rows(np.sort(half.learn)), len(matrix.candidates))
    best = oracle_places(matrix).tolist()
    for row in map(int, half.test):
        replies = matrix.replies[row]
        yield row, ORACLE, Choice((best[row],), best[row])
        for name, route in routes.items():
            asked = tuple(route(matrix, row))
            yield row, name, Choice(asked, asked[-1])
        yield row, "best_single_repaired", _until(_has_tag, replies, ranked)
        yield row, "best_single_sure", _until(_has_answer, replies, ranked)
    for training in trainings:
        for played in training.before:
            yield played.row, BEFORE, _choice(played, matrix)
        for played in training.trained:
            choice = _choice(played, matrix)
            yield played.row, POLICY, choice
            for name, made in _varied(choice, matrix.replies[played.row], ranked):
                yield played.row, name, made


def _varied(
    choice: Choice, replies: Sequence[str], ranked: Sequence[int]
) -> Iterator[tuple[str, Choice]]:
    """What becomes of a policy's play if a part of it is replaced."""
    first = choice.asked[:1]
    others = [place for place in ranked if place not in first]
    best = next((place for place in ranked if place in choice.asked), None)
    yield FIRST, Choice(first, first[0] if first else None)
    yield "policy_first_repaired", _until(_has_tag, replies, [*first, *others]) if first else choice
    yield "policy_best_called", Choice(choice.asked, best)


def _choice(played: Played, matrix: Matrix) -> Choice:
    places = tuple(matrix.candidates.index(name) for name in played.asked)
    answered = None if played.answered is None else matrix.candidates.index(played.answered)
    return Choice(places, answered)


def _has_tag(reply: str) -> bool:
    return extract_answer(reply) is not None


def _has_answer(reply: str) -> bool:
    return not is_unsure(extract_answer(reply) or "")


def _until(will_do: Callable[[str], bool], replies: Sequence[str], order: Sequence[int]) -> Choice:
    """Candidates are asked in this order until a reply will do; if none does, the first reply counts."""
    for count, place in enumerate(order, start=1):
        if will_do(replies[place]):
            return Choice(tuple(order[:count]), place)
    return Choice(tuple(order), order[0])


def study_of(
    log: Path,
    trainings: Sequence[Training],
    halves: Sequence[Half],
    baselines: BaselineParams,
    params: EvaluateParams,
) -> Study:
    """Every router on the tested questions, and what the policy's difference consists of."""
    matrices = {metric: read_log(log, metric) for metric in METRICS}
    arms = choices_of(trainings, matrices[LEARNED_BY], halves, baselines, params.seed)
    judged = _Judged(matrices, arms, halves, params)
    best = {(half.halving, half.fold): judged.best_single(half) for half in halves}
    chosen = [name.rpartition("/")[2] for name in best.values()]
    return Study(
        log=log.name,
        n=judged.tested.shape[1],
        halvings=judged.tested.shape[0],
        folds=max(half.fold for half in halves),
        seeds=len({each.seed for each in trainings}),
        tested=int(judged.tested.sum()),
        steps=trainings[0].steps,
        warmstart_steps=trainings[0].warmstart_steps,
        resamples=params.bootstrap,
        confidence=params.confidence,
        arms=judged.all_arms(),
        parts=judged.parts(),
        behaviour=behaviour_of(arms, matrices[LEARNED_BY]),
        learned_best={name: chosen.count(name) for name in sorted(set(chosen))},
        runs=tuple(
            _run(each, matrices[LEARNED_BY], best[each.halving, each.fold]) for each in trainings
        ),
    )


class _Judged:
    """Means of routers over tested questions and halvings, with intervals over both.

    Attributes:
        tested: repetitions x questions, 1 where a question is in the tested half.
    """

    def __init__(
        self,
        matrices: Mapping[Metric, Matrix],
        arms: Arms,
        halves: Sequence[Half],
        params: EvaluateParams,
    ) -> None:
        self._matrices, self._arms, self._params = matrices, arms, params
        self._learned_by = matrices[LEARNED_BY]
        count = len(self._learned_by.questions)
        self.tested = np.zeros((max(half.halving for half in halves), count))
        for half in halves:
            self.tested[half.halving - 1, half.test] = 1
        rows = [f"{row:09}" for row in range(count)]
        self._sample = Sample(rows, resamples=params.bootstrap, seed=params.seed)

    def best_single(self, half: Half) -> str:
        """The candidate that the learning half chooses."""
        place = self._arms[BEST][half.halving - 1, int(half.test[0])][0].asked[0]
        return self._learned_by.candidates[place]

    def all_arms(self) -> tuple[Arm, ...]:
        """Every router; p-values are Holm-corrected over all but the best single model itself."""
        names, costs = list(self._arms), self._learned_by.cost
        differences: dict[Metric, dict[str, Comparison]] = {}
        for metric in METRICS:
            base = self._quality(BEST, metric)
            gaps = {name: self._difference(self._quality(name, metric) - base) for name in names}
            others = [name for name in gaps if name != BEST]
            adjusted = corrected([gaps[name] for name in others], self._params.bootstrap)
            differences[metric] = gaps | dict(zip(others, adjusted, strict=True))
        return tuple(
            Arm(
                name=name,
                quality={m: self._mean(self._quality(name, m), within=SHARE) for m in METRICS},
                difference={metric: differences[metric][name] for metric in METRICS},
                cost_usd=self._mean(
                    self._values(name, lambda row, made: float(costs[row, list(made.asked)].sum()))
                ),
                calls=self._mean(self._values(name, lambda _, choice: len(choice.asked))),
            )
            for name in names
        )

    def parts(self) -> Parts:
        """What the policy adds to the best single model."""
        matrix, best = self._learned_by, self._quality(BEST, LEARNED_BY)
        repaired, again, lost = (
            self._values(POLICY, partial(gained, matrix))
            for gained in (partial(_gained, tagged=False), partial(_gained, tagged=True), _lost)
        )
        return Parts(
            first_call=self._difference(self._quality(FIRST, LEARNED_BY) - best),
            repair=self._difference(repaired),
            again=self._difference(again),
            no_reference=self._difference(lost),
            total=self._difference(self._quality(POLICY, LEARNED_BY) - best),
        )

    def _quality(self, name: str, metric: Metric) -> Array:
        scores = self._matrices[metric].quality
        if name == ORACLE:
            return np.asarray(self.tested * scores.max(axis=1), dtype=np.float64)
        return self._values(name, lambda row, choice: _score(scores, row, choice.answered))

    def _values(self, name: str, of: Callable[[int, Choice], float]) -> Array:
        found = np.zeros(self.tested.shape)
        for (repetition, row), made in self._arms[name].items():
            found[repetition, row] = fmean(of(row, choice) for choice in made)
        return found

    def _mean(self, values: Array, *, within: Range = AMOUNT) -> Estimate:
        found = self._sample.ratio(values, self.tested)
        assert found is not None  # every halving tests some question
        return Estimate.of(interval_of(found, self._params.confidence, within))

    def _difference(self, values: Array) -> Comparison:
        found = self._sample.ratio(values, self.tested)
        assert found is not None
        return Comparison.of(difference_of(found, self._params.confidence))


def _score(scores: Array, row: int, answered: int | None) -> float:
    return 0.0 if answered is None else float(scores[row, answered])


def _gained(matrix: Matrix, row: int, choice: Choice, *, tagged: bool) -> float:
    """By which the reply referred to is better than the first one, if that has a tag or has none; else 0."""
    if choice.answered is None or _has_tag(matrix.replies[row][choice.asked[0]]) != tagged:
        return 0.0
    first = _score(matrix.quality, row, choice.asked[0])
    return _score(matrix.quality, row, choice.answered) - first


def _lost(matrix: Matrix, row: int, choice: Choice) -> float:
    """What an answer without a reply falls short of the first reply; else 0."""
    lost = choice.answered is None and choice.asked
    return -_score(matrix.quality, row, choice.asked[0]) if lost else 0.0


def behaviour_of(arms: Arms, matrix: Matrix) -> Behaviour:
    """Shares of the policy's plays: of first calls, and of further calls by what the first reply was."""
    plays = [(place, choice) for place, made in arms[POLICY].items() for choice in made]
    again: dict[str, list[bool]] = {"no_tag": [], "no_answer_in_tag": [], "answer_in_tag": []}
    for (_, row), choice in plays:
        for first in choice.asked[:1]:
            again[_kind(matrix.replies[row][first])].append(len(choice.asked) > 1)
    shares = {f"first_{kind}": len(found) / len(plays) for kind, found in again.items()}
    shares |= {f"again_after_{kind}": fmean(found or [0.0]) for kind, found in again.items()}
    return Behaviour(
        first_is_best_single=fmean(
            choice.asked[:1] == arms[BEST][place][0].asked for place, choice in plays
        ),
        no_call=fmean(not choice.asked for _, choice in plays),
        no_reference=fmean(choice.answered is None for _, choice in plays),
        answers_with_first=fmean(choice.asked[:1] == (choice.answered,) for _, choice in plays),
        **shares,
    )


def _kind(reply: str) -> str:
    if not _has_tag(reply):
        return "no_tag"
    return "answer_in_tag" if _has_answer(reply) else "no_answer_in_tag"


def _run(training: Training, matrix: Matrix, best_single: str) -> Run:
    made = [(played.row, _choice(played, matrix)) for played in training.trained]
    best = matrix.candidates.index(best_single)
    return Run(
        halving=training.halving,
        fold=training.fold,
        seed=training.seed,
        best_step=training.best_step,
        minutes=training.minutes,
        validation_before=training.validation[0],
        validation=training.validation[1],
        em=fmean(_score(matrix.quality, row, choice.answered) for row, choice in made),
        best_single=fmean(_score(matrix.quality, row, best) for row, _ in made),
        first_is_best_single=fmean(choice.asked[:1] == (best,) for _, choice in made),
        calls=fmean(len(choice.asked) for _, choice in made),
        no_reference_before=fmean(played.answered is None for played in training.before),
        no_reference=fmean(played.answered is None for played in training.trained),
    )
