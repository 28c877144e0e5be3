"""Trajectories as plain values, to be stored and read again."""

from dataclasses import asdict, replace
from typing import Any

from routerr1.pool.records import reply_row
from routerr1.types import (
    Action,
    Answer,
    Ask,
    Generation,
    Ledger,
    LookUp,
    Malformed,
    Question,
    Reply,
    Trajectory,
    Turn,
)

_ACTIONS: dict[str, type[Ask] | type[LookUp] | type[Answer] | type[Malformed]] = {
    "ask": Ask,
    "lookup": LookUp,
    "answer": Answer,
    "malformed": Malformed,
}


# Left out where they are 0, so that rows without them are written as they always were.
_OPTIONAL = ("cached_prompt_tokens", "reasoning_tokens")


def to_row(trajectory: Trajectory) -> dict[str, Any]:
    """Everything in a trajectory as JSON values; `from_row` is its inverse."""
    row = asdict(trajectory)
    for name in _OPTIONAL:
        if not row["ledger"][name]:
            del row["ledger"][name]
    if not trajectory.handles:
        del row["handles"]
    if trajectory.grade is None:
        del row["grade"]
    for turn, stored in zip(trajectory.turns, row["turns"], strict=True):
        if turn.reply is not None:
            stored["reply"] = reply_row(turn.reply)
        stored["action"] = {"kind": type(turn.action).__name__.lower(), **asdict(turn.action)}
        if stored["action"].get("written", "") is None:
            del stored["action"]["written"]
    return row


def without_tokens(trajectory: Trajectory) -> Trajectory:
    """The trajectory without ids and log-probabilities, which only training needs."""
    turns = tuple(
        replace(
            turn, inserted_ids=(), generation=replace(turn.generation, token_ids=(), logprobs=())
        )
        for turn in trajectory.turns
    )
    return replace(trajectory, turns=turns, prompt_ids=())


def from_row(row: dict[str, Any]) -> Trajectory:
    """The trajectory that `to_row` stored, also after a trip through JSON.

    Raises: KeyError, TypeError: the row was not written by `to_row`.
    """
    return Trajectory(
        question=Question(
            **{**row["question"], "golden_answers": tuple(row["question"]["golden_answers"])}
        ),
        turns=tuple(_turn(stored) for stored in row["turns"]),
        stopped=row["stopped"],
        answer=row["answer"],
        text=row["text"],
        ledger=_ledger(row["ledger"]),
        prompt_ids=tuple(row["prompt_ids"]),
        handles=row.get("handles", {}),
        grade=row.get("grade"),
    )


def _turn(stored: dict[str, Any]) -> Turn:
    said = stored["generation"]
    return Turn(
        generation=Generation(
            said["text"], tuple(said["token_ids"]), tuple(said["logprobs"]), said["finish"]
        ),
        action=_action(stored["action"]),
        reply=Reply(**stored["reply"]) if stored["reply"] else None,
        inserted=stored["inserted"],
        inserted_ids=tuple(stored["inserted_ids"]),
        wall_s=stored["wall_s"],
    )


def _ledger(stored: dict[str, Any]) -> Ledger:
    # JSON knows no tuples.
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
    }
    return Ledger(**values)


def _action(stored: dict[str, Any]) -> Action:
    return _ACTIONS[stored["kind"]](
        **{key: value for key, value in stored.items() if key != "kind"}
    )
