"""Whether a token ends a generation."""

from collections.abc import Sequence
from typing import Any

from routerr1.protocol import STOPS
from routerr1.types import Finish

_STOP_WINDOW = 12  # tokens that are decoded to find a stop string; the longest has 9 characters


class StopRules:
    """When a generation ends: end token, stop string, or length.

    Args:
        end_ids: tokens that end a turn, see `end_tokens`.
    """

    def __init__(self, tokenizer: Any, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._stop_ids = _single_tokens(tokenizer, STOPS)
        # A stop string can only be complete after a token that holds its last character.
        self._closers = _tokens_with(tokenizer, ">")

    def finish(self, ids: Sequence[int], max_new_tokens: int) -> Finish | None:
        """Why the generation `ids` ends with its last token; None if it does not."""
        token = ids[-1]
        if token in self._end_ids:
            return "eos"
        if token in self._stop_ids:
            return "stop"
        if token in self._closers:
            tail = self._tokenizer.decode(ids[-_STOP_WINDOW:], skip_special_tokens=False)
            if tail.rstrip().endswith(STOPS):
                return "stop"
        return "length" if len(ids) >= max_new_tokens else None


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a turn: the tokenizer's, and those of generation_config.json (Llama 3 has three)."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = named if isinstance(named, list | tuple) else [named]
    return frozenset(each for each in (*found, tokenizer.eos_token_id) if each is not None)


def text_of(tokenizer: Any, ids: Sequence[int], finish: Finish) -> str:
    """The text of a generation, without the token that ended the turn."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    if finish == "eos":
        text = text.removesuffix(tokenizer.decode(ids[-1:], skip_special_tokens=False))
    return text


def _single_tokens(tokenizer: Any, texts: Sequence[str]) -> frozenset[int]:
    """Ids of the texts that are a single token."""
    ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return frozenset(found[0] for found in ids if len(found) == 1)


def _tokens_with(tokenizer: Any, character: str) -> frozenset[int]:
    """Ids of the tokens that hold `character`."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return frozenset(i for i, token in enumerate(tokens) if token and character in token)
