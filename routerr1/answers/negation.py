"""Whether two texts contradict each other by a negation: one denies what the other says.

A negation denies one word: the next that carries meaning, or the verb before it, as in German. So "no longer valid"
does not contradict "has expired", and "has not expired" does. Words that forbid or exclude deny all of their clause.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

Relation = Literal["same", "denies", "silent", "contradicts"]

# Clauses end at punctuation, and at words that begin another.
_CLAUSE = re.compile(
    r"[.!?;:()\n]+(?!\d)|,(?!\d|\s*(?:before|until|bevor|ehe)\b)|\b(?:and|but|because|since|while|as|if|so that|"
    r"otherwise|unless|except|und|aber|sondern|weil|denn|da|wenn|damit|sonst|sobald|solange|mais|parce que|pero|"
    r"porque)\b"
)
_PURPOSE = re.compile(
    r"\b(?:so that|so as|in order|otherwise|lest|damit|sonst|ansonsten|um nicht|afin|para que)\b[^.!?;]*"
)
_APOSTROPHES = str.maketrans(dict.fromkeys("`´‘’‛′ʼ", "'"))
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_NOT = re.compile(
    r"not|no|never|none|nor|neither|without|cannot|\w*n't|nothing|"
    r"nicht|kein\w*|nie|niemals|ohne|weder|nichts|ne|pas|jamais|sans|non|ni|nunca|sin"
)
_FORBIDS = re.compile(
    r"exclud\w*|impossible|forbidden|prohibited|ausgeschlossen|ausgenommen|unmöglich|verboten|untersagt|unzulässig|"
    r"interdit\w*|prohibid\w*"
)
_LIMITS = re.compile(
    r"only|refus\w*|lacks?|prevent\w*|avoid\w*|fails?|instead|nur|fehl(?:t|en)|schlie(?:ß|ss)t|verhinder\w*|"
    r"vermeid\w*|schon(?:t|en)|statt|anstatt"
)
_OPPOSITE = re.compile(r"un(?=\w{4})|in(?=valid|complet|correct|suffic|activ|eligib)")
_YES, _NO = ("yes", "ja", "oui", "sí", "si"), ("no", "nein", "non")
# What a negation passes by: words without a meaning of their own.
_PASSED = re.compile(
    r"the|and|any|all|are|was|were|has|have|had|been|being|will|would|can|could|may|might|must|shall|should|does|"
    r"did|do|be|is|it|its|you|your|them|they|this|that|there|their|our|for|from|with|into|onto|yet|also|even|just|"
    r"use|used|using|take|taken|let|der|die|das|den|dem|des|ein|eine|einen|einem|einer|ist|sind|war|wird|werden|"
    r"wurde|kann|können|darf|dürfen|muss|müssen|soll|sollen|haben|hat|hatte|sich|sie|ihr|ihre|ihren|ihnen|ihm|uns|"
    r"wir|ich|man|auch|noch|schon|für|mit|von|vom|zum|zur|auf|aus|bei|nach|vor|als|dass|est|sont|les|des|une|pour|"
    r"avec|plus|que|los|las|una|por|con|para"
)
_MORE = frozenset(["more", "longer", "later", "mehr", "länger", "später"])
# "Do not forget" and "not only" deny nothing; "not before" says when.
_IDLE = re.compile(r"forget|worry|hesitate|only|vergess\w*|nur|zöger\w*|oubli\w*|olvid\w*")
_SOONEST = frozenset(["before", "until", "bevor", "ehe", "avant", "antes"])


class _Clause(NamedTuple):
    """What a clause says.

    Attributes:
        words: that carry meaning; of an opposite such as "unsuitable", the word itself.
        denied: those of `words` that it denies.
        negative: it has a negation.
        limits: it has a word such as "only" or "avoid", which may stand for one.
    """

    words: frozenset[str]
    denied: frozenset[str]
    negative: bool
    limits: bool


def relation(said: str, reference: str) -> Relation:
    """How the negations of `said` relate to those of `reference`.

    Returns: `contradicts` if one denies what the other says; `denies` if `said` denies what the reference does not
        speak of; `silent` if only the reference denies something; else `same`.

    >>> relation("It has not expired.", "It has expired."), relation("It is no longer valid.", "It has expired.")
    ('contradicts', 'denies')
    >>> relation("Es ist ungeeignet.", "Es ist nicht geeignet."), relation("Es ist geeignet.", "Es ist ungeeignet.")
    ('same', 'contradicts')
    """
    texts = _plain_text(said), _plain_text(reference)
    first, other = (_WORD.findall(text) for text in texts)
    own, wanted = _clauses(texts[0], other), _clauses(texts[1], first)
    openings = first[:1], other[:1]
    if any(openings in (([yes], [no]), ([no], [yes])) for yes in _YES for no in _NO):
        return "contradicts"
    if _denies(own, wanted) or _denies(wanted, own):
        return "contradicts"
    if any(each.denied for each in own):
        return "same" if any(each.negative or each.limits for each in wanted) else "denies"
    core = _clauses(_PURPOSE.sub(" ", texts[1]), first)  # a purpose may be left out
    if any(each.denied for each in core) and not any(each.negative or each.limits for each in own):
        return "silent"
    return "same"


def _plain_text(text: str) -> str:
    """In lower case, without invisible characters, composed, with one kind of apostrophe."""
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFKC", visible).casefold().translate(_APOSTROPHES)


def _clauses(text: str, beside: Sequence[str]) -> list[_Clause]:
    found = (_WORD.findall(each) for each in _CLAUSE.split(text))
    return [_read(words, beside) for words in found if words]


def _read(words: list[str], beside: Sequence[str]) -> _Clause:
    """The clause of these words, beside the words of the other text."""
    plain = [_plain(word, beside) for word in words]
    opposite = {word for word, own in zip(plain, words, strict=True) if word != own}
    soonest = _SOONEST - set(beside)
    latest = max((place for place, word in enumerate(plain) if word in soonest), default=-1)
    negations = [place for place, word in enumerate(plain) if _NOT.fullmatch(word)]
    carrying = [place for place in range(len(plain)) if _carries(plain, place)]
    scopes = (_scope(plain, place, carrying) for place in negations if place > latest)
    scoped = {word for scope in scopes for word in scope}
    meaning = {plain[place] for place in carrying}
    forbidding = {word for word in meaning if _FORBIDS.fullmatch(word)}
    forbidden = bool(forbidding - scoped)  # and not "not forbidden"
    denied = meaning - forbidding if forbidden else scoped - forbidding
    return _Clause(
        frozenset(meaning), frozenset(denied ^ opposite),  # denied twice is said
        forbidden or bool(opposite or (negations and not forbidding)), any(map(_LIMITS.fullmatch, words)),
    )  # fmt: skip


def _plain(word: str, beside: Sequence[str]) -> str:
    """ "suitable" for "unsuitable", if the other text speaks of what is suitable."""
    prefix = _OPPOSITE.match(word)
    bare = word[prefix.end() :] if prefix else word
    return bare if prefix and any(_alike(bare, each) for each in beside) else word


def _scope(words: Sequence[str], place: int, carrying: Sequence[int]) -> Iterator[str]:
    """The words that the negation at `place` denies.

    Args:
        carrying: places of the words that carry meaning, in order.
    """
    near = (*words[max(place - 2, 0) : place], *words[place + 1 : place + 3])
    if not carrying or any(map(_IDLE.fullmatch, near)):
        return
    # A verb comes first in a request: "Starten Sie den Scanner nicht neu".
    if place > 1 and words[1] == "sie" and words[place].startswith("ni") and carrying[0] == 0:
        yield words[0]
        return
    after = bisect_right(carrying, place)
    yield words[carrying[after if after < len(carrying) else -1]]


def _carries(words: Sequence[str], place: int) -> bool:
    """Whether the word has a meaning of its own; "more" has in "more than"."""
    word = words[place]
    if word in _MORE:
        return words[place + 1 : place + 2] in (["than"], ["als"])
    return len(word) > 2 and not _PASSED.fullmatch(word) and not _NOT.fullmatch(word)


def _denies(own: Sequence[_Clause], others: Sequence[_Clause]) -> bool:
    """Whether the others say a word that is denied, and nowhere said, by the own clauses."""
    denied = {word for clause in own for word in clause.denied}
    return any(_says(word, others) and not _says(word, own) for word in denied)


def _says(word: str, clauses: Iterable[_Clause]) -> bool:
    """Whether a clause without a negation has the word."""
    return any(
        not clause.negative and any(_alike(word, each) for each in clause.words)
        for clause in clauses
    )


def _alike(one: str, other: str) -> bool:
    shared = min(5, len(one), len(other))
    return one[:shared] == other[:shared] and (shared == 5 or abs(len(one) - len(other)) < 3)
