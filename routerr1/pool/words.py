"""Words of a reply that may be shown while it is still written."""

import unicodedata
from collections.abc import Mapping, Sequence

from routerr1.pool.bodies import Body
from routerr1.pool.failures import clear_of_secrets
from routerr1.pool.wire import parse_body

_PUNCTUATION = frozenset(" \n\t.,;:!?'\"()[]/+*=%$€#@-_")


class Words:
    """The beginning of a streamed reply that no later word of a model without thoughts can change.

    The reply as a whole loses its thoughts and the keys of the pool, and what looks like a tag of the protocol is
    made harmless. So the beginning ends at the first character that such a rule could touch; the rest comes
    with the answer. Only a closing mark of thoughts that were never opened reaches back further; see `Listening`.

    Args:
        secrets: keys and headers that a server may send back.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = secrets
        self._body = Body()
        self._num_read = 0  # pieces of the reply
        self._held = ""
        self._begun = False
        self._ended = False

    def more(self, event: bytes) -> str:
        """The words that an event of the candidate's stream makes certain; often none."""
        if self._ended:
            return ""
        text = self._held + self._said(event)
        if not self._begun:
            text = text.lstrip()
            if text.startswith("["):  # opens thoughts, with some models
                self._ended = True
                return ""
        end = next((place for place, char in enumerate(text) if not _is_plain(char)), len(text))
        shown = text[: clear_of_secrets(text[:end], self._secrets)].rstrip()
        self._ended = self._ended or end < len(text)
        self._held = text[len(shown) : end]
        self._begun = self._begun or bool(shown)
        return shown

    def _said(self, event: bytes) -> str:
        """What an event adds to the text, read as the whole body is read."""
        value = parse_body(event)
        if not isinstance(value, Mapping):
            # A part of an event that has several lines: what it says is known at the end.
            self._ended = bool(event)
            return ""
        self._body.add(value)
        choices = self._body.choices
        pieces = choices[0].said if choices else []
        new, self._num_read = pieces[self._num_read :], len(pieces)
        return "".join(new)


def _is_plain(char: str) -> bool:
    if char in _PUNCTUATION:
        return True
    return char.isalnum() and unicodedata.normalize("NFKC", char) == char
