"""Contracts of every trajectory that training and evaluation write.

Pure functions over stored rows (`rollout/record.py`, `evaluate/rows.py`). A policy may write
anything, so malformed text breaks no contract. A breach is a wrong verdict on the format, a wrong
insertion, a lost token, or sums that do not add up.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from routerr1 import protocol
from routerr1.types import Card

Rule = Literal[
    "tags_balanced",
    "model_known",
    "mask_length",
    "cost_above_zero",
    "numbers_finite",
    "ledger_agrees",
    "text_whole",
    "scores_agree",
]
_CLOSE = 1e-9  # dollars; sums of the same numbers in another order


class Breach(NamedTuple):
    """A rule that a row breaks, and how."""

    rule: Rule
    why: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.why}"


def trajectory_breaches(
    row: Mapping[str, Any], cards: Sequence[Card], *, format_valid: bool | None = None
) -> list[Breach]:
    """Every rule that a row of `record.to_row` breaks.

    Args:
        format_valid: the score of the row, if it has one.
    """
    names = protocol.names_of(cards, row.get("handles"))
    return [
        *_tags(row, names, format_valid),
        *_models(row, names),
        *_turn_tokens(row),
        *_costs(row, {card.name: card for card in cards}),
        *_finite(row),
        *_ledger(row),
    ]


def evaluation_breaches(
    row: Mapping[str, Any], cards: Sequence[Card], *, written: bool = True
) -> list[Breach]:
    """Every rule that an evaluation row breaks, its trajectory's included.

    Args:
        written: by a policy. A router that only calls writes no text: a question that holds a candidate's
            name, which no policy may write into a call, is valid there.
    """
    played = json.loads(row["trajectory"])
    format_valid = row["format_valid"] if written else None
    found = trajectory_breaches(played, cards, format_valid=format_valid)
    found += _finite({name: value for name, value in row.items() if name != "trajectory"})
    if not _equal(row["cost_usd"], played["ledger"]["cost_usd"]):
        text = f"cost_usd is {row['cost_usd']}, the trajectory's is {played['ledger']['cost_usd']}"
        found.append(Breach("ledger_agrees", text))
    if row["calls"] != len(row["called"]):
        text = f"calls is {row['calls']}, {len(row['called'])} are listed"
        found.append(Breach("ledger_agrees", text))
    known = {card.name for card in cards}
    found += [
        Breach("model_known", f"no card is named {name!r}")
        for name in row["called"]
        if name not in known
    ]
    if row["em"] not in (0.0, 1.0) or not row["em"] <= row["f1"] <= 1.0:
        found.append(Breach("scores_agree", f"EM {row['em']} and F1 {row['f1']} cannot both be"))
    return found


def _tags(
    row: Mapping[str, Any], names: Mapping[str, str], format_valid: bool | None
) -> Iterator[Breach]:
    for number, turn in enumerate(row["turns"]):
        inserted = turn["inserted"]
        if inserted and not protocol.is_information(inserted):
            yield Breach("tags_balanced", f"turn {number} inserts more than one closed reply")
        looked = turn["action"]["kind"] == "lookup" and bool(inserted)
        if bool(inserted) != (looked or turn["reply"] is not None):
            yield Breach("tags_balanced", f"turn {number} has a reply or an insertion, not both")
    if format_valid and not protocol.check(row["text"], names):
        yield Breach("tags_balanced", "is scored as well formed, and is not")
    if row["text"] != "".join(
        turn["generation"]["text"] + turn["inserted"] for turn in row["turns"]
    ):
        yield Breach("text_whole", "the text is not its turns one after another")


def _models(row: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Breach]:
    known = set(names.values())
    for number, turn in enumerate(row["turns"]):
        asked = turn["action"]["name"] if turn["action"]["kind"] == "ask" else None
        reply = turn["reply"] or {"failure": "unknown_model", "model": ""}
        answered = reply["model"] if reply["failure"] != "unknown_model" else ""
        for name in {asked, answered} - {None, "", *known}:
            yield Breach("model_known", f"turn {number}: no card is named {name!r}")
        if reply["failure"] is None and not answered:
            yield Breach("model_known", f"turn {number}: a reply of no model")


def _turn_tokens(row: Mapping[str, Any]) -> Iterator[Breach]:
    """A row has no prompt ids if its router has no tokens or if it was stored without them."""
    if not row["prompt_ids"]:
        return
    for number, turn in enumerate(row["turns"]):
        said = turn["generation"]
        ids, logprobs = len(said["token_ids"]), len(said["logprobs"])
        if ids != logprobs:
            yield Breach("mask_length", f"turn {number}: {ids} tokens and {logprobs} logprobs")
        if (said["text"] and not ids) or bool(turn["inserted"]) != bool(turn["inserted_ids"]):
            yield Breach("mask_length", f"turn {number}: text without tokens, or the reverse")


def token_breaches(
    ids: Sequence[int], env_mask: Sequence[int], logprobs: Sequence[float]
) -> Iterator[Breach]:
    """Every rule that a trajectory breaks as the tokens that a training step hands to the trainer."""
    if not len(ids) == len(env_mask) == len(logprobs):
        text = f"{len(ids)} tokens, {len(env_mask)} mask values, {len(logprobs)} logprobs"
        yield Breach("mask_length", text)
    if not set(env_mask) <= {0, 1}:
        yield Breach(
            "mask_length", f"the mask holds {sorted(set(env_mask) - {0, 1})[0]}, not 0 or 1"
        )
    if 1 not in env_mask:
        yield Breach("mask_length", "no token is the policy's own")
    if bad := [value for value in logprobs if not math.isfinite(value) or value > _CLOSE]:
        yield Breach("numbers_finite", f"a logprob is {bad[0]}")


def _costs(row: Mapping[str, Any], cards: Mapping[str, Card]) -> Iterator[Breach]:
    for number, turn in enumerate(row["turns"]):
        reply = turn["reply"]
        if not reply or reply["failure"] or reply["cached"] or reply["model"] not in cards:
            continue
        card = cards[reply["model"]]
        priced = (
            card.prompt_usd_per_mtok * reply["prompt_tokens"]
            + card.completion_usd_per_mtok * reply["completion_tokens"]
        )
        free = card.prompt_usd_per_mtok == card.completion_usd_per_mtok == 0
        if not free and (reply["cost_usd"] <= 0 or priced <= 0):
            yield Breach("cost_above_zero", f"turn {number}: {card.name} answered for nothing")


def _finite(row: Mapping[str, Any]) -> Iterator[Breach]:
    for name, number in _numbers(row, ""):
        if not math.isfinite(number):
            yield Breach("numbers_finite", f"{name} is {number}")
        elif number < 0 and "logprobs" not in name and not name.startswith("question.metadata"):
            yield Breach("numbers_finite", f"{name} is {number}, below zero")


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not key.endswith("_ids"):  # whole numbers, and most of a row
                yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _numbers(inner, f"{name}[{place}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _ledger(row: Mapping[str, Any]) -> Iterator[Breach]:
    replies = [turn["reply"] for turn in row["turns"] if turn["reply"]]
    sums = {
        name: sum(reply[name] for reply in replies)
        for name in ("prompt_tokens", "completion_tokens", "retries", "cost_usd")
    }
    sums["calls"] = sum(bool(reply["model"]) for reply in replies)
    sums["failures"] = sum(reply["failure"] is not None for reply in replies)
    sums["cache_hits"] = sum(bool(reply["cached"]) for reply in replies)
    if row["prompt_ids"]:
        sums["policy_tokens"] = sum(len(t["generation"]["token_ids"]) for t in row["turns"])
    states = [reply["breaker_state"] for reply in replies if reply["model"]]
    shown_states = list(row["ledger"]["breaker_states"])
    if shown_states != states:
        text = f"breaker states are {shown_states}, the replies' are {states}"
        yield Breach("ledger_agrees", text)
    for name, total in sums.items():
        if not _equal(row["ledger"][name], total):
            text = f"{name} is {row['ledger'][name]}, the turns add up to {total}"
            yield Breach("ledger_agrees", text)


def _equal(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=_CLOSE)
