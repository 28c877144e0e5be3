"""Grades for the tasks that take more than a comparison: `long`, `code` and `judge`.

An answer is graded after its rollout, and the grade travels with the trajectory. Rows, rewards and cards then
take it for what `verify` says of other tasks.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from routerr1.answers.long_answer import Embed, long_score
from routerr1.answers.sandbox import Limits, can_confine, passes
from routerr1.answers.verifiers import GRADED, task_of, verify
from routerr1.config import JudgeParams, PoolParams, VerifyParams
from routerr1.errors import ConfigError
from routerr1.pool import budget as money
from routerr1.pool.base import Call, Pool
from routerr1.pool.build import budget_file, open_http_pool
from routerr1.pool.judge import RUBRIC, Judge
from routerr1.types import Question, Trajectory

Grade = Callable[[Question, str], Awaitable[float | None]]
"""(question, answer or whole reply) -> in [0, 1]; None where a comparison decides."""

_JUDGE_RUN = "judge"  # the sum in the budget's file that the judge's calls count towards
_log = logging.getLogger(__name__)


async def compared(question: Question, said: str) -> float | None:  # noqa: ARG001 - of the interface
    """The grade where no grader is at hand.

    Raises: ConfigError for a task that needs one.
    """
    if task_of(question.metadata) in GRADED:
        raise ConfigError(
            f"question {question.id}: its task {task_of(question.metadata)} needs a grader, and this "
            "command has none"
        )
    return None


async def graded(trajectory: Trajectory, grade: Grade) -> Trajectory:
    """The trajectory with the grade of its answer, if its task takes one."""
    if trajectory.answer is None:
        return trajectory
    found = await grade(trajectory.question, trajectory.answer)
    return trajectory if found is None else replace(trajectory, grade=found)


async def graded_all(trajectories: Iterable[Trajectory], grade: Grade) -> list[Trajectory]:
    """`graded` for each, side by side."""
    return list(await asyncio.gather(*(graded(each, grade) for each in trajectories)))


def how_right(question: Question, said: str, grade: float | None, *, whole_reply: bool) -> float:
    """How right an answer is: its grade, or what the comparison of its task says."""
    if grade is not None:
        return grade
    return verify(
        said, question.golden_answers, question.matching, question.metadata, whole_reply=whole_reply
    )


class Grader:
    """What grades the answers of a workspace. Models are loaded and opened when a task first needs them.

    Args:
        embed: makes the embedder that `long` compares by.
        judge: makes the pool of `params.judge`.
        known: grades by data set, question's id and answer, which are not found again.
    """

    def __init__(
        self,
        params: VerifyParams,
        *,
        embed: Callable[[], Embed],
        judge: Callable[[JudgeParams], Pool],
        known: Mapping[tuple[str, str, str], float] | None = None,
    ) -> None:
        self._params = params
        self._make_embed, self._open_judge = embed, judge
        self._embed: Embed | None = None
        self._judge_pool: Pool | None = None
        self._known = dict(known or {})
        # One thread: calls under way do not wait for an embedder, so their seconds are those of their servers.
        self._embedding = ThreadPoolExecutor(1, thread_name_prefix="grade")
        self._running = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._judged = self._unjudged = 0

    async def __call__(self, question: Question, said: str) -> float | None:
        """See `Grade`."""
        task = task_of(question.metadata)
        if task not in GRADED:
            return None
        if not said.strip():
            return 0.0
        key = (question.dataset, question.id, said)
        if key not in self._known:
            grade = {"long": self._long, "code": self._code, "judge": self._judge}[task]
            self._known[key] = await grade(question, said)
        return self._known[key]

    async def aclose(self) -> None:
        """Close the judge's pool, and say how many answers got no verdict."""
        self._embedding.shutdown()
        if self._judge_pool is not None:
            pool, self._judge_pool = self._judge_pool, None
            await pool.aclose()
        if self._unjudged:
            _log.warning(
                "the judge gave no verdict on %d of %d answers, which count as wrong; ask a better model "
                "(verify.judge)", self._unjudged, self._judged,
            )  # fmt: skip
            self._judged = self._unjudged = 0

    async def _long(self, question: Question, said: str) -> float:
        def score() -> float:
            if self._embed is None:
                self._embed = self._make_embed()
            return long_score(question.question, said, question.golden_answers, self._embed)

        found = await asyncio.get_running_loop().run_in_executor(self._embedding, score)
        return float(found >= self._params.long_at_least)

    async def _code(self, question: Question, said: str) -> float:
        section = self._params.code
        assert section is not None  # `require_graders`
        limits = Limits(section.time_s, section.memory_mb, confined=section.confined)

        def run() -> bool:
            with self._running:
                return passes(said, question.golden_answers, limits)

        return float(await asyncio.to_thread(run))

    async def _judge(self, question: Question, said: str) -> float:
        section = self._params.judge
        assert section is not None  # `require_graders`
        if self._judge_pool is None:
            self._judge_pool = self._open_judge(section)
        pool = self._judge_pool
        judge = Judge(
            lambda prompt: pool.ask(Call(section.candidate, prompt)), section.rubric or RUBRIC
        )
        verdict = await judge.is_right(
            question.question, said, " or ".join(question.golden_answers)
        )
        self._judged += 1
        self._unjudged += verdict is None
        return float(verdict or 0)


def require_graders(questions: Iterable[Question], params: VerifyParams) -> None:
    """Refuse questions whose tasks cannot be graded, before anything is paid.

    Raises: ConfigError naming the key.
    """
    tasks = {task_of(question.metadata) for question in questions}
    if "judge" in tasks and params.judge is None:
        raise ConfigError(
            "params.yaml: verify.judge: questions have the task judge; name a pool file, a candidate and a "
            "budget, e.g. {file: pools/judge.yaml, candidate: Referee, budget_usd: 1}"
        )
    if "code" not in tasks:
        return
    if params.code is None:
        raise ConfigError(
            "params.yaml: verify.code: questions have the task code, whose answers are run; allow it with "
            "{time_s: 5}, see docs/how-to/questions.md"
        )
    if params.code.confined and not can_confine():
        raise ConfigError(
            "params.yaml: verify.code: this machine cannot run code apart from its files and its network "
            "(Linux with unshare and Landlock can); run it in a container without secrets, and set confined: "
            "false"
        )


def open_judge(params: JudgeParams, pool: PoolParams, max_rejected: float) -> Pool:
    """The pool that the judge is asked through: recorded like other calls, with a budget of its own.

    Raises: PoolError, ConfigError if the file, its keys or the candidate cannot be used.
    """
    section = pool.replace(
        kind="http", file=params.file, calls=params.calls, store=params.store,
        max_reply_tokens=params.max_reply_tokens, redraw=0.0,
    )  # fmt: skip
    limit = money.Budget(budget_file(), money.Limits(run_usd=params.budget_usd), run=_JUDGE_RUN)
    opened = open_http_pool(section, held_out=True, budget=limit, max_rejected=max_rejected)
    names = [card.name for card in opened.cards]
    if params.candidate not in names:
        raise ConfigError(
            f"params.yaml: verify.judge.candidate: {params.candidate!r} is not in {params.file}, which has "
            f"{', '.join(names)}"
        )
    return opened
