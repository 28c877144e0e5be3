"""What breaks a contract is put aside, so that it costs itself and not the stage."""

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from routerr1.errors import DataError, RouterError

FOLDER = Path("runs/rejected")
_log = logging.getLogger(__name__)


class Fault(NamedTuple):
    """What is put aside.

    Attributes:
        where: file and line, or the trajectory.
        content: as it is, for a person to read.
    """

    where: str
    why: str
    content: Any


@dataclass
class Rejected:
    """What a stage puts aside, in runs/rejected/KIND.jsonl; the file holds what the last run put aside.

    Attributes:
        kind: of what is rejected, e.g. evaluate or calls.
        max_share: share of `total` that may be put aside, rounded up; 0 raises at the first.
        total: how many there are in all.
        remedy: beside raising the limit.
        error: what `add` raises.
    """

    kind: str
    max_share: float = 0.0
    total: int = 0
    count: int = 0
    remedy: str = ""
    error: type[RouterError] = DataError

    @property
    def path(self) -> Path:
        """Where it is put."""
        return FOLDER / f"{self.kind}.jsonl"

    def add(self, fault: Fault) -> None:
        """Put one more aside.

        Raises: `error` if there are too many.
        """
        self.count += 1
        if self.max_share:
            FOLDER.mkdir(parents=True, exist_ok=True)
            # A number that is not finite may be what is wrong with it.
            line = json.dumps(fault._asdict(), ensure_ascii=False, default=str)
            with self.path.open("w" if self.count == 1 else "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
            _log.warning(
                "%s: %s; put aside in %s, line %d", fault.where, fault.why, self.path, self.count
            )
        if self.count > math.ceil(self.max_share * self.total):
            raise self.error(f"{fault.where}: {fault.why}{self._too_many()}")

    def _too_many(self) -> str:
        remedies = [self.remedy] if self.remedy else []
        if not self.max_share:
            return "".join(f"; {remedy}" for remedy in remedies)
        remedies.append("raise max_rejected in params.yaml and run the stage again")
        return (
            f"; with it {self.count} of {self.total} are put aside in {self.path}, more than max_rejected "
            f"({self.max_share:g}) allows: {', or '.join(remedies)}"
        )

    def tell(self) -> None:
        """Say at the end of a stage how many were put aside; nothing if there are none."""
        if self.count:
            _log.warning(
                "%s: %d of %d put aside in %s", self.kind, self.count, self.total, self.path
            )
