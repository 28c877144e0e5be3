"""A router without a policy as a folder of files: what it learns from, and how.

Loading fits it again, in seconds: the same matrix, parameters and seed give the same router, and the folder
holds no pickled code.
"""

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from routerr1.baselines.build import CHOOSERS, fitted_models
from routerr1.baselines.cascade import Cascade
from routerr1.baselines.learned import Chooser, Majority
from routerr1.baselines.matrix import read_matrix
from routerr1.baselines.prompted import largest
from routerr1.baselines.replies import Always
from routerr1.config import BaselineParams, explain
from routerr1.errors import CheckpointError, ConfigError
from routerr1.evaluate.controls import BEST_SINGLE, fixed
from routerr1.evaluate.results import EvaluationTable
from routerr1.evaluate.routers import RouterId, nearest, spelled_out
from routerr1.files import read_json, write_json
from routerr1.pool.cards import read_cards
from routerr1.train.checkpoint import read_manifest, write_manifest

ROUTER = "router.json"
FITTED = (*CHOOSERS, "frugal", "largest")
"""Baselines that can be fitted without a policy."""


class SavedRouter(BaseModel):
    """What router.json holds.

    Attributes:
        router: `str` of a `RouterId`.
        seed: training seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    router: str
    seed: int
    baselines: BaselineParams


def router_name(text: str, candidates: list[str]) -> str:
    """The router as it is named in rows.

    Args:
        text: a baseline (`knn` or `baseline/knn`), `best_single`, or a candidate (`Atlas` or `fixed/Atlas`).

    Raises: ConfigError naming the routers that there are.
    """
    known = [*(str(RouterId("baseline", each)) for each in FITTED), BEST_SINGLE]
    known += map(fixed, candidates)
    if (name := spelled_out(text, known)) is not None:
        return name
    raise ConfigError(
        f"router {text!r}: needs a policy, or does not exist; the nearest is {nearest(text, known)!r} (there are "
        f"{', '.join((*FITTED, BEST_SINGLE))}, and each candidate by name)"
    )


def as_evaluated(router: str, table: Path, seed: int, candidates: list[str]) -> str:
    """`best_single` as the candidate that the evaluation named; any other router as `router_name` does.

    Where nothing was evaluated, or with other candidates, it stays `best_single`, and the probes alone name one.

    Args:
        table: table.json of the evaluation.
        seed: training seed.

    Raises: ConfigError naming the routers that there are; DataError naming a table that cannot be read.
    """
    name = router_name(router, candidates)
    if name != BEST_SINGLE or not table.is_file():
        return name
    found = EvaluationTable.read(table).best_single.get(seed)
    return fixed(found) if found in candidates else name


def fit_router(what: SavedRouter, matrix: Path, cards: Path) -> Chooser | Cascade:
    """Fit a router on the answers of the profile stage.

    Args:
        matrix: matrix.parquet of the profile stage.
        cards: its cards.json.

    Raises: ConfigError if there is no such router; DataError, PoolError naming a file that cannot be read.
    """
    known = read_cards(cards)
    kind, name = RouterId.parse(router_name(what.router, [card.name for card in known]))
    if kind == "fixed":
        return Always(name)
    if name == "largest":
        return Always(largest(known))
    learnt_from = read_matrix(matrix)
    if name == BEST_SINGLE:
        return Majority(learnt_from)
    described = {card.name: card.description for card in known}
    fitted: Chooser | Cascade = fitted_models(
        learnt_from, what.baselines, seed=what.seed, descriptions=described
    )[name]()
    return fitted


def save_router(folder: Path, what: SavedRouter, matrix: Path, cards: Path) -> None:
    """Write a router with all that it is fitted on, and a manifest, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(matrix, folder / "matrix.parquet")
    shutil.copyfile(cards, folder / "cards.json")
    write_json(folder / ROUTER, what.model_dump(mode="json"))
    write_manifest(folder, {"router": what.router, "seed": what.seed})


def load_router(folder: Path) -> Chooser | Cascade:
    """Fit the router that `save_router` wrote.

    Raises: CheckpointError naming the file that is missing, corrupt, or of another version.
    """
    read_manifest(folder)
    try:
        what = SavedRouter.model_validate(read_json(folder / ROUTER))
    except ValidationError as error:
        raise CheckpointError(f"{folder / ROUTER}: {explain(error)[1]}") from None
    return fit_router(what, folder / "matrix.parquet", folder / "cards.json")
