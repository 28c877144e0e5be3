"""The short answer in a candidate's reply: what it says beyond the words of the question.

`<answer>@2</answer>` answers with the second reply, and a reply is often a sentence ("The capital of
France is Paris."). The rules are of English and of short factual replies; a reply that fits none of them
is its own short answer.
"""

import re
import unicodedata

_WORD = re.compile(r"[^\s]+")
_EDGE = ".,;:!?\"'()[]{}*`“”‘’"
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
_VERBS = frozenset({"is", "are", "was", "were", "in", "by", "as", "called", "named", "code"})
# Words that carry no answer by themselves.
_FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "from",
        "by",
        "with",
        "as",
        "and",
        "or",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "which",
        "what",
        "who",
        "whose",
        "where",
        "when",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "has",
        "have",
        "had",
        "does",
        "do",
        "did",
        "i",
        "you",
        "we",
        "they",
        "he",
        "she",
        "there",
        "here",
        "name",
        "known",
        "called",
        "used",
        "located",
        "found",
        "discovered",
        "country",
        "code",
        "answer",
        "indeed",
        "also",
        "chemical",
        "element",
    ]
)
# Phrases that say of the speaker that it does not know, by language.
_UNSURE = re.compile(
    r"\b(?:"
    + "|".join(
        (
            r"not sure|(?:do not|don['’]t|not) know|(?:cannot|can['’]t) answer|no idea|unsure|unable to",
            r"(?:do not|don['’]t) understand|not in my notes|notes do not|no information",
            r"nicht sicher|wei(?:ß|ss)(?: (?!und\b|oder\b)\w+){0,4} nicht|keine ahnung|keine informationen?",
            r"ne sais pas|pas sûre?|aucune idée|je l['’]ignore",
            r"no lo s[ée]|no sé|no estoy segur[oa]|ni idea",
            r"non (?:lo )?so|non sono sicur[oa]|nessuna idea",
            r"n[ãa]o sei|n[ãa]o tenho certeza",
            r"weet(?: \w+){0,4} niet|niet zeker|geen idee",
            r"nie wiem|nie jestem pew(?:ien|na)",
        )
    )
    + r")\b|не знаю|не уверен|不知道|不清楚|不[确確]定|わかりません|分かりません|わからない|모르겠|알 수 없",
    re.IGNORECASE,
)
# Words that may also belong to an answer, such as the Unknown Soldier: they count as a whole reply alone.
_NOTHING_KNOWN = re.compile(
    r"\W*(?:(?:it|this|that|the answer) is )?"
    r"(?:unknown|unbekannt|inconnue?|desconocid[oa]|sconosciut[oa]|desconhecid[oa]|onbekend|nieznan[aey]|неизвестно)\W*",
    re.IGNORECASE,
)


def is_unsure(reply: str) -> bool:
    """Whether a reply says that it holds no answer, by phrases of twelve languages.

    >>> is_unsure("Not in my notes."), is_unsure("Das weiß ich leider nicht."), is_unsure("Paris")
    (True, True, False)
    """
    text = unicodedata.normalize("NFC", reply)
    return (
        not text.strip()
        or _UNSURE.search(text) is not None
        or _NOTHING_KNOWN.fullmatch(text) is not None
    )


def passes(reply: str, *, right: bool) -> bool:
    """Whether a reply leaves the question open for another candidate: it is not right, and says that it holds no answer.

    >>> passes("Unknown.", right=False), passes("The Unknown Soldier", right=True), passes("Paris", right=False)
    (True, False, False)
    """
    return not right and is_unsure(reply)


def short_answer(question: str, reply: str) -> str:
    """What `reply` answers to `question`, in as few words as it says it.

    >>> short_answer("What is the capital of Mexico?", "Sure. The capital of Mexico is Mexico City.")
    'Mexico City'
    >>> short_answer("Which country is home to the airport BOG?", "Colombia is home to the airport BOG.")
    'Colombia'
    >>> short_answer("What is the capital of France?", "Paris")
    'Paris'
    """
    text = " ".join(reply.split())
    if is_unsure(text):
        return text
    asked = {_bare(word) for word in _WORD.findall(question)}
    for sentence in reversed(_SENTENCE.split(reply.strip())):
        words = _WORD.findall(sentence)
        filler = [_bare(word) in _FILLERS for word in words]
        new = [not f and _bare(word) not in asked for f, word in zip(filler, words, strict=True)]
        # After the last verb first: "the capital of Mexico is Mexico City" repeats a word of the question.
        verbs = [place for place, word in enumerate(words[:-1]) if _bare(word) in _VERBS]
        for start in [verbs[-1] + 1, 0] if verbs else [0]:
            kept = _run(new[start:], whole=start > 0 and not filler[start])
            if kept is not None:
                said = " ".join(words[start + kept[0] : start + kept[1]])
                return said.strip(_EDGE) or said
    return text.strip(_EDGE) or text


def _run(new: list[bool], *, whole: bool) -> tuple[int, int] | None:
    """From the first new word, or the word before it if `whole`, to the last one of its run."""
    if not any(new):
        return None
    last = len(new) - new[::-1].index(True)
    if whole and all(new[first] or first == 0 for first in range(last)) and last <= 4:
        return 0, last
    first = last
    while first and new[first - 1]:
        first -= 1
    return first, last


def _bare(word: str) -> str:
    return word.strip(_EDGE).lower()
