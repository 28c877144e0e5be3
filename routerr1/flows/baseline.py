"""What the last retrain knew of pool, data and champion. The watch compares with it; a retrain renews it.

Each look of the watch reports a change again until a retrain has acknowledged it. So a retrain that was
cancelled, or that failed, loses nothing.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from routerr1 import files
from routerr1.config import Params
from routerr1.data.imported import KNOWN
from routerr1.errors import DataError
from routerr1.flows.triggers import DATA_CHANGED, POOL_CHANGED
from routerr1.lineage import fingerprint, hash_of

_FOLDER = Path("runs/watch")
SEEN = _FOLDER / "seen.json"  # fingerprints from before the last retrain
FOUND = _FOLDER / "found.json"  # the last look, if it found drift that no retrain has acknowledged
ACKNOWLEDGED = _FOLDER / "acknowledged.json"  # the report that the last retrain acknowledged


class DriftReport(BaseModel):
    """The drift of a champion that one look found.

    Attributes:
        champion: number of its version.
        figures: exact match and cost in USD by `gate.EvalSample.content`, where these moved.
        gone: candidates that were no longer in the pool.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: int
    figures: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    gone: tuple[str, ...] = ()


def fingerprints(params: Params) -> dict[str, str]:
    """Digests of the pool (candidates, prices, endpoints) and of the data, by the event of their change."""
    pool = [fingerprint(params, "pool")]
    pool += [files.digest(path) for path in (params.pool.file,) if path is not None]
    data = [params.dataset.model_dump_json()]
    data += [files.digest(path) for path in (KNOWN,) if path.is_file()]
    return {POOL_CHANGED: hash_of(pool), DATA_CHANGED: hash_of(data)}


def changed(now: dict[str, str]) -> list[str]:
    """Events of what differs from what the last retrain saw; none before a first retrain or look."""
    seen = files.read_json(SEEN) if SEEN.is_file() else {}
    return [event for event, value in now.items() if seen.get(event, value) != value]


def acknowledge(seen: dict[str, str], *, drift: bool) -> None:
    """Record that a retrain completed its stages.

    Args:
        seen: fingerprints from before its first stage.
        drift: the retrain profiled the candidates again, which answers the last look.
    """
    files.write_json(SEEN, seen)
    if drift and FOUND.is_file():
        FOUND.replace(ACKNOWLEDGED)


def acknowledged(champion: int) -> DriftReport:
    """The drift of this champion that the last retrain acknowledged; empty if there was none."""
    known = _read(ACKNOWLEDGED) if ACKNOWLEDGED.is_file() else None
    return known if known and known.champion == champion else DriftReport(champion=champion)


def keep(report: DriftReport | None) -> None:
    """Store what a look found for the next retrain; None if it found no drift."""
    if report is None:
        FOUND.unlink(missing_ok=True)
    else:
        files.write_json(FOUND, report.model_dump(mode="json"))


def _read(path: Path) -> DriftReport:
    try:
        return DriftReport.model_validate(files.read_json(path))
    except ValidationError:
        raise DataError(f"{path}: is no drift report; delete it") from None
