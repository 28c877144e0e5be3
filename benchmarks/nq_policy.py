"""A multi-round policy trained and played by replay on the paper's own six candidates, against routers without one.

The log holds the reply of every candidate to every question, so it answers every call that a policy can make which
asks the question as it stands. Of each random halving one half is for learning: the policy's probes, questions and
validation, and what the other routers learn from. The other half is tested. Every router is judged by the same rule:
the answer is what the chosen reply has in its answer tag, and a reply without the tag is wrong. Routers learn by exact
match in the tag.

    python -m benchmarks.nq_policy LOG [--work runs/nq-policy] [--out docs/results/nq-policy]

LOG is a JSON-lines file of one reply for each query and model (`replay_study.RecordedReply`), gzipped or not. Each
training leaves its plays in WORK/halving-H-fold-F-seed-S.json and is not repeated; a killed run starts again at the
training that it was in. Nothing is called or paid.
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.nq_replay import wrapped
from routerr1.answers.short_answer import is_unsure
from routerr1.baselines import replay_study
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.replay_study import Metric, RecordedReply, read_lines, read_log
from routerr1.config import BaselineParams, ColumnsParams, EvaluateParams, Params, load_params
from routerr1.data.imported import Shares, import_file, remember
from routerr1.errors import CheckpointError, DataError
from routerr1.evaluate.results import Comparison, Estimate, Figure, Result
from routerr1.evaluate.rows import asked_of
from routerr1.evaluate.stats import AMOUNT, SHARE, Sample, difference_of, interval_of
from routerr1.evaluate.table import corrected
from routerr1.files import atomic_write_text, read_yaml
from routerr1.jobs.progress import track
from routerr1.matching import exact_match
from routerr1.pool.base import Pool
from routerr1.pool.importing import import_log
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.profile import profile, write_profile
from routerr1.protocol import extract_answer
from routerr1.report import markdown
from routerr1.report.formatting import estimate, gap, number, p_text
from routerr1.report.sections import Cell, Section, Table, table_of
from routerr1.rollout.loop import play
from routerr1.stages.dataset import dataset
from routerr1.stages.train import training_context
from routerr1.stages.warmstart import warmstart
from routerr1.train.checkpoint import read_manifest
from routerr1.train.grpo import train as train_grpo
from routerr1.train.process_lock import only_trainer
from routerr1.types import Answer, Question, Trajectory
from routerr1.workspace import Workspace

DATASET = "nq_log"
POOL_FILE = Path("pools/paper.yaml")
OWN_POOL_FILE, STORE = Path("pools/nq.yaml"), Path("data/calls/nq.jsonl")
VALIDATION_SHARE = 0.2  # of the learning half; by it a training chooses its best step
STEPS, WARMSTART_STEPS = 120, 700
QUESTIONS, ROLLOUTS = 16, 8  # of a step
ROUTERS = ("knn", "frugal")
LEARNED_BY: Metric = "em_in_tag"
SHOWN: Mapping[Metric, str] = {
    "em_in_tag": "EM in tag", "f1_in_tag": "F1 in tag", "gold_contained": "Contained",
}  # fmt: skip
POLICY, FIRST, BEFORE = "policy", "policy_first", "policy_before_rl"
BEST, ORACLE = "best_single", "oracle"
Array = NDArray[np.float64]
LABELS: Mapping[str, str] = {
    ORACLE: "Oracle, of each column",
    "baseline/majority_of_three": "Majority of three",
    "baseline/two_best_tagged": "Two best, the tagged one",
    BEST: "Best single model",
    "best_single_repaired": "Best single model; the next best if there is no tag",
    "best_single_sure": "Best single model; the next best if there is no tag, or no answer in it",
    "baseline/frugal": "FrugalGPT",
    "baseline/knn": "kNN",
    POLICY: "**Policy**",
    FIRST: "Policy, its first call only",
    "policy_first_repaired": "Policy, its first call; the next best if there is no tag",
    "policy_best_called": "Policy's calls, answered by the best model among them",
    BEFORE: "Policy before reinforcement learning",
}


class Choice(NamedTuple):
    """What a router did with a question: places of the candidates asked, and of the one that answered."""

    asked: tuple[int, ...]
    answered: int | None


@dataclass(frozen=True, slots=True)
class Half:
    """Rows of the log to learn from and to test on, counted from one for people."""

    halving: int
    fold: int
    learn: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def key(self) -> tuple[int, int]:
        """Halving and fold."""
        return self.halving, self.fold

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"halving-{self.halving}-fold-{self.fold}"


class Played(Result):
    """A policy's play of one question: models as the log names them.

    Attributes:
        answered: None if it answered without referring to a reply.
    """

    row: int
    asked: tuple[str, ...]
    answered: str | None


class Training(Result):
    """One training, and what the policy did with the questions of the other half, greedily.

    Attributes:
        validation: exact match on drawn pools before training, and at the best step.
    """

    halving: int
    fold: int
    seed: int
    steps: int
    warmstart_steps: int
    best_step: int
    minutes: Figure
    validation: tuple[Figure, Figure]
    before: tuple[Played, ...]
    trained: tuple[Played, ...]


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


class Study(Result):
    """docs/results/nq-policy.json.

    Attributes:
        tested: plays of questions for each training seed: halvings times questions of the tested halves.
        parts: what the policy's difference to the best single model in exact match is the sum of.
        behaviour: shares of the policy's questions.
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
    parts: Mapping[str, Comparison]
    behaviour: Mapping[str, Figure]
    learned_best: Mapping[str, int]
    runs: tuple[Run, ...]

    def arm(self, name: str) -> Arm:
        """The router of this name."""
        return next(arm for arm in self.arms if arm.name == name)


def halves_of(count: int, seed: int, repetitions: int, folds: int) -> list[Half]:
    """The halvings of `replay_study.study`, of which `folds` directions are taken."""
    found = []
    for repetition in range(repetitions):
        order = np.random.default_rng([seed, repetition]).permutation(count)
        parts = order[: count // 2], order[count // 2 :]
        for fold, (learn, test) in enumerate((parts, parts[::-1])[:folds]):
            found.append(Half(repetition + 1, fold + 1, learn, np.sort(test)))
    return found


async def graded_in_tag(question: Question, said: str) -> float:
    """Exact match of what a reply has in its answer tag, 0 without one; a `Grade`.

    What the policy refers to has the brackets of tags made square.
    """
    plain = said.replace("[answer]", "<answer>").replace("[/answer]", "</answer>")
    tagged = extract_answer(plain)
    return 0.0 if tagged is None else exact_match(tagged, question.golden_answers)


def params_of(base: Params, *, steps: int, warmstart_steps: int) -> Params:
    """`base` for questions of one's own, a pool that is replayed, and a short training."""
    imported = Path("data/imported") / f"{DATASET}.parquet"
    return base.replace(
        dataset=base.dataset.replace(source="imported", imported=(imported,)),
        pool=base.pool.replace(kind="http", file=OWN_POOL_FILE, calls="replay", store=STORE),
        profile_pool=base.profile_pool.replace(split="train", probes=400),
        rollout=base.rollout.replace(max_reply_tokens=64),
        warmstart=base.warmstart.replace(steps=warmstart_steps),
        # At the repository's rate, steps of so few rollouts with so rare rewards cost the policy its format.
        train=base.train.replace(
            steps=steps, questions_per_step=QUESTIONS, rollouts_per_question=ROLLOUTS, learning_rate=1.5e-3, rehearsal_weight=1.0,
            checkpoint_every=15, validate_every=15, validation_questions=240,
        ),
        generalize=base.generalize.replace(file=None),
    )  # fmt: skip


class Learner:
    """A folder in which policies learn from one half of the log, by the stages of a workspace.

    All seeds continue from one warm start. The embeddings of questions are computed once.
    """

    def __init__(
        self, log: Path, pool_file: Path, half: Half, folder: Path, params: Params
    ) -> None:
        self.half, self.folder = half, folder
        self._rows = list({row.query_id: row for row in read_lines(log, RecordedReply)}.values())
        log, pool_file = log.resolve(), pool_file.resolve()
        self._workspace = Workspace(params.replace(seeds=(half.halving,)))
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(folder):
            if not self._workspace.paths.cards.is_file():
                _prepare(log, pool_file, [self._rows[row] for row in half.learn], params)
            try:
                read_manifest(self._start)
            except CheckpointError:
                warmstart(self._workspace.params)

    @property
    def _start(self) -> Path:
        return self._workspace.warmstart_folder(self.half.halving)

    def train(self, seed: int) -> Training:
        """Train one policy, and play the tested half with it and with its warm start."""
        began, half, workspace = time.perf_counter(), self.half, self._workspace
        params = workspace.params
        with contextlib.chdir(self.folder):
            pool = workspace.open_pool(workspace.cards)
            context = training_context(workspace, pool, seed, graded_in_tag)
            working = workspace.paths.runs / "train" / f"seed-{seed}"
            with (
                only_trainer(workspace.paths.runs),
                track(f"{half.name}, seed {seed}", params.train.steps) as bar,
            ):
                trained = train_grpo(
                    self._start, context, working,
                    progress=lambda row: bar.update(
                        int(row["step"]), note=f"reward {row['reward']:.2f}, EM {row['em']:.2f}"
                    ),
                )  # fmt: skip
            before, after = (
                asyncio.run(self._played(checkpoint, pool))
                for checkpoint in (self._start, trained.folder)
            )
            asyncio.run(pool.aclose())
        best = trained.by_step[trained.best_step]
        return Training(
            halving=half.halving, fold=half.fold, seed=seed, steps=params.train.steps,
            warmstart_steps=params.warmstart.steps, best_step=trained.best_step,
            minutes=(time.perf_counter() - began) / 60,
            validation=(trained.start["validation/em"], best["validation/em"]),
            before=before, trained=after,
        )  # fmt: skip

    async def _played(self, checkpoint: Path, pool: Pool) -> tuple[Played, ...]:
        """What the policy of a checkpoint does with the tested half, greedily."""
        workspace, rows = self._workspace, self._rows
        asked = [
            Question(f"{row}", DATASET, rows[row].query, rows[row].golden_answers, "test")
            for row in map(int, self.half.test)
        ]
        models = {row.name: row.model for row in read_pool_file(OWN_POOL_FILE).candidates}
        params = workspace.params
        trajectories = await play(
            asked, workspace.load_unchecked(checkpoint), pool, render=workspace.renderer,
            params=params.rollout, seed=params.evaluate.seed, temperature=0.0,
        )  # fmt: skip
        return tuple(played_of(trajectory, models) for trajectory in trajectories)


def _prepare(log: Path, pool_file: Path, learn: Sequence[RecordedReply], params: Params) -> None:
    """Pool file, recorded calls, questions of the learning half, and their profile, in the working folder."""
    content = read_yaml(pool_file)
    for candidate in content["candidates"]:
        candidate["reply"] = "last"  # where the answer tag is
        candidate.pop("fallback", None)
    OWN_POOL_FILE.parent.mkdir(exist_ok=True)
    OWN_POOL_FILE.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    file = read_pool_file(OWN_POOL_FILE, max_reply_tokens=params.pool.max_reply_tokens)
    import_log(log, STORE, file)
    held = round(VALIDATION_SHARE * len(learn))
    source = Path("questions.jsonl")
    lines = [
        {
            "id": row.query_id, "question": row.query, "golden_answers": row.golden_answers,
            "split": "validation" if place < held else "train",
        }
        for place, row in enumerate(learn)
    ]  # fmt: skip
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = import_file(
        source, DATASET, ColumnsParams(metadata=None), out=Path("data/imported"),
        shares=Shares(0.0, 0.0), split_column="split", matching="squad",
    )  # fmt: skip
    remember(found.path)
    dataset(params)
    asyncio.run(_profile(Workspace(params)))


async def _profile(workspace: Workspace) -> None:
    pool = workspace.open_pool()
    async with contextlib.aclosing(pool):
        found = await profile(
            workspace.questions("train"), pool, store=None, grade=graded_in_tag
        )  # fmt: skip
    write_profile(workspace.paths.pool, found)


def played_of(trajectory: Trajectory, models: Mapping[str, str]) -> Played:
    """The calls that reached a candidate, and the one that the answer refers to."""
    replies = [turn.reply for turn in trajectory.turns if turn.reply is not None]
    last = trajectory.turns[-1].action
    answered = None
    if isinstance(last, Answer) and last.written is not None:
        reply = replies[int(last.written.strip().removeprefix("@")) - 1]
        answered = models[reply.model] if reply.failure is None else None
    return Played(
        row=int(trajectory.question.id),
        asked=tuple(models[reply.model] for _, reply in asked_of(trajectory)),
        answered=answered,
    )


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
            own = [each for each in trainings if (each.halving, each.fold) == half.key]
            for row, name, choice in _choices(own, matrix, half, baselines, seed):
                made = arms.setdefault(name, {})
                made.setdefault((half.halving - 1, row), []).append(choice)
            bar.update()
    return arms


def _choices(
    trainings: Sequence[Training], matrix: Matrix, half: Half, baselines: BaselineParams, seed: int
) -> Iterator[tuple[int, str, Choice]]:
    learned = matrix.rows(np.sort(half.learn))
    # The routers of the published study, so that its figures and these are of one making.
    routes = {
        **replay_study._routes(learned, baselines, seed + half.halving - 1),
        **replay_study._majority(learned, replay_study._tagged_answer),
        **replay_study._tagged(learned, None),
    }
    ranked = replay_study._best_places(learned, len(matrix.candidates))
    for row in map(int, half.test):
        replies = matrix.replies[row]
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
    matrices = {metric: read_log(log, metric) for metric in SHOWN}
    arms = choices_of(trainings, matrices[LEARNED_BY], halves, baselines, params.seed)
    judged = _Judged(matrices, arms, halves, params)
    best = {half.key: judged.best_single(half) for half in halves}
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
        names = [ORACLE, *self._arms]
        differences: dict[Metric, dict[str, Comparison]] = {}
        for metric in SHOWN:
            base = self._quality(BEST, metric)
            gaps = {name: self._difference(self._quality(name, metric) - base) for name in names}
            others = [name for name in gaps if name != BEST]
            adjusted = corrected([gaps[name] for name in others], self._params.bootstrap)
            differences[metric] = gaps | dict(zip(others, adjusted, strict=True))
        return tuple(
            Arm(
                name=name,
                quality={m: self._mean(self._quality(name, m), within=SHARE) for m in SHOWN},
                difference={metric: differences[metric][name] for metric in SHOWN},
                cost_usd=self._mean(self._cost(name)),
                calls=self._mean(self._values(name, lambda _, choice: len(choice.asked))),
            )
            for name in names
        )

    def parts(self) -> dict[str, Comparison]:
        """What the first call and further calls, by whether the first reply has a tag, add to the best single model."""
        matrix, best = self._learned_by, self._quality(BEST, LEARNED_BY)
        further = {
            tagged: self._values(
                POLICY,
                lambda row, choice, tagged=tagged: _gained(matrix, row, choice, tagged=tagged),
            )
            for tagged in (False, True)
        }
        return {
            "first_call": self._difference(self._quality(FIRST, LEARNED_BY) - best),
            "repair": self._difference(further[False]),
            "again": self._difference(further[True]),
            "no_reference": self._difference(self._values(POLICY, partial(_lost, matrix))),
            "total": self._difference(self._quality(POLICY, LEARNED_BY) - best),
        }

    def _quality(self, name: str, metric: Metric) -> Array:
        scores = self._matrices[metric].quality
        if name == ORACLE:
            return self.tested * scores.max(axis=1)
        return self._values(name, lambda row, choice: _score(scores, row, choice.answered))

    def _cost(self, name: str) -> Array:
        costs = self._learned_by.cost
        return self._values(name, lambda row, choice: float(costs[row, list(choice.asked)].sum()))

    def _values(self, name: str, of: Callable[[int, Choice], float]) -> Array:
        found = np.zeros(self.tested.shape)
        for (repetition, row), made in self._made(name).items():
            found[repetition, row] = fmean(of(row, choice) for choice in made)
        return found

    def _made(self, name: str) -> Mapping[tuple[int, int], Sequence[Choice]]:
        if name != ORACLE:
            return self._arms[name]
        # The cheapest of the best replies, as in the published study.
        matrix = self._learned_by
        best = np.lexsort((matrix.cost, -matrix.quality), axis=1)[:, 0].tolist()
        return {place: (Choice((best[place[1]],), best[place[1]]),) for place in self._arms[BEST]}

    def _mean(self, values: Array, *, within: tuple[float, float] = AMOUNT) -> Estimate:
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


def behaviour_of(arms: Arms, matrix: Matrix) -> dict[str, float]:
    """Shares of the policy's plays: of first calls, and of further calls by what the first reply was."""
    plays = [(place, choice) for place, made in arms[POLICY].items() for choice in made]
    again: dict[str, list[bool]] = {"no_tag": [], "no_answer_in_tag": [], "answer_in_tag": []}
    for (_, row), choice in plays:
        for first in choice.asked[:1]:
            again[_kind(matrix.replies[row][first])].append(len(choice.asked) > 1)
    firsts = [(choice.asked[:1], arms[BEST][place][0].asked) for place, choice in plays]
    return {
        "first_is_best_single": fmean(first == best for first, best in firsts),
        "no_call": fmean(not choice.asked for _, choice in plays),
        "no_reference": fmean(choice.answered is None for _, choice in plays),
        "answers_with_first": fmean(choice.asked[:1] == (choice.answered,) for _, choice in plays),
        **{f"first_{kind}": len(found) / len(plays) for kind, found in again.items()},
        **{f"again_after_{kind}": fmean(found or [0.0]) for kind, found in again.items()},
    }


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


def trainings_of(
    log: Path, halves: Sequence[Half], seeds: int, work: Path, params: Params
) -> list[Training]:
    """Every training, in order; those whose file is in `work` are read.

    Raises: DataError naming a file that was made with other steps.
    """
    found = []
    for half in halves:
        learner = None
        for seed in range(1, seeds + 1):
            path = work / f"{half.name}-seed-{seed}.json"
            if not path.is_file():
                learner = learner or Learner(log, POOL_FILE, half, work / half.name, params)
                learner.train(seed).write(path)
            made = Training.read(path)
            if (made.steps, made.warmstart_steps) != (params.train.steps, params.warmstart.steps):
                raise DataError(
                    f"{path}: was made with other numbers of steps; delete it, or name another --work"
                )
            found.append(made)
            print(
                f"{len(found)} of {len(halves) * seeds}: {half.name}, seed {seed}: {made.minutes:.1f} min, "
                f"EM on validation {made.validation[0]:.3f} -> {made.validation[1]:.3f} at step {made.best_step}",
                flush=True,
            )
    return found


def page(found: Study) -> str:
    """The tables as Markdown."""
    tested = found.tested // found.halvings
    each = "every question once" if tested == found.n else f"{tested} questions"
    trained = "one training" if found.seeds == 1 else f"{found.seeds} trainings"
    note = (
        f"{found.halvings} random halvings of {found.n} questions, each of which tests {each} "
        f"({'both directions' if found.folds == 2 else 'one direction'}); {trained} of the policy on each learning half, "
        f"{len(found.runs)} in all. {round(100 * found.confidence)} % bootstrap intervals over questions and halvings "
        f"({found.resamples} draws). All routers learn by exact match in the tag, and the columns judge the same choices."
    )
    return markdown.render(
        [
            Section("Every router", note, _qualities(found)),
            Section(
                "Against the best single model",
                "The router minus the best single model, which the learning half chooses by exact match in the tag. p is "
                "Holm-corrected over the routers of a column; the intervals are not corrected. MDE, the minimum detectable "
                "effect, is the smallest true difference that four of five such studies find.",
                _differences(found),
            ),
            Section(
                "How much is routing, how much is repair",
                "The policy's difference to the best single model in exact match in the tag, by where it comes from. An "
                "answer that refers to no reply is a fault of a short training, not of routing.",
                _parts_table(found),
            ),
            Section("What the policy does", table=_behaviour_table(found)),
            Section(
                "Each training",
                f"A warm start of {found.warmstart_steps} steps on the learning half, and {found.steps} steps of "
                f"reinforcement learning with {QUESTIONS * ROLLOUTS} rollouts each. EM on validation is greedy, on pools "
                "drawn from the candidates with other names, some of them missing or down. At the default learning rate "
                "a first attempt on two halvings lost the format, so the rate here is half of it. Minutes are wall time on "
                "two busy cores, without the warm start.",
                _runs(found),
            ),
        ]
    )  # fmt: skip


def _qualities(found: Study) -> Table:
    heads = ("Router", *SHOWN.values(), "USD per 1,000", "Calls")
    rows: list[list[Cell | str]] = [
        [
            LABELS[arm.name],
            *(estimate(arm.quality[metric], 3) for metric in SHOWN),
            number(arm.cost_usd.mean, 4, 1000),
            number(arm.calls.mean, 2),
        ]
        for arm in _ranked(found)
    ]
    return table_of(heads, rows)


def _differences(found: Study) -> Table:
    heads = ["Router", *(head for label in SHOWN.values() for head in (label, "p", "MDE"))]
    rows = []
    for arm in _ranked(found):
        if arm.name == BEST:
            continue
        cells: list[Cell | str] = [LABELS[arm.name]]
        for metric in SHOWN:
            difference = arm.difference[metric]
            cells += [gap(difference, 3), p_text(difference), number(difference.mde, 3)]
        rows.append(cells)
    return table_of(heads, rows)


PARTS: Mapping[str, str] = {
    "first_call": "Routing of the first call: its reply instead of the best single model's",
    "repair": "Format: what further calls add where the first reply has no tag",
    "again": "Reading: what further calls add where the first reply has one",
    "no_reference": "Reference: answers that refer to no reply, such as `@2` after one reply",
    "total": "The policy",
}
BEHAVIOUR: Mapping[str, str] = {
    "first_is_best_single": "the first call is to the best single model",
    "first_answer_in_tag": "the first reply has an answer in its tag",
    "first_no_answer_in_tag": "the first reply says in its tag that it has no answer",
    "first_no_tag": "the first reply has no tag",
    "again_after_answer_in_tag": "a further call, after an answer in the tag",
    "again_after_no_answer_in_tag": "a further call, after a tag without an answer",
    "again_after_no_tag": "a further call, after a reply without a tag",
    "answers_with_first": "the answer is that of the first reply",
    "no_call": "no call",
    "no_reference": "an answer that refers to no reply, and so is wrong",
}


def _parts_table(found: Study) -> Table:
    rows = [[label, gap(found.parts[name], 3)] for name, label in PARTS.items()]
    return table_of(("Part", "EM in tag"), rows)


def _behaviour_table(found: Study) -> Table:
    rows = [[label, number(found.behaviour[name], 3)] for name, label in BEHAVIOUR.items()]
    return table_of(("What the policy does", "Share of questions"), rows)


def _runs(found: Study) -> Table:
    heads = (
        "Halving, seed", "EM on validation: before", "best", "at step", "EM in tag", "Best single model", "Calls",
        "First to the best single", "No reference: before", "after", "Minutes",
    )  # fmt: skip
    direction = (lambda run: f".{run.fold}") if found.folds > 1 else (lambda _: "")
    rows = [
        [
            f"{run.halving}{direction(run)}, {run.seed}",
            number(run.validation_before, 3), number(run.validation, 3), str(run.best_step), number(run.em, 3),
            number(run.best_single, 3), number(run.calls, 2), number(run.first_is_best_single, 2),
            number(run.no_reference_before, 3), number(run.no_reference, 3), number(run.minutes, 1),
        ]
        for run in found.runs
    ]  # fmt: skip
    return table_of(heads, rows)


def _ranked(found: Study) -> list[Arm]:
    return sorted(found.arms, key=lambda arm: -arm.quality[LEARNED_BY].mean)


def headline(found: Study) -> str:
    """The policy beside the best single model, and each training by itself."""
    policy, best = (found.arm(name).quality[LEARNED_BY].mean for name in (POLICY, BEST))
    least = found.arm(POLICY).difference[LEARNED_BY]
    low, high = number(least.low, 3, signed=True), number(least.high, 3, signed=True)
    verdict = "beats" if least.is_clear and least.mean > 0 else "does not beat"
    return wrapped(
        f"**The policy {verdict} the best single model**: it has {policy:.3f} exact match in the tag, the best single "
        f"model {best:.3f}. The difference is {least.mean:+.3f} [{low}, {high}]. Its trainings, one by one, have "
        f"{', '.join(f'{run.em:.3f}' for run in found.runs)}. Each takes {found.steps} steps, which is short, so the "
        "interval is wide and says little about longer training."
    )  # fmt: skip


INTRODUCTION = """# A policy on the paper's six candidates

{headline}

The policy is trained on recorded replies of Router-R1's six candidates
(ulab-uiuc/LLMRouter, commit 8e724d63f229, MIT) and played by replay. Nothing is called or paid.

```bash
python -m benchmarks.nq_policy llmrouter_nq_6llm.jsonl.gz {options}
```

- The log has replies to whole questions only. So the policy asks a candidate the whole question and
  reads the end of its reply. It may ask another candidate, and answers with one of the replies by
  reference ([how it learns](../how-to/questions.md#train-a-policy-on-them)).
- The answer of every router is what the chosen reply has between `<answer>` and `</answer>`. A
  reply without the tag is wrong. The policy is rewarded by this rule, and its look-ups show shares
  of right answers by it.
- *Contained* judges the whole chosen reply, with or without the tag.
- One half of the questions is for learning. The policy takes its probes and training questions
  from four fifths of it, and chooses its best step on the last fifth. The other routers learn from
  all of it.
- The learning rate and the weight of rehearsal were chosen on the 50 validation questions of the
  second halving. Of these, 19 are test questions of the first halving and 26 of the third.

"""


def text_of(study: Study) -> str:
    """The whole page."""
    options = (
        f"--repetitions {study.halvings} --folds {study.folds} --seeds {study.seeds} --steps {study.steps} "
        f"--warmstart-steps {study.warmstart_steps}"
    )
    return INTRODUCTION.format(headline=headline(study), options=options) + wrapped(page(study))


def main() -> None:
    """Train what is missing; write OUT.json and OUT.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/nq-policy"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/nq-policy"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folds", type=int, choices=(1, 2), default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--warmstart-steps", type=int, default=WARMSTART_STEPS)
    given = parser.parse_args()
    base = load_params(Path("params.yaml"))
    params = params_of(base, steps=given.steps, warmstart_steps=given.warmstart_steps)
    count = len(read_log(given.log, LEARNED_BY).questions)
    halves = halves_of(count, base.evaluate.seed, given.repetitions, given.folds)
    found = trainings_of(given.log, halves, given.seeds, given.work, params)
    baselines = base.baselines.replace(include=ROUTERS)
    study = study_of(given.log, found, halves, baselines, base.evaluate)
    study.write(given.out.with_suffix(".json"))
    atomic_write_text(given.out.with_suffix(".md"), text_of(study))


if __name__ == "__main__":
    main()
