"""What the last retrain knew of pool, data and champion: the watch compares with it, a retrain renews it.

Until a retrain has taken a change in, each look finds it again and tells of it again: a retrain that was
cancelled, or failed on its way, loses nothing.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from routerr1 import files
from routerr1.config import Params
from routerr1.data.imported import KNOWN
from routerr1.errors import DataError
from routerr1.fingerprints import fingerprint, hash_of
from routerr1.flows.triggers import DATA_CHANGED, POOL_CHANGED

_FOLDER = Path("runs/watch")
SEEN = _FOLDER / "seen.json"  # fingerprints that the last retrain began with
FOUND = _FOLDER / "found.json"  # the last look, if it found drift that no retrain has answered
ANSWERED = _FOLDER / "answered.json"  # the look that the last retrain answered


class Look(BaseModel):
    """What one look found of a champion that has drifted.

    Attributes:
        champion: number of its version.
        figures: exact match and cost in USD by `gate.EvalSample.content`, where these had moved.
        gone: candidates that the pool had no more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: int
    figures: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    gone: tuple[str, ...] = ()


def fingerprints(params: Params) -> dict[str, str]:
    """What stands for the pool (candidates, prices, endpoints) and for the data, by the event of a change."""
    pool = [fingerprint(params, "pool")]
    pool += [files.digest(path) for path in (params.pool.file,) if path is not None]
    data = [params.dataset.model_dump_json()]
    data += [files.digest(path) for path in (KNOWN,) if path.is_file()]
    return {POOL_CHANGED: hash_of(pool), DATA_CHANGED: hash_of(data)}


def changed(now: dict[str, str]) -> list[str]:
    """Events of what is no more as the last retrain saw it; none if nothing was seen yet."""
    seen = files.read_json(SEEN) if SEEN.is_file() else {}
    return [event for event, value in now.items() if seen.get(event, value) != value]


def take_in(seen: dict[str, str], *, drift: bool) -> None:
    """A retrain came to the end of its stages.

    Args:
        seen: fingerprints from before its first stage.
        drift: it profiled the candidates anew, which answers what the last look found.
    """
    files.write_json(SEEN, seen)
    if drift and FOUND.is_file():
        FOUND.replace(ANSWERED)


def answered(champion: int) -> Look:
    """What the last retrain knew of this champion's drift; empty if nothing."""
    look = _read(ANSWERED) if ANSWERED.is_file() else None
    return look if look is not None and look.champion == champion else Look(champion=champion)


def keep(look: Look | None) -> None:
    """Leave what a look found to the retrain that will answer it; None: there was no drift."""
    if look is None:
        FOUND.unlink(missing_ok=True)
    else:
        files.write_json(FOUND, look.model_dump(mode="json"))


def _read(path: Path) -> Look:
    try:
        return Look.model_validate(files.read_json(path))
    except ValidationError:
        raise DataError(f"{path}: is no record of a look; delete it") from None
