"""Rows to what the trajectory browser shows: small records, and not more of them than a page can hold."""

import json
import re
from collections.abc import Sequence
from typing import Any

from routerr1.evaluate.controls import POLICY
from routerr1.evaluate.rows import Row
from routerr1.evaluate.table import order_routers
from routerr1.rollout.record import from_row
from routerr1.types import Ask, Turn

_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def browsable(rows: Sequence[Row], limit: int = 3000) -> dict[str, Any]:
    """At most `limit` trajectories: the policy's first, then as many of each other router.

    Returns: `played`, the records, and `total`, how many rows there are.
    """
    kept: list[Row] = []
    names = order_routers({row.router for row in rows})
    for place, name in enumerate(names):
        mine = [row for row in rows if row.router == name]
        share = (
            (limit - len(kept)) if name == POLICY else (limit - len(kept)) // (len(names) - place)
        )
        kept += mine[: max(0, share)]
    return {"total": len(rows), "played": [record(row) for row in kept]}


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
        "formed": row.formed,
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
