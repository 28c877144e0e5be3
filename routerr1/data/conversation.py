"""Conversations: several messages as one question, what is embedded of it, and questions in a chat log."""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Said = tuple[str, str]
"""(role, text) of a message."""

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXT = ("text", "input_text", "output_text")
_BEGINS = re.compile(rf"^({'|'.join(_ROLES)}): ", re.MULTILINE)  # a message within a question


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


def asked_in(question: str) -> list[str]:
    r"""What the user says in a question from `as_question`, by message; a single question is one.

    A text counts as a conversation if it begins with a role and another message, behind its role, follows.

    >>> asked_in("system: Be brief.\nuser: Capital of Peru?\nassistant: Lima.\nuser: And of Chile?")
    ['Capital of Peru?', 'And of Chile?']
    >>> asked_in("user: what does that mean?")
    ['user: what does that mean?']
    """
    before, *parts = _BEGINS.split(question)
    roles, texts = parts[::2], parts[1::2]
    if before or len(roles) < 2 or "user" not in roles:
        return [question]
    return [
        text.removesuffix("\n") for role, text in zip(roles, texts, strict=True) if role == "user"
    ]


def gist(question: str, fits: Callable[[str], bool] = lambda _: True) -> str:
    r"""What is embedded of a question, which an embedder cuts at its limit: this is where that is decided.

    A single question is embedded as it is. Of a conversation the user's messages are: the last, and before it
    as many as fit, from the latest to the first. Replies of the assistant are long and repeat what was asked,
    and a system prompt says nothing of one question. Of a message that does not fit, the beginning and the ending
    remain: either may ask.

    Args:
        fits: true of a text that is embedded whole.

    >>> gist("user: Capital of Peru?\nassistant: Lima.\nuser: And of Chile?")
    'Capital of Peru?\nAnd of Chile?'
    >>> gist("user: Capital of Peru?\nassistant: Lima.\nuser: And of Chile?", lambda text: len(text) <= 14)
    'And of Chile?'
    >>> gist("Here is a letter. Who wrote it?", lambda text: len(text) <= 15)
    'Here i … te it?'
    """
    *earlier, last = asked_in(question)
    kept = _both_ends(last, "", fits) or last
    for text in reversed(earlier):
        part = _both_ends(text, f"\n{kept}", fits)
        kept = f"{part}\n{kept}" if part else kept
        if part != text:
            break
    return kept


def _both_ends(text: str, after: str, fits: Callable[[str], bool]) -> str:
    """`text` if it fits before `after`, else as much of its beginning as of its ending; "" if none fits."""
    if fits(text + after):
        return text

    def cut(size: int) -> str:
        return f"{text[:size]} … {text[-size:]}"

    # Not `<=`: halves that overlap repeat what they share.
    sizes = range(1, len(text) // 2)
    most = bisect_left(sizes, True, key=lambda size: not fits(cut(size) + after))
    return cut(most) if most else ""


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
