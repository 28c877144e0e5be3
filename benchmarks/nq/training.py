"""Policies that learn from one half of a log of replies and play the other, by replay.

Of each learning half a part is for validation; the rest is for probes and training questions. All
seeds of a half continue from one warm start, in a folder that is a workspace of its own.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from routerr1.baselines.replay_study import Half, RecordedReply, read_lines
from routerr1.config import ColumnsParams, Params
from routerr1.data.imported import Shares, import_file, remember
from routerr1.errors import CheckpointError, DataError
from routerr1.evaluate.results import Figure, Result
from routerr1.evaluate.rows import asked_of
from routerr1.files import read_yaml
from routerr1.jobs.progress import track
from routerr1.matching import exact_match
from routerr1.pool.base import Pool
from routerr1.pool.importing import import_log
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.profile import profile, write_profile
from routerr1.protocol import extract_answer
from routerr1.rollout.loop import play
from routerr1.stages.dataset import dataset
from routerr1.stages.train import training_context
from routerr1.stages.warmstart import warmstart
from routerr1.train.checkpoint import read_manifest
from routerr1.train.grpo import train as train_grpo
from routerr1.train.process_lock import only_trainer
from routerr1.types import Answer, Question, Trajectory
from routerr1.workspace import Workspace

QUESTIONS, ROLLOUTS = 16, 8  # of a step
_DATASET = "nq_log"
_OWN_POOL_FILE, _STORE = Path("pools/nq.yaml"), Path("data/calls/nq.jsonl")
_VALIDATION_SHARE = 0.2  # of the learning half; by it a training chooses its best step


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


async def graded_in_tag(question: Question, said: str) -> float:
    """Exact match of what a reply has in its answer tag, 0 without one; a `Grade`.

    What the policy refers to has the brackets of tags made square.
    """
    plain = said.replace("[answer]", "<answer>").replace("[/answer]", "</answer>")
    tagged = extract_answer(plain)
    return 0.0 if tagged is None else exact_match(tagged, question.golden_answers)


def params_of(base: Params, *, steps: int, warmstart_steps: int) -> Params:
    """`base` for questions of one's own, a pool that is replayed, and a short training."""
    imported = Path("data/imported") / f"{_DATASET}.parquet"
    return base.replace(
        dataset=base.dataset.replace(source="imported", imported=(imported,)),
        pool=base.pool.replace(kind="http", file=_OWN_POOL_FILE, calls="replay", store=_STORE),
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
            Question(f"{row}", _DATASET, rows[row].query, rows[row].golden_answers, "test")
            for row in map(int, self.half.test)
        ]
        models = {row.name: row.model for row in read_pool_file(_OWN_POOL_FILE).candidates}
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
    _OWN_POOL_FILE.parent.mkdir(exist_ok=True)
    _OWN_POOL_FILE.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    file = read_pool_file(_OWN_POOL_FILE, max_reply_tokens=params.pool.max_reply_tokens)
    import_log(log, _STORE, file)
    held = round(_VALIDATION_SHARE * len(learn))
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
        source, _DATASET, ColumnsParams(metadata=None), out=Path("data/imported"),
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


def trainings_of(
    log: Path, pool_file: Path, halves: Sequence[Half], seeds: int, work: Path, params: Params
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
                learner = learner or Learner(log, pool_file, half, work / half.name, params)
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
