"""A count of failed calls by candidate and reason, for the end of a stage."""

import logging
import re
from collections import Counter

from routerr1.types import Reply

log = logging.getLogger(__name__)

# `failures.described` puts a server's own words in quotation marks.
_WORDS = re.compile(r' "[^"]*"')
# What looks like a key, whether it is one of ours or not: servers quote the keys that they refuse.
KEY_LIKE = re.compile(
    r"(?:\b(?:sk|pk|rk|gsk|xai|hf|key|api)[-_][\w*.…-]{6,}|\bAIza[\w-]{10,}|\beyJ[\w-]+\.[\w.-]+"
    r"|(?<=bearer )\S+|(?<=://)[^\s/@]+@)",
    re.IGNORECASE,
)
_REST = re.compile(r"; (?:\d+ tries may be billed|answered by ).*")


class FailureTally:
    """Counts the failed calls among replies.

    A call that a fallback answered counts as failed by the candidate that was asked. Reasons that differ
    only in the server's own words count as one; the words of the first are shown. Calls recorded elsewhere
    may quote a key, which is removed.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._asked: Counter[str] = Counter()
        self._words: dict[tuple[str, str], str] = {}

    def add(self, candidate: str, reply: Reply) -> None:
        """Count one call, made to `candidate`."""
        self._asked[candidate] += 1
        if reply.failure is None and reply.model == candidate:
            return
        said = _REST.sub("", KEY_LIKE.sub("[key]", reply.note or reply.failure or ""))
        key = (candidate, _WORDS.sub("", said).removeprefix(f"{candidate}: "))
        self._counts[key] += 1
        self._words.setdefault(key, said.removeprefix(f"{candidate}: "))

    def reason(self, candidate: str) -> str | None:
        """The commonest reason of the candidate's failed calls, with its count; None if none failed."""
        mine = Counter({key: n for key, n in self._counts.items() if key[0] == candidate})
        if not mine:
            return None
        (key, count), *_ = mine.most_common(1)
        return f"{count} times {self._words[key]}"

    def log_once(self, where: object) -> None:
        """Warn of every candidate and reason, and begin to count again."""
        for line in self.lines():
            log.warning("%s: %s", where, line)
        self.clear()

    def clear(self) -> None:
        """Begin to count again."""
        self._counts.clear()
        self._asked.clear()

    def merge(self, other: "FailureTally") -> None:
        """Count what `other` counted too."""
        self._counts.update(other._counts)
        self._asked.update(other._asked)
        self._words = other._words | self._words

    def lines(self) -> list[str]:
        """One line for each candidate and reason, by candidate, commonest first."""
        ordered = sorted(self._counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1]))
        return [
            f"{count} of {self._asked[key[0]]} calls to {key[0]} failed: {self._words[key]}"
            for key, count in ordered
        ]
