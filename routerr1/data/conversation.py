"""Conversations: several messages as one question, and the question and answer in a chat log."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Said = tuple[str, str]
"""(role, text) of a message."""

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXT = ("text", "input_text", "output_text")


def as_question(said: Sequence[Said]) -> str:
    r"""A conversation as one question: a single message as it is, several as lines behind their roles.

    Data and the gateway write conversations alike, so a policy meets in use what it was trained on.

    >>> as_question([("user", "Capital of Peru?")])
    'Capital of Peru?'
    >>> as_question([("user", "Capital of Peru?"), ("assistant", "Lima."), ("user", "And of Chile?")])
    'user: Capital of Peru?\nassistant: Lima.\nuser: And of Chile?'
    """
    if len(said) == 1:
        return said[0][1]
    return "\n".join(f"{role}: {text}" for role, text in said)


def messages_in(cell: object) -> list[Said] | None:
    """The messages that a cell holds, in OpenAI's format or as its JSON; None if it holds anything else."""
    if isinstance(cell, str) and cell.lstrip().startswith("[{"):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    if not isinstance(cell, list | tuple) or not cell:
        return None
    if not all(isinstance(each, Mapping) and each.get("role") in _ROLES for each in cell):
        return None
    return [(str(each["role"]), _text(each.get("content"))) for each in cell]


def asked_and_answered(said: Sequence[Said]) -> tuple[list[Said], str]:
    """What comes before the last answer of the assistant, and that answer; "" if none follows a question.

    >>> asked_and_answered([("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")])
    ([('user', 'Hi')], 'Hello')
    """
    for place in range(len(said) - 1, 0, -1):
        role, text = said[place]
        if role == "assistant" and text:
            return list(said[:place]), text
    return list(said), ""


def _text(content: Any) -> str:
    """The text of a message; that of pictures and calls of tools is empty."""
    if isinstance(content, list | tuple):
        parts = [each for each in content if isinstance(each, Mapping)]
        content = "\n".join(
            str(each.get("text") or "") for each in parts if each.get("type") in _TEXT
        )
    return content.strip() if isinstance(content, str) else ""
