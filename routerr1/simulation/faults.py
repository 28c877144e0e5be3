"""Faults of hosted models, as rates at which the simulated server injects them."""

import dataclasses
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from routerr1.errors import PoolError


@dataclass(frozen=True, slots=True)
class Faults:
    """Share of requests, in [0, 1], that meet each fault; together at most 1.

    Attributes:
        rate_limit: 429 with a Retry-After of `retry_after_s`.
        server_error: 500.
        hang: no byte for `hang_s`.
        cut: the connection closes in the middle of the body.
        broken_json: a whole body that is not JSON.
        empty_choice: a well-formed completion without a choice; its usage is billed.
        huge: a body of `huge_bytes`.
        tags: a correct reply inside protocol tags that would end the trajectory.
        slow: the body dribbles in over `slow_s`.
    """

    rate_limit: float = 0.0
    server_error: float = 0.0
    hang: float = 0.0
    cut: float = 0.0
    broken_json: float = 0.0
    empty_choice: float = 0.0
    huge: float = 0.0
    tags: float = 0.0
    slow: float = 0.0
    retry_after_s: float = 1.0
    hang_s: float = 3600.0
    slow_s: float = 2.0
    huge_bytes: int = 4_000_000

    def __post_init__(self) -> None:
        for kind in KINDS:
            if not 0 <= getattr(self, kind) <= 1:
                raise PoolError(f"fault {kind}: rate is {getattr(self, kind)}, must be from 0 to 1")
        if self.total > 1 + 1e-9:
            raise PoolError(f"faults: the rates sum to {self.total:g}, must be at most 1")

    @property
    def total(self) -> float:
        """Share of requests that meet any fault."""
        return float(sum(getattr(self, kind) for kind in KINDS))


KINDS = tuple(
    field.name for field in dataclasses.fields(Faults) if not field.name.endswith(("_s", "_bytes"))
)


def parse_faults(text: str) -> Faults:
    """Parse `0.3`, a share spread over all kinds, or `hang=0.1,slow=0.05,hang_s=30`, each by name.

    Raises: PoolError naming the part that is invalid.
    """
    values: dict[str, Any] = {}
    known = [field.name for field in dataclasses.fields(Faults)]
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, given, number = part.partition("=")
        try:
            if not given:
                values.update({kind: float(name) / len(KINDS) for kind in KINDS})
            elif name.strip() not in known:
                raise PoolError(f"fault {name.strip()!r} is unknown; there are: {', '.join(known)}")
            else:
                values[name.strip()] = float(number)
        except ValueError:
            raise PoolError(f"faults: {part!r} is neither a rate nor name=number") from None
    return Faults(**{name: int(v) if name == "huge_bytes" else v for name, v in values.items()})


class FaultDice:
    """Decides the fault of each request.

    The n-th request of one text to one model always gets the same fault, in any order of requests.
    """

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._seen: Counter[tuple[str, str]] = Counter()

    def draw(self, model: str, query: str) -> str | None:
        """The kind of fault of the next request of this text to this model; None for none."""
        number = self._seen[model, query]
        self._seen[model, query] += 1
        key = f"{self._seed}|{number}|{model}|{query}".encode("utf-8", "surrogatepass")
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
        for kind in KINDS:
            drawn -= getattr(self._faults, kind)
            if drawn < 0:
                return kind
        return None
