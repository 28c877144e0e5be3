"""Why a finished rollout has no answer that may be shown as one."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from routerr1.types import Reply, Trajectory

_NO_ANSWER = {
    "max_rounds": "the policy gave none after its last call (rollout.max_rounds)",
    "no_action": "the policy ended without a call or an answer",
    "length": "the policy used up its tokens (rollout.max_new_tokens, or the context)",
}


class Refusal(NamedTuple):
    """What is said in place of an answer.

    Attributes:
        kind: the budget refused calls; no candidate replied to any call; or the policy gave no answer.
        asked: whether any candidate was called.
    """

    kind: Literal["budget", "no_reply", "no_answer"]
    why: str
    asked: bool


def refusal_of(trajectory: Trajectory) -> Refusal | None:
    """Why there is no answer; None if there is one.

    An answer after calls that all failed is a guess, so it is refused.
    """
    replies = [turn.reply for turn in trajectory.turns if turn.reply is not None]
    failed = [reply for reply in replies if reply.failure is not None]
    asked = any(reply.model for reply in replies)
    if replies and len(failed) == len(replies):
        over = [reply for reply in failed if reply.failure == "budget"]
        return Refusal("budget" if over else "no_reply", _words(over or failed), asked)
    if trajectory.answer is None:
        why = _NO_ANSWER.get(trajectory.stopped, trajectory.stopped)
        return Refusal("no_answer", f"there is no answer: {why}", asked)
    if not trajectory.answer.strip():
        why = "the policy answered nothing, or with a reply that failed"
        return Refusal("no_answer", f"there is no answer: {why}", asked)
    return None


def _words(replies: Sequence[Reply]) -> str:
    return f"no candidate replied ({'; '.join(dict.fromkeys(map(_reason, replies)))})"


def _reason(reply: Reply) -> str:
    name = f"{reply.model or 'no model'}: "
    return name + (reply.note or str(reply.failure)).removeprefix(name)  # some notes name it too
