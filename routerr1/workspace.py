"""The working folder: what stages, commands, flows and serving are built from.

A `Workspace` binds parameters to the folders that dvc.yaml names. It opens what lies there: questions,
cards, policies and pools. It also knows what unfinished work depends on, so that a resumed stage keeps
only results that are still valid.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1.answers.long_answer import Embed
from routerr1.config import Params
from routerr1.data.embedded import World, build_world
from routerr1.data.splits import read_questions
from routerr1.errors import ConfigError, PoolError
from routerr1.files import digest
from routerr1.lineage import PATHS, fingerprint, hash_of, stage_inputs
from routerr1.notation import SPEND_LEVELS, with_spend
from routerr1.pool.base import Pool
from routerr1.pool.budget import Budget
from routerr1.pool.build import ONE_RUN, open_http_pool, store_file, wrap_pool
from routerr1.pool.cards import read_cards
from routerr1.pool.grading import Grader, open_judge
from routerr1.pool.profile import ProbeRow, read_probes
from routerr1.pool.recording import Recorder
from routerr1.pool.records import RecordStore
from routerr1.prompt import Renderer, looking_up, prompt_hash, renderer
from routerr1.rollout.generate import Generator
from routerr1.rollout.lazy import LazyGenerator
from routerr1.simulation.candidates import candidates_of
from routerr1.simulation.facts import Fact, known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.train.checkpoint import read_manifest
from routerr1.types import SPLITS, Card, Question, Split

if TYPE_CHECKING:
    from routerr1.baselines.by_question import ProbeFigures
    from routerr1.baselines.embed import Embedder
    from routerr1.rollout.local import LocalGenerator

_MOST_PROCESSES = 8  # each takes half a gigabyte


class Workspace:
    """Parameters and the files of the working directory.

    Cards and renderer are read once; make another workspace after they have changed.

    Args:
        matrix: the probes that look-ups of a question rest on, in place of the profile stage's.
        vectors: makes the embedder of look-ups; by default MiniLM as stages use it.
    """

    paths = PATHS

    def __init__(
        self,
        params: Params,
        matrix: Path | None = None,
        vectors: Callable[[], "Embedder"] | None = None,
    ) -> None:
        self.params = params
        self._vectors = vectors
        self._matrix = matrix or self.paths.matrix

    @property
    def processes(self) -> int:
        """How many processes of this machine play an evaluation, see `EvaluateParams.processes`."""
        forks = sys.platform == "linux"  # elsewhere they are not safe
        if not (forks and self.params.shares_nothing):
            return 1
        cores = len(os.sched_getaffinity(0))
        return self.params.evaluate.processes or min(cores, _MOST_PROCESSES)

    def questions(self, split: Split) -> list[Question]:
        """The questions of one split.

        Raises: DataError if the split's file is missing or cannot be read.
        """
        return read_questions(self.paths.questions, split)

    def spending(self, split: Split) -> list[Question]:
        """The questions of one split at the spend level of the evaluation."""
        return self.at_spend_level(self.questions(split))

    def at_spend_level(self, questions: Sequence[Question]) -> list[Question]:
        """The questions, each with the spend level of the evaluation if that is not the highest."""
        level = self.params.evaluate.spend
        if level == SPEND_LEVELS:
            return list(questions)
        return [with_spend(question, level) for question in questions]

    def all_questions(self) -> list[Question]:
        """The questions of all splits, in the order train, validation, test."""
        return [question for split in SPLITS for question in self.questions(split)]

    @cached_property
    def cards(self) -> list[Card]:
        """The profiled cards.

        Raises: PoolError if the profile stage has not written them.
        """
        return read_cards(self.paths.cards)

    @cached_property
    def world(self) -> World:
        """The facts behind the embedded questions."""
        return build_world(self.params.dataset.embedded)

    @cached_property
    def facts(self) -> dict[str, Fact]:
        """Question -> what a simulated candidate may know of it."""
        return known_facts(self.world)

    @cached_property
    def probes(self) -> list[ProbeRow]:
        """What the profile stage asked and heard.

        Raises: DataError if the profile stage has not written it.
        """
        return read_probes(self._matrix)

    def probed(self, questions: Sequence[Question]) -> list[Question]:
        """Those of `questions` that the profile stage asked."""
        asked = {row["question"] for row in self.probes}
        return [question for question in questions if question.question in asked]

    @cached_property
    def renderer(self) -> Renderer:
        """The prompt's renderer. The probes are read when a policy first looks a question up.

        Raises: ConfigError if the wording's file cannot be used.
        """
        section = self.params.prompt
        if self.params.looks_up_questions:
            return looking_up(lambda question: self._figures(question))
        return renderer(section.template, self.params.rollout.max_rounds, section.file)

    def load_figures(self) -> None:
        """Read now what look-ups of a question rest on, if there are any; the file can go afterwards.

        Raises: DataError if the probes cannot be read.
        """
        if self.params.looks_up_questions:
            _ = self._figures

    @cached_property
    def _figures(self) -> "ProbeFigures":
        # An embedding model takes seconds to import.
        from routerr1.baselines.by_question import ProbeFigures

        if self._vectors is None:
            return ProbeFigures.of(self._matrix)
        return ProbeFigures(self.probes, self._vectors())

    def open_pool(
        self,
        cards: Sequence[Card] | None = None,
        *,
        run: str = ONE_RUN,
        budget: Budget | None = None,
    ) -> Pool:
        """The pool that the parameters name.

        Args:
            cards: replace the pool's own cards, usually by the profiled ones.
            run: pays the calls if the environment names no run.
            budget: see `open_http_pool`.

        Raises: ConfigError, PoolError: the pool cannot answer these questions, or lacks a candidate of `cards`.
        """
        section = self.params.pool
        if section.kind != "simulated":
            return open_http_pool(
                section, cards, run=run, budget=budget, max_rejected=self.params.max_rejected
            )
        if self.params.dataset.source != "embedded":
            raise ConfigError("params.yaml: pool.kind: simulated answers embedded questions only")
        candidates = candidates_of(section.candidates)
        unknown = {card.name for card in cards or ()} - {each.name for each in candidates}
        if unknown:
            raise PoolError(
                f"{self.paths.cards}: the simulated pool has no candidate {min(unknown)!r}; "
                "run the profile stage again"
            )
        simulated = SimulatedPool(candidates, self.facts, seed=section.seed, cards=cards)
        limit = self.params.max_rejected
        return wrap_pool(simulated, section, run=run, budget=budget, max_rejected=limit)

    def keep_calls(self, pool: Pool, path: Path) -> Pool:
        """`pool`, whose paid calls are kept in `path` until the stage is done.

        A stage that resumes after a kill then pays for no call twice. An evaluation in which several
        routers send the same question to the same candidate pays for it once.
        Pools that are free, recorded or replayed are returned as they are.
        """
        if self.params.pool.kind != "http" or self.params.pool.calls != "live":
            return pool
        store = RecordStore(path)
        return Recorder(pool, store, repeats=False, max_rejected=self.params.max_rejected)

    def grader(self, *, probed: bool = False) -> Grader:
        """What grades answers to questions whose task takes more than a comparison; to be closed.

        Args:
            probed: take the grades of the replies that the profile stage heard from there.

        Raises: DataError if these are wanted and cannot be read.
        """
        params = self.params

        def embed() -> Embed:
            # Slow to import, and few questions need it.
            from routerr1.baselines.embed import MINILM, TFIDF, embedder

            name = params.baselines.embedder
            return embedder(MINILM if name == TFIDF else name, params.seeds[0]).embed

        return Grader(
            params.verify,
            embed=embed,
            judge=lambda section: open_judge(section, params.pool, params.max_rejected),
            known={
                (row["dataset"], row["question_id"], row["answer"]): row["correct"]
                for row in (self.probes if probed else [])
                if row["answer"]
            },
        )

    def probe_store(self, *sections: str) -> Path | None:
        """Where replies to probe questions are kept for a resumed stage; None if they are free.

        A simulated pool is free, and its replies change with the code; a recorded pool is free too.

        Args:
            sections: of the parameters that decide the replies. The pool files that they name count too: a
                recorded call says neither which endpoint answered nor what it charges now.
        """
        if self.params.pool.kind != "http":
            return None
        files = {"pool": self.params.pool.file, "generalize": self.params.generalize.file}
        read = [digest(file) for name in sections if (file := files.get(name)) is not None]
        return self.paths.probed / f"{hash_of([fingerprint(self.params, *sections), *read])}.jsonl"

    def policy_folder(self, seed: int) -> Path:
        """Where the trained policy of a training seed lies."""
        first = seed == self.params.seeds[0]
        return self.paths.policy if first else self.paths.other_policies / f"seed-{seed}"

    def warmstart_folder(self, seed: int) -> Path:
        """Where the warm start of a training seed lies."""
        return self.paths.warmstart / f"seed-{seed}"

    def policy(self, seed: int) -> Generator:
        """The trained policy of a training seed; it is loaded when it first generates."""
        return LazyGenerator(partial(self.load, self.policy_folder(seed)))

    def policies(self) -> dict[int, Generator]:
        """Training seed -> trained policy."""
        return {seed: self.policy(seed) for seed in self.params.seeds}

    def warm_started(self, seed: int) -> Generator:
        """The policy that training of a seed starts from; it is loaded when it first generates."""
        return LazyGenerator(partial(self.load, self.warmstart_folder(seed)))

    def load(self, folder: Path) -> "LocalGenerator":
        """A policy that this project saved, on the device that the parameters name.

        Raises: CheckpointError if a file is missing or corrupt, or the model cannot be loaded.
        """
        read_manifest(folder)
        return self.load_unchecked(folder)

    def load_for_one(self, folder: Path) -> Generator:
        """A policy that this project saved, for a single question.

        A small one made from scratch is played with NumPy, since importing torch takes seconds.

        Raises: CheckpointError if a file is missing or corrupt, or the model cannot be loaded.
        """
        from routerr1.rollout.quick import QuickGenerator, is_quick

        read_manifest(folder)
        if is_quick(folder) and not self.params.prompt.chat:
            return QuickGenerator(folder, max_length=self.params.rollout.max_tokens)
        return self.load_unchecked(folder)

    def load_unchecked(self, name: Path | str) -> "LocalGenerator":
        """Any causal LM that transformers loads, from a folder or the hub; its files are not checked.

        Raises: CheckpointError if it cannot be loaded.
        """
        # torch takes seconds to import, and most users of a workspace load no policy.
        from routerr1.policy.load import load_options
        from routerr1.rollout.local import LocalGenerator

        return LocalGenerator.load(name, load_options(self.params))

    def fingerprint(self, stage: str, seed: int | None = None) -> str:
        """Digest of `inputs`: unfinished work of a stage resumes only under the same fingerprint."""
        return hash_of(self.inputs(stage, seed))

    def inputs(self, stage: str, seed: int | None = None) -> dict[str, Any]:
        """What decides the results of a stage, as JSON values: code, parameters and digests of files.

        Args:
            stage: warmstart, train, evaluate or generalize.
            seed: of the training, for the stage train.

        Raises: DataError naming a file that is missing.
        """
        paths, params = self.paths, self.params
        found = {
            **stage_inputs(stage, params),
            "data": digest(paths.questions),
            "cards": digest(paths.cards),
            "prompt": prompt_hash(
                params.prompt.template, params.rollout.max_rounds, params.prompt.file
            ),
        }
        if stage == "train" and seed is not None:
            found["seed"] = seed
            found["warmstart"] = digest(self.warmstart_folder(seed))
        if stage in ("warmstart", "train") and params.looks_up_questions:
            found["matrix"] = digest(self._matrix)
        if stage in ("evaluate", "generalize"):
            found["policies"] = [digest(paths.policy), digest(paths.other_policies)]
            found["warmstart"] = digest(paths.warmstart)
            found["matrix"] = digest(paths.matrix)
            replies = store_file(params.pool) if params.pool.kind == "recorded" else None
            read = (params.baselines.corpus, params.pool.file, params.generalize.file, replies)
            found["files"] = [digest(file) if file else None for file in read]
        return found
