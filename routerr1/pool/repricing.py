"""Price evaluated trajectories with other prices, and check whether a ranking changes."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from routerr1.config import RewardParams
from routerr1.errors import DataError, PoolError
from routerr1.files import atomic_path
from routerr1.pool.cards import read_cards
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.pricing import reply_usd
from routerr1.reward import CostScale, FrozenCostScale, hierarchical
from routerr1.types import Card, Reply

Prices = Mapping[str, Card]
_COLUMNS = ("pool", "router", "em", "f1", "format_valid", "failures", "cost_usd", "trajectory")


@dataclass(frozen=True, slots=True)
class RouterPrices:
    """One router on one pool: means over its rows, before and after, and its rank by each."""

    pool: str
    router: str
    usd: tuple[float, float]
    reward: tuple[float, float]
    cost_rank: tuple[int, int]
    reward_rank: tuple[int, int]

    @property
    def moved(self) -> bool:
        """True if the rank by cost or by reward changes."""
        return len(set(self.cost_rank)) > 1 or len(set(self.reward_rank)) > 1


@dataclass(frozen=True, slots=True)
class Repriced:
    """Every router, in the order of its old cost."""

    routers: tuple[RouterPrices, ...]

    @property
    def verdict(self) -> str:
        """A sentence that names the rankings that change."""
        moved = [f"{router.router} on {router.pool}" for router in self.routers if router.moved]
        if not moved:
            return "No evaluated ranking changes, neither by cost nor by reward."
        return f"Rankings change: {', '.join(moved)}."


def read_prices(path: Path) -> Prices:
    """Cards by name, from a pool file (YAML) or cards (JSON).

    Raises: PoolError if it is neither.
    """
    cards = read_cards(path) if path.suffix == ".json" else read_pool_file(path).cards
    return {card.name: card for card in cards}


def reprice_rows(
    rows_path: Path, new: Prices, reward: RewardParams, *, out: Path | None = None
) -> Repriced:
    """Read evaluated rows, price each reply by `new`, and rank the routers of each pool by both prices.

    All tokens of a reply, failed tries included, have the price of the candidate that answered. After a
    fallback this is an approximation. Rewards use the answer measure and alpha of `reward`. The cost
    score covers everything that is billed, on the scale of all rows of the pool.

    Args:
        out: a copy of `rows_path` with the new costs in rows and trajectories.

    Raises: DataError if the rows cannot be read; PoolError naming a candidate without a price.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_table(rows_path)
        rows = stored.select(list(_COLUMNS)).to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise DataError(f"{rows_path}: cannot be read as evaluated rows ({error})") from None
    priced = [_priced(row, new, rows_path, number) for number, row in enumerate(rows)]
    if out is not None:
        for name in ("cost_usd", "trajectory"):
            column = pa.array([row[name] for row in priced], type=stored.schema.field(name).type)
            stored = stored.set_column(stored.schema.get_field_index(name), name, column)
        with atomic_path(out) as aside:
            pq.write_table(stored, aside)
    return Repriced(_ranked(rows, priced, reward))


def _priced(row: Mapping[str, Any], new: Prices, path: Path, number: int) -> dict[str, Any]:
    trajectory = json.loads(row["trajectory"])
    total = 0.0
    for turn in trajectory["turns"]:
        reply = turn["reply"]
        if reply is None or not (reply["prompt_tokens"] or reply["completion_tokens"]):
            continue
        if reply["model"] not in new:
            raise PoolError(f"{path}, row {number}: the new prices lack {reply['model']!r}; add it")
        card = new[reply["model"]]
        reply["cost_usd"] = reply_usd(card, Reply(**reply))
        total += reply["cost_usd"]
    trajectory["ledger"]["cost_usd"] = total
    return {**row, "cost_usd": total, "trajectory": json.dumps(trajectory, sort_keys=True)}


def _ranked(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], reward: RewardParams
) -> tuple[RouterPrices, ...]:
    by_pool: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(before):
        by_pool[row["pool"]].append(place)
    routers: list[RouterPrices] = []
    for pool, places in sorted(by_pool.items()):
        old = _means([before[place] for place in places], reward)
        new = _means([after[place] for place in places], reward)
        old_places, new_places = _places(old), _places(new)
        routers += [
            RouterPrices(
                pool,
                name,
                usd=(old[name][0], new[name][0]),
                reward=(old[name][1], new[name][1]),
                cost_rank=(old_places[name][0], new_places[name][0]),
                reward_rank=(old_places[name][1], new_places[name][1]),
            )
            for name in sorted(old, key=lambda name: (old_places[name][0], name))
        ]
    return tuple(routers)


def _means(
    rows: Sequence[Mapping[str, Any]], reward: RewardParams
) -> dict[str, tuple[float, float]]:
    """Router to its mean cost in USD and mean reward."""
    scale = CostScale(max(len(rows), 1), (row["cost_usd"] * 1e6 for row in rows)).freeze()
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        groups[row["router"]].append((row["cost_usd"], _reward(row, scale, reward)))
    return {
        name: (fmean(usd for usd, _ in group), fmean(earned for _, earned in group))
        for name, group in groups.items()
    }


def _reward(row: Mapping[str, Any], scale: FrozenCostScale, reward: RewardParams) -> float:
    cost_score = 0.0 if row["failures"] else scale.score(row["cost_usd"] * 1e6)
    return hierarchical(
        bool(row["format_valid"]), row[reward.answer], cost_score, reward.cost_weight
    )


def _places(means: Mapping[str, tuple[float, float]]) -> dict[str, tuple[int, int]]:
    """Router to its rank by cost (cheapest first) and by reward (highest first); equals share a rank."""
    return {
        name: (
            1 + sum(other < usd - 1e-15 for other, _ in means.values()),
            1 + sum(other > earned + 1e-12 for _, other in means.values()),
        )
        for name, (usd, earned) in means.items()
    }


def table(found: Repriced) -> Table:
    """For the terminal."""
    shown = Table(box=None, pad_edge=False)
    for column in ("pool", "router"):
        shown.add_column(column, no_wrap=True)
    for column in ("USD before", "after", "rank", "reward before", "after", "rank"):
        shown.add_column(column, justify="right")
    for router in found.routers:
        shown.add_row(
            router.pool,
            router.router,
            *(f"{usd:.6f}" for usd in router.usd),
            " -> ".join(map(str, router.cost_rank)),
            *(f"{earned:.4f}" for earned in router.reward),
            " -> ".join(map(str, router.reward_rank)),
        )
    return shown
