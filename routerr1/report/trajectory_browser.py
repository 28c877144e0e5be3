"""Rows as small records for the trajectory browser, limited to what a page can hold."""

import json
import re
from collections.abc import Mapping, Sequence

from routerr1.evaluate.results import Result
from routerr1.evaluate.rows import Row
from routerr1.evaluate.table import order_routers
from routerr1.notation import named
from routerr1.report.glossary import label
from routerr1.rollout.record import from_row
from routerr1.types import Ask, LookUp, Turn

_Cell = tuple[str, int, str]  # router, training seed, data set
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


class CallRecord(Result):
    """One call and its reply; `wanted` is the candidate that the policy named, if it is another one."""

    model: str
    wanted: str | None
    query: str
    reply: str
    failure: str | None
    note: str | None
    cost_usd: float
    latency_s: float
    tokens: int


class TurnRecord(Result):
    """One generation; `raw` is its text if it holds no thought."""

    thought: str
    raw: str | None
    call: CallRecord | None


class Record(Result):
    """One trajectory: thoughts, calls, replies, costs."""

    router: str
    seed: int
    dataset: str
    hops: int | None
    question: str
    gold: tuple[str, ...]
    answer: str | None
    right: bool
    format_valid: bool
    f1: float
    cost_usd: float
    latency_s: float
    called: tuple[str, ...]
    stopped: str
    turns: tuple[TurnRecord, ...]


class Browsable(Result):
    """What the browser shows.

    Attributes:
        labels: router -> its name for people.
        total: number of rows, shown or not.
        quota: most rows of one router, seed and data set that are shown.
    """

    played: tuple[Record, ...]
    labels: Mapping[str, str]
    total: int
    quota: int


def browsable(rows: Sequence[Row], limit: int = 3000) -> Browsable:
    """At most `limit` trajectories, an equal number of each router, training seed and data set.

    The questions are the same for all with an equal number of rows. They are evenly spread, in the order
    of the rows.
    """
    cells: dict[_Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault((row.router, row.seed, row.dataset), []).append(row)
    quotas = _quotas({key: len(mine) for key, mine in cells.items()}, limit)
    names = order_routers({name for name, _, _ in cells})
    ordered = sorted(cells, key=lambda key: (names.index(key[0]), *key[1:]))
    kept = [row for key in ordered for row in _spread(cells[key], quotas[key])]
    return Browsable(
        played=tuple(map(record, kept)),
        labels={name: label(name) for name in names},
        total=len(rows),
        quota=max(quotas.values(), default=0),
    )


def _quotas(sizes: Mapping[_Cell, int], limit: int) -> dict[_Cell, int]:
    """Equal shares of `limit`; the rest of a small cell's share goes to the others."""
    quotas: dict[_Cell, int] = {}
    for place, key in enumerate(sorted(sizes, key=lambda key: (sizes[key], key))):
        share = (limit - sum(quotas.values())) // (len(sizes) - place)
        quotas[key] = min(sizes[key], share)
    return quotas


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` of the rows, evenly spread."""
    return [rows[(2 * place + 1) * len(rows) // (2 * count)] for place in range(count)]


def record(row: Row) -> Record:
    """One row's trajectory."""
    trajectory = from_row(json.loads(row.trajectory))
    return Record(
        router=row.router,
        seed=row.seed,
        dataset=row.dataset,
        hops=row.hops,
        question=row.question,
        gold=trajectory.question.golden_answers,
        answer=row.answer,
        right=row.em == 1.0,
        format_valid=row.format_valid,
        f1=round(row.f1, 3),
        cost_usd=row.cost_usd,
        latency_s=round(row.latency_s, 3),
        called=tuple(row.called),
        stopped=trajectory.stopped,
        turns=tuple(_turn(turn, trajectory.handles) for turn in trajectory.turns),
    )


def _turn(turn: Turn, handles: Mapping[str, str]) -> TurnRecord:
    """One turn; handles are shown as names, and a look-up is part of the thought."""
    said = named(turn.generation.text, handles)
    thought = " ".join(part.strip() for part in _THOUGHT.findall(said))
    if isinstance(turn.action, LookUp):
        shown = named(turn.inserted, handles).strip()
        thought += shown.replace("<information>", ":").replace("</information>", "")
    return TurnRecord(thought=thought, raw=None if thought else said, call=_call(turn))


def _call(turn: Turn) -> CallRecord | None:
    reply = turn.reply
    if reply is None:
        return None
    asked = turn.action if isinstance(turn.action, Ask) else None
    return CallRecord(
        model=reply.model,
        wanted=asked.name if asked and asked.name != reply.model else None,
        query=asked.query if asked else turn.generation.text,
        reply=reply.text,
        failure=reply.failure,
        note=reply.note,
        cost_usd=reply.cost_usd,
        latency_s=round(reply.latency_s, 3),
        tokens=reply.completion_tokens,
    )
