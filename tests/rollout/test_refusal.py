"""What is no answer is never shown as one."""

import pytest

from routerr1.rollout.refusal import refusal_of
from routerr1.types import (
    Answer,
    Ask,
    Generation,
    Ledger,
    Question,
    Reply,
    Stopped,
    Trajectory,
    Turn,
)

QUESTION = Question("q", "d", "Why?", (), "test")


def played(
    *failures: str | None, answer: str | None = "x", stopped: Stopped = "answered"
) -> Trajectory:
    replies = [
        Reply(
            "Atlas" if failure != "unknown_model" else "", "", failure=failure, note=failure or ""
        )
        for failure in failures
    ]
    turns = [Turn(Generation("t"), Ask("Atlas", "why?"), reply) for reply in replies]
    last = Turn(Generation("t"), Answer(answer or ""))
    return Trajectory(QUESTION, (*turns, last), stopped, answer, "", Ledger())


@pytest.mark.parametrize(
    ("trajectory", "kind", "words"),
    [
        (played("unavailable"), "no_reply", "no candidate replied (Atlas: unavailable)"),
        (played("unavailable", "budget"), "budget", "no candidate replied (Atlas: budget)"),
        (played("unknown_model"), "no_reply", "no candidate replied (no model: unknown_model)"),
        (played(answer=None, stopped="length"), "no_answer", "used up its tokens"),
        (played(answer=" "), "no_answer", "the policy answered nothing"),
    ],
)
def test_a_guess_or_nothing_is_refused(trajectory: Trajectory, kind: str, words: str) -> None:
    refused = refusal_of(trajectory)
    assert refused is not None
    assert refused.kind == kind
    assert words in refused.why


def test_a_note_that_names_the_candidate_does_not_name_it_twice() -> None:
    reply = Reply("Techie", "", failure="unavailable", note="Techie: HTTP 503")
    turn = Turn(Generation("t"), Ask("Techie", "why?"), reply)
    refused = refusal_of(Trajectory(QUESTION, (turn,), "max_rounds", None, "", Ledger()))
    assert refused is not None
    assert refused.why == "no candidate replied (Techie: HTTP 503)"


def test_an_answer_after_any_reply_or_without_a_call_counts() -> None:
    assert refusal_of(played()) is None
    assert refusal_of(played("unavailable", None)) is None
