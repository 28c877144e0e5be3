"""Rows to what the trajectory browser shows: small records, and not more of them than a page can hold."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from routerr1.evaluate.rows import Row
from routerr1.evaluate.table import order_routers
from routerr1.rollout.record import from_row
from routerr1.types import Ask, Turn

_Cell = tuple[str, int, str]  # router, training seed, data set
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def browsable(rows: Sequence[Row], limit: int = 3000) -> dict[str, Any]:
    """At most `limit` trajectories, as many of each router, training seed and data set as of any other.

    Which ones is the same wherever there are as many: they lie evenly spread over the questions, in the
    order of the rows.

    Returns: `played`, the records; `total`, how many rows there are; `quota`, the most of one router, seed
        and data set that are shown.
    """
    cells: dict[_Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault((row.router, row.seed, row.dataset), []).append(row)
    quotas = _quotas({key: len(mine) for key, mine in cells.items()}, limit)
    names = order_routers({name for name, _, _ in cells})
    ordered = sorted(cells, key=lambda key: (names.index(key[0]), *key[1:]))
    kept = [row for key in ordered for row in _spread(cells[key], quotas[key])]
    return {
        "total": len(rows),
        "quota": max(quotas.values(), default=0),
        "played": [record(row) for row in kept],
    }


def _quotas(sizes: Mapping[_Cell, int], limit: int) -> dict[_Cell, int]:
    """Equal shares of `limit`; what a small cell does not need goes to the others."""
    quotas: dict[_Cell, int] = {}
    for place, key in enumerate(sorted(sizes, key=lambda key: (sizes[key], key))):
        share = (limit - sum(quotas.values())) // (len(sizes) - place)
        quotas[key] = min(sizes[key], share)
    return quotas


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` of the rows, as far from each other and from both ends as it goes."""
    return [rows[(2 * place + 1) * len(rows) // (2 * count)] for place in range(count)]


def record(row: Row) -> dict[str, Any]:
    """One trajectory: what was thought, asked, replied, paid."""
    trajectory = from_row(json.loads(row.trajectory))
    return {
        "router": row.router,
        "seed": row.seed,
        "dataset": row.dataset,
        "hops": row.hops,
        "question": row.question,
        "gold": list(trajectory.question.golden_answers),
        "answer": row.answer,
        "right": row.em == 1.0,
        "format_valid": row.format_valid,
        "f1": round(row.f1, 3),
        "cost_usd": row.cost_usd,
        "latency_s": round(row.latency_s, 3),
        "called": row.called,
        "stopped": trajectory.stopped,
        "turns": [_turn(turn) for turn in trajectory.turns],
    }


def _turn(turn: Turn) -> dict[str, Any]:
    said = turn.generation.text
    shown: dict[str, Any] = {"thought": " ".join(part.strip() for part in _THOUGHT.findall(said))}
    if not shown["thought"]:
        shown["raw"] = said
    reply = turn.reply
    if reply is not None:
        asked = turn.action if isinstance(turn.action, Ask) else None
        shown["call"] = {
            "model": reply.model,
            "wanted": asked.name if asked and asked.name != reply.model else None,
            "query": asked.query if asked else said,
            "reply": reply.text,
            "failure": reply.failure,
            "note": reply.note,
            "cost_usd": reply.cost_usd,
            "latency_s": round(reply.latency_s, 3),
            "tokens": reply.completion_tokens,
        }
    return shown
