"""The registered policy as an MLflow pyfunc model: questions in, answers with cost, calls and trajectory out.

    mlflow.pyfunc.load_model("models:/routerr1@champion").predict(["What is the currency of Norway?"])

MLflow runs this very file when it logs and when it loads a version ("models from code").
"""

import asyncio
import logging
import os
import re
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow.pyfunc.model import PythonModel

from routerr1.config import Params
from routerr1.errors import PoolError, RegistryError
from routerr1.files import read_json
from routerr1.rollout.record import to_row
from routerr1.tracing import log_traces
from routerr1.tracking import experiment_id, open_client
from routerr1.types import Card, Question, Trajectory

Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_NEEDED = ("torch", "transformers", "safetensors", "tokenizers", "numpy", "pandas", "pyarrow")


def requirements() -> list[str]:
    """What serving needs, pinned to what is installed here; a local build tag ("+cpu") is left out."""
    own = metadata.requires("routerr1") or []
    names = [
        re.split(r"[\s<>=!~\[;]", line, maxsplit=1)[0] for line in own if "extra ==" not in line
    ]
    installed = {name: metadata.version(name).partition("+")[0] for name in (*names, *_NEEDED)}
    return [f"{name}=={version}" for name, version in sorted(installed.items())]


class RouterModel(PythonModel):
    """A checkpoint with the pool it was trained for.

    All requests are played in one event loop on a thread of its own: they share the policy's batch, and
    calls of some overlap with generation of others.
    """

    def load_context(self, context: Any) -> None:
        """Load policy, cards and parameters, and open the pool.

        The pool is the one of the version's parameters; `model_config={"pool_file": PATH}` names another.
        Each question is traced where there is a store; `model_config={"trace": False}` turns that off.

        Raises: PoolError naming the cards the pool lacks; CheckpointError.
        """
        from routerr1 import stages
        from routerr1.pool.cards import read_cards

        folder = Path(context.artifacts["context"])
        config = dict(getattr(context, "model_config", None) or {})
        self._params = _with_files(
            Params.model_validate(read_json(folder / "params.json")),
            pool=Path(config.get("pool_file") or folder / "pool.yaml"),
            prompt=folder / "prompt.txt",
        )
        cards = read_cards(folder / "cards.json")
        check_cards(_offered(self._params), cards)
        self._pool = stages.open_pool(self._params, cards)
        self._generator = stages.load_policy(Path(context.artifacts["checkpoint"]), self._params)
        self._experiment = _experiment(self._params) if config.get("trace", True) else None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="routerr1", daemon=True).start()

    # MLflow checks requests by these hints; `context` may be left out.
    def predict(self, model_input: list[str]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Play each question; for each its answer, cost_usd, calls, and the whole trajectory."""
        played = self._run(self._play(model_input))
        self._trace(played)
        return [
            {
                "answer": trajectory.answer,
                "cost_usd": trajectory.ledger.cost_usd,
                "calls": trajectory.ledger.calls,
                "trajectory": to_row(trajectory),
            }
            for trajectory in played
        ]

    def _trace(self, played: Sequence[Trajectory]) -> None:
        if self._experiment is None:
            return
        try:
            log_traces(played, self._experiment)
        except RegistryError as error:  # an answer is worth more than its trace
            _log.warning("not traced: %s", error)

    async def _play(self, texts: Sequence[str]) -> list[Trajectory]:
        from routerr1 import stages
        from routerr1.rollout.loop import play

        params = self._params
        return await play(
            [Question(f"served-{i}", "served", text, (), "test") for i, text in enumerate(texts)],
            self._generator,
            self._pool,
            render=stages.renderer(params),
            params=params.rollout,
            seed=params.evaluate.seed,
            temperature=params.evaluate.temperature,
        )

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        future: Future[Result] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()


def _experiment(params: Params) -> str | None:
    """Where traces go; nowhere if there is no store but the one that would be made here."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not Path("mlflow.db").is_file():
        return None
    return experiment_id(open_client(), params.registry.experiment)


def _with_files(params: Params, *, pool: Path, prompt: Path) -> Params:
    """The parameters, naming these files where they name any."""
    changed: dict[str, Any] = {}
    if params.pool.kind != "simulated":
        changed["pool"] = params.pool.model_copy(update={"file": pool})
    if params.prompt.file is not None:
        changed["prompt"] = params.prompt.model_copy(update={"file": prompt})
    return params.model_copy(update=changed)


def _offered(params: Params) -> Sequence[Card]:
    """The cards of the pool as it is, not as it was when the policy was trained."""
    from routerr1 import stages

    pool = stages.open_pool(params)
    asyncio.run(pool.aclose())
    return pool.cards


def check_cards(offered: Sequence[Card], needed: Sequence[Card]) -> None:
    """The policy names candidates; one that the pool lacks would fail in the middle of an answer.

    Raises: PoolError naming the cards that are missing.
    """
    missing = sorted({card.name for card in needed} - {card.name for card in offered})
    if missing:
        raise PoolError(
            f"the pool lacks {', '.join(missing)}, which the policy was trained to call"
        )


mlflow.models.set_model(RouterModel())
