"""Bodies of chat completion servers as plain values: JSON as lenient as real servers need, and event streams."""

import json
from collections.abc import Iterator, Mapping

_MOST_DIGITS = 18  # longer whole numbers are read as floats: their conversion takes quadratic time


def parse_body(content: bytes) -> object | None:
    """The JSON value of a body; None if it is none. Never raises, whatever the bytes are.

    Invalid UTF-8, a byte order mark, raw line breaks in strings and half surrogate pairs are
    tolerated: none of them is a reason to lose a reply.
    """
    try:
        text = content.decode(json.detect_encoding(content), "replace").lstrip("\ufeff")
        return json.loads(text, strict=False, parse_int=_whole)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return None


def is_event_stream(content: bytes) -> bool:
    """True for server-sent events, which some servers send though no stream was asked for."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith((b"data:", b"event:", b":"))


def read_events(content: bytes) -> Iterator[Mapping[str, object]]:
    """The JSON objects of an event stream; comments, `[DONE]` and anything else are left out."""
    for line in content.splitlines():
        if line.startswith(b"data:"):
            value = parse_body(line[5:].strip())
            if isinstance(value, Mapping):
                yield value


def clean(text: str) -> str:
    """`text` without half surrogate pairs, which no file and no tokenizer takes.

    >>> clean("a\\ud83d\\ude00 b\\ud83d")
    'a😀 b�'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)
