"""Words of a reply that may be shown while it is still written."""

import json
import unicodedata

_PUNCTUATION = frozenset(" \n\t.,;:!?'\"()[]/+*=%$€#@-_")


class Words:
    """The certain beginning of a streamed reply: what no later word can change.

    The reply as a whole loses its thoughts, and what looks like a tag of the protocol is made harmless. So
    the beginning ends at the first character that such a rule could touch; the rest comes with the answer.
    """

    def __init__(self) -> None:
        self._held = ""
        self._begun = False
        self._ended = False

    def more(self, event: bytes) -> str:
        """The words that an event of the candidate's stream makes certain; often none."""
        if self._ended:
            return ""
        text = self._held + _content(event)
        if not self._begun:
            text = text.lstrip()
            if text.startswith("["):  # opens thoughts, with some models
                self._ended = True
                return ""
        end = next((place for place, char in enumerate(text) if not _is_plain(char)), len(text))
        self._ended = end < len(text)
        shown = text[:end].rstrip()
        self._held = text[len(shown) : end]
        self._begun = self._begun or bool(shown)
        return shown


def _content(event: bytes) -> str:
    try:
        choices = json.loads(event)["choices"]
        said = choices[0]["delta"].get("content") if choices else ""
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""  # the whole stream is read again for the reply, and what is wrong with it named
    return said if isinstance(said, str) else ""


def _is_plain(char: str) -> bool:
    if char in _PUNCTUATION:
        return True
    return char.isalnum() and unicodedata.normalize("NFKC", char) == char
