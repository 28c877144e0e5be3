"""The registered policy as an MLflow pyfunc model: questions in, answers with cost, calls and trajectory out.

    mlflow.pyfunc.load_model("models:/routerr1@champion").predict(["What is the currency of Norway?"])

MLflow runs this very file when it logs and when it loads a version ("models from code").
"""

import asyncio
import logging
import os
import re
import signal
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

from routerr1.config import Params
from routerr1.errors import ConfigError, RegistryError
from routerr1.files import read_json
from routerr1.registry.samples import SIMULATED
from routerr1.registry.served import MATRIX, as_served, check_cards, known_topics
from routerr1.rollout.record import to_row
from routerr1.rollout.refusal import refusal_of
from routerr1.tracking.store import experiment_id, open_client
from routerr1.tracking.traces import hand_over
from routerr1.types import Card, Question, Trajectory
from routerr1.workspace import Workspace

if TYPE_CHECKING:
    from routerr1.baselines.likeness import KnownQuestions

Result = TypeVar("Result")
Answerer = Callable[[Sequence[Question]], Coroutine[Any, Any, list[Trajectory]]]
_log = logging.getLogger(__name__)
# Keys of `model_config`, with their defaults; MLflow ignores any other key.
SETTINGS: dict[str, Any] = {
    "pool_file": None,
    "budget": {},
    "trace": True,
    "topics": True,
    "demo": False,
}
_NEEDED = ("torch", "transformers", "safetensors", "tokenizers", "numpy", "pandas", "pyarrow")


def requirements() -> list[str]:
    """The packages that serving needs, pinned to the installed releases without local build tags ("+cpu")."""
    own = metadata.requires("routerr1") or []
    names = [
        re.split(r"[\s<>=!~\[;]", line, maxsplit=1)[0] for line in own if "extra ==" not in line
    ]
    installed = {name: metadata.version(name).partition("+")[0] for name in (*names, *_NEEDED)}
    return [f"{name}=={version}" for name, version in sorted(installed.items())]


class Served(TypedDict):
    """The reply to one question. MLflow's own schemas cannot describe a trajectory, which nests.

    Attributes:
        answer: None if there is none, or if every call failed and it would be a guess.
        refused: why there is no answer; None with one.
        version: the tag `routerr1.key` of the version.
        pool: kind of the pool; what a `simulated` one replies is made up.
        topic: of most of the nearest questions that the version learned from; None if it keeps none.
        topic_share: share of the nearest that have the topic.
        unlike: none of them is near, so what was measured may not hold for this question.
    """

    answer: str | None
    refused: str | None
    version: str
    pool: str
    cost_usd: float
    calls: int
    topic: str | None
    topic_share: float | None
    unlike: bool | None
    trajectory: dict[str, Any]


class RouterModel(PythonModel):
    """A checkpoint with the pool it was trained for.

    All requests run in one event loop on its own thread. They share the batch of the policy, and calls of
    one request overlap with the generation of another.
    """

    def load_context(self, context: Any) -> None:
        """Load policy, cards and parameters, and open the pool.

        The pool is the one of the version's parameters; `model_config={"pool_file": PATH}` names another,
        and `{"budget": {"run_usd": 5}}` changes its limits. Each question is traced if there is a store;
        `{"trace": False}` turns that off, `{"topics": False}` the topics of questions. Simulated candidates
        answer with `{"demo": True}` alone. Calls are live, however they were made in training.

        Raises: PoolError naming the cards that the pool lacks; CheckpointError; ConfigError for an invalid
            budget, or if candidates are simulated, and that was not asked for.
        """
        from routerr1.pool.cards import read_cards
        from routerr1.train.checkpoint import read_manifest

        folder = Path(context.artifacts["context"])
        read_manifest(folder)
        config = {**SETTINGS, **(getattr(context, "model_config", None) or {})}
        self._params = as_served(
            Params.model_validate(read_json(folder / "params.json")),
            pool=_path(config["pool_file"]),
            packed=folder / "pool.yaml",
            prompt=folder / "prompt.txt",
            budget=config["budget"],
        )
        cards = read_cards(folder / "cards.json")
        check_cards(_offered(self._params), cards)
        self._version = str(read_json(folder / "sbom.cdx.json")["metadata"]["component"]["version"])
        if self._params.pool.kind == SIMULATED and not config["demo"]:
            raise ConfigError(
                "the candidates are simulated: their answers are made up; name real ones with "
                "model_config `pool_file`, or set `demo` to true"
            )
        # The limit of a run applies to this process, and spending of earlier processes does not count.
        workspace = Workspace(self._params, matrix=folder / MATRIX)
        self._pool = workspace.open_pool(cards, run=f"serving {uuid.uuid4().hex}")
        self._answer = self._answerer(workspace, Path(context.artifacts["checkpoint"]))
        self._known = self._known_questions(folder) if config["topics"] else None
        self._experiment = _experiment(self._params) if config["trace"] else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="routerr1", daemon=True)
        self._thread.start()
        self._ending = False
        self._before: Any = (
            signal.SIG_DFL
        )  # the handler of SIGTERM that runs once traces are stored
        if self._experiment is not None:
            self._store_traces_at_the_end()

    def _answerer(self, workspace: Workspace, checkpoint: Path) -> Answerer:
        """How questions are answered: by the policy of `checkpoint`, or by the router that it holds."""
        from routerr1.baselines.replies import answer_all
        from routerr1.baselines.saved import ROUTER, load_router
        from routerr1.rollout.loop import play

        params = workspace.params
        if (checkpoint / ROUTER).is_file():
            router = load_router(checkpoint)
            return partial(
                answer_all,
                router=router,
                pool=self._pool,
                seed=params.evaluate.seed,
                concurrency=params.evaluate.concurrency,
            )
        workspace.load_figures()
        return partial(
            play,
            generator=workspace.load(checkpoint),
            pool=self._pool,
            render=workspace.renderer,
            params=params.rollout,
            seed=params.evaluate.seed,
            temperature=params.evaluate.temperature,
        )

    def _known_questions(self, folder: Path) -> "KnownQuestions | None":
        from routerr1.baselines.likeness import open_known

        return open_known(known_topics(folder), self._params.baselines, self._params.seeds[0])

    def _store_traces_at_the_end(self) -> None:
        """Store waiting traces on SIGTERM, which ends servers without MLflow's own exit handler.

        After that the process ends as it would have.
        """
        before = signal.getsignal(signal.SIGTERM)
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and (callable(before) or before == signal.SIG_DFL):
            self._before = before
            signal.signal(signal.SIGTERM, self._end)

    def _end(self, number: int, frame: Any) -> None:
        self._ending = True  # questions still under way store their own
        mlflow.flush_trace_async_logging()
        if callable(self._before):
            self._before(number, frame)
        else:
            signal.signal(number, self._before)
            signal.raise_signal(number)

    def close(self) -> None:
        """Close the pool, for a process that loads several versions in turn (`unwrap_python_model`)."""
        if signal.getsignal(signal.SIGTERM) == self._end:
            signal.signal(signal.SIGTERM, self._before)
        self._run(self._pool.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # MLflow checks requests by these hints; `context` may be left out.
    def predict(self, model_input: list[str]) -> list[Served]:  # type: ignore[override]
        """Answer each question, or say why there is no answer; see `Served`.

        Raises: MlflowException (status 400 over HTTP) for an empty question.
        """
        _refuse_empty(model_input)
        played = self._run(self._play(model_input))
        self._trace(played)
        for trajectory in played:
            _warn_of_refused_calls(trajectory)
        return [self._served(trajectory) for trajectory in played]

    def _served(self, trajectory: Trajectory) -> Served:
        refused = refusal_of(trajectory)
        placed = None
        if self._known is not None:
            placed = self._known.compare(trajectory.question.question)
        return {
            "answer": trajectory.answer if refused is None else None,
            "refused": None if refused is None else refused.why,
            "version": self._version,
            "pool": self._params.pool.kind,
            "cost_usd": trajectory.ledger.cost_usd,
            "calls": trajectory.ledger.calls,
            "topic": None if placed is None else placed.topic,
            "topic_share": None if placed is None else placed.share,
            "unlike": None if placed is None else placed.is_unlike,
            "trajectory": to_row(trajectory),
        }

    def _trace(self, played: Sequence[Trajectory]) -> None:
        if self._experiment is None:
            return
        try:
            hand_over(played, self._experiment)
            if self._ending:
                mlflow.flush_trace_async_logging()
        except RegistryError as error:  # an answer matters more than its trace
            _log.warning("not traced: %s", error)

    async def _play(self, texts: Sequence[str]) -> list[Trajectory]:
        questions = [Question(uuid.uuid4().hex, "served", text, (), "test") for text in texts]
        return await self._answer(questions)

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        future: Future[Result] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()


def _path(named: str | None) -> Path | None:
    return None if named is None else Path(named)


def _experiment(params: Params) -> str | None:
    """The experiment for traces, or None if there is no store yet; serving makes none."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not Path("mlflow.db").is_file():
        return None
    return experiment_id(open_client(), params.registry.experiment)


def _refuse_empty(questions: Sequence[str]) -> None:
    for place, text in enumerate(questions):
        if not text.strip():
            raise MlflowException.invalid_parameter_value(f"inputs: question {place} is empty")


def _warn_of_refused_calls(trajectory: Trajectory) -> None:
    """Warn of an answer for which calls were refused: it is worse, and looks like any other."""
    for turn in trajectory.turns:
        if turn.reply is not None and turn.reply.failure == "budget":
            _log.warning("question %s: %s", trajectory.question.id, turn.reply.note)
            return


def _offered(params: Params) -> Sequence[Card]:
    """The cards of the pool as it is now."""

    pool = Workspace(params).open_pool()
    asyncio.run(pool.aclose())
    return pool.cards


mlflow.models.set_model(RouterModel())
