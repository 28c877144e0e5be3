"""Removes the keys of the pool from what a server sends: it may send them back, and clients must not see them."""

import json
from collections.abc import Iterator, Mapping, Sequence

from routerr1.pool.failures import clear_of_secrets, without_secrets

_MOST_HELD = 256  # events; a server that means to send a key piece by piece has it anyway
_Place = tuple[str | int, ...]  # of a text within the deltas of a stream


def without_keys(value: object, secrets: Sequence[str]) -> object:
    """A JSON value without these secrets, names of fields included.

    >>> without_keys({"choices": [{"text": "take sk-secret-1"}]}, ["sk-secret-1"])
    {'choices': [{'text': 'take [key]'}]}
    """
    match value:
        case str():
            return without_secrets(value, secrets)
        case Mapping():
            return {
                without_secrets(str(name), secrets): without_keys(inner, secrets)
                for name, inner in value.items()
            }
        case list():
            return [without_keys(inner, secrets) for inner in value]
    return value


class KeylessEvents:
    """The events of one stream without the keys, even one that comes in several pieces.

    An event is held while the text that it adds to may end in the beginning of a key. Events keep their order.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._held: list[dict[str, object]] = []

    def more(self, event: bytes) -> Iterator[bytes]:
        """The events that are certain to hold no key; what is no JSON object is left out."""
        try:
            value = json.loads(event)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        if not self._secrets:
            yield event
            return
        self._held.append(value)
        texts = self._texts()
        if all(clear_of_secrets(text, self._secrets) == len(text) for text in texts.values()):
            yield from self._released()
        elif len(self._held) >= _MOST_HELD or not any(map(self._may_grow, texts.values())):
            yield from self.rest()

    def rest(self) -> Iterator[bytes]:
        """What is held, as at the end of the stream."""
        for place, text in self._texts().items():
            self._replace(place, without_secrets(text, self._secrets))
        yield from self._released()

    def _may_grow(self, text: str) -> bool:
        plain = without_secrets(text, self._secrets)
        return clear_of_secrets(plain, self._secrets) < len(plain)

    def _released(self) -> Iterator[bytes]:
        for value in self._held:
            found = without_keys(value, self._secrets)
            yield json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._held = []

    def _texts(self) -> dict[_Place, str]:
        """What the held events add to each text, by its place."""
        found: dict[_Place, str] = {}
        for value in self._held:
            for place, _, _, text in _deltas(value):
                found[place] = found.get(place, "") + text
        return found

    def _replace(self, at: _Place, text: str) -> None:
        """Put all of a text into the first event that adds to it, and nothing into the others."""
        for value in self._held:
            for place, within, name, _ in _deltas(value):
                if place == at:
                    within[name], text = text, ""


def _deltas(
    value: Mapping[str, object],
) -> Iterator[tuple[_Place, dict[str, object], str, str]]:
    """Each text in the deltas of an event: its place, the object that holds it, its name there, and itself."""
    choices = value.get("choices")
    for place, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            yield from _within(choice.get("delta"), (_number(choice, place),))


def _within(value: object, place: _Place) -> Iterator[tuple[_Place, dict[str, object], str, str]]:
    if isinstance(value, dict):
        for name, inner in list(value.items()):
            if isinstance(inner, str):
                yield (*place, name), value, name, inner
            else:
                yield from _within(inner, (*place, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _within(inner, (*place, _number(inner, number)))


def _number(value: object, place: int) -> int:
    index = value.get("index") if isinstance(value, dict) else None
    return index if isinstance(index, int) else place
