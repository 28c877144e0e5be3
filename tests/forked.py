"""Processes that register and promote, forked from one that imported MLflow once: it takes them longer than their work."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "mlflow.pyfunc",
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
        "routerr1.registry.promotion",
    ]
)


def fork(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Begin a function of this module, in the working folder and with the environment of now."""
    process = _server.Process(target=_run, args=(dict(os.environ), work, arguments))
    process.start()
    return process


def ended(process: BaseProcess, seconds: float = 120.0) -> int | None:
    """Wait for its end; the exit code, or minus the signal that ended it."""
    process.join(seconds)
    code = process.exitcode
    process.kill()
    process.join()
    process.close()
    return code


def _run(environ: dict[str, str], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()  # what is there stems from the start of the server
    os.environ.update(environ)
    work(*arguments)


def promote(number: int, start: float = 0.0) -> None:
    """Promote a version when the clock says `start`."""
    from routerr1.config import load_params
    from routerr1.registry import promotion

    params = load_params()
    time.sleep(max(0.0, start - time.time()))
    promotion.promote(params, str(number), why=f"process {number}")


def promote_elsewhere(number: int, folder: Path) -> None:
    """Likewise, in a folder of its own, as on a machine of its own: no file lock is shared, only the server is."""
    from routerr1.config import load_params
    from routerr1.registry import promotion

    params = load_params()
    folder.mkdir()
    os.chdir(folder)
    promotion.promote(params, str(number), why=f"process {number}")


def promote_and_die(call: str, when: str) -> None:
    """Killed before or after a call of MLflow's client."""
    from mlflow.tracking import MlflowClient

    from routerr1.config import load_params
    from routerr1.registry import promotion

    real = getattr(MlflowClient, call)

    def die(*arguments: Any, **options: Any) -> None:
        if when == "after":
            real(*arguments, **options)
        _die()

    setattr(MlflowClient, call, die)
    promotion.promote(load_params())


def register_and_die(where: str) -> None:
    """Killed at a moment while a version is registered."""
    from mlflow.tracking import MlflowClient

    from routerr1.config import load_params
    from routerr1.registry import versions

    log = MlflowClient.log_model_artifacts

    def half(client: Any, model_id: str, local: str) -> None:
        Path(local, "artifacts/policy/model.safetensors").unlink()
        log(client, model_id, local)
        _die()

    match where:
        case "before files":
            MlflowClient.log_model_artifacts = _die
        case "half the files":
            MlflowClient.log_model_artifacts = half
        case "before version":
            MlflowClient.create_model_version = _die
        case "before alias":
            MlflowClient.set_registered_model_alias = _die
    versions.register(load_params())


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
