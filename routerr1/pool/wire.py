"""Bodies of chat completion servers as plain values: JSON as lenient as real servers need, and event streams."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping

_MOST_DIGITS = 18  # longer whole numbers are read as floats: their conversion takes quadratic time


def parse_body(content: bytes) -> object | None:
    """The first JSON value of a body; None if it begins with none. Never raises, whatever the bytes are."""
    return next(parse_values(content), None)


def parse_values(content: bytes) -> Iterator[object]:
    """The JSON values at the beginning of a body: one, or one a line where a server streams such lines.

    Invalid UTF-8, a byte order mark, raw line breaks in strings, half surrogate pairs and whatever follows
    the values are tolerated: none of them is a reason to lose a reply.
    """
    text = content.decode(json.detect_encoding(content), "replace").lstrip("\ufeff")
    place = 0
    while found := _NOT_BLANK.search(text, place):
        try:
            value, place = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            return
        yield value


def parse_text(text: str) -> object | None:
    """The JSON object or list that a text is; None if it is anything else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return value


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


_DECODER = json.JSONDecoder(strict=False, parse_int=_whole)
_NOT_BLANK = re.compile(r"[^\s\0]")


def is_event_stream(content: bytes) -> bool:
    """True for server-sent events, which some servers send though no stream was asked for."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith((b"data:", b"event:", b":", b"id:", b"retry:"))


def read_events(content: bytes) -> Iterator[Mapping[str, object]]:
    """The JSON objects of an event stream; comments, `[DONE]` and anything else are left out.

    The data of an event named `error` is an error, whatever is in it; words alone are its message.
    """
    named, pieces = b"", [b""]
    for line in [*content.removeprefix(codecs.BOM_UTF8).splitlines(), b""]:
        field, _, value = line.partition(b":")
        if not line:  # the end of an event, whose data may be on several lines
            event = parse_body(b"\n".join(pieces)) if len(pieces) > 2 else None
        elif field == b"event":
            named, event = value.strip(), None
        elif field == b"data":
            event = parse_body(value.strip())
            pieces.append(value)
        else:
            continue
        if isinstance(event, Mapping):
            yield {"error": event} if named == b"error" and "error" not in event else event
            pieces = [b""]
        if not line:
            if named == b"error" and len(pieces) > 1:
                words = b"\n".join(pieces).decode(errors="replace").strip()
                yield {"error": words or "error"}
            named, pieces = b"", [b""]


def ends_in_order(content: bytes) -> bool:
    """True if the last event of a stream says that it is the last."""
    return content.rstrip().endswith(b"[DONE]")


def clean(text: str) -> str:
    """`text` without half surrogate pairs, which files and tokenizers refuse.

    >>> clean("a\\ud83d\\ude00 b\\ud83d")
    'a😀 b�'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
