"""How a policy writes calls and answers: with names and in words, or in short form.

The short form is that of the compact template. A look-up (`<search>Cards: aviation</search>`) is free and
shows the best candidates of a topic under handles (`m4`), of those that the question's spend level allows.
Handles are drawn for every rollout, so the policy cannot memorise a choice. `@question` in a call is the
question as it was asked, `@2` in a call or as the answer is the short answer of the second reply. Only what
the policy sampled is read for these.

A look-up by reference (`<search>Cards: @question</search>`) shows the best candidates for this very question,
where figures of it are given (`Figures`). A policy then needs to know neither topics nor the language.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Protocol

from routerr1 import protocol
from routerr1.answers.short_answer import short_answer
from routerr1.types import (
    Action,
    Answer,
    Ask,
    Card,
    LookUp,
    Malformed,
    Question,
    Reply,
    Trajectory,
)

Figures = Callable[[str], Mapping[str, float]]
"""Question -> what a look-up of it shows of each candidate (`asking_index`), by the pool's own names."""

SHOWN = 4  # candidates of a look-up
THE_QUESTION = "@question"
HANDLES = 12  # beyond these, handles are of several tokens
PRICE_STEPS = 20
SPEND_LEVELS = 10
LEFT = 0.95  # of what a question is worth, after a call that did not answer it
_REFERENCE = re.compile(r"@(question|[1-9][0-9]?)\b", re.IGNORECASE)
_ENTRY = re.compile(r"\b([0-9]+)% (m[1-9][0-9]*)\b")
_LETTERS = re.compile(r"[^\W_]+")
_USUAL_TOKENS = 20  # of a short question, and of a short reply
_LOWEST_USD_PER_MCALL = 0.1
_BLANKS = re.compile(r"\s+")
_HANDLE = re.compile(r"\bm[1-9][0-9]*\b")
_BEFORE_MARK = re.compile(r" (?=[?.!,;:])")
_POLITE = re.compile(
    r"^(?:(?:hi|hello|hey|please|ok|okay|so|well|good morning|good evening|thanks|thank you|quick question|"
    r"(?:can|could|would|will) you (?:please )?(?:tell me|say)|(?:please )?tell me|do you know|"
    r"i (?:would like|want|need) to know|i was wondering)\b[\s,:!.?-]*)+|"
    r"[\s,.!?-]*\b(?:please|thanks|thank you|thx|cheers|pls)[\s,.!?]*$"
)


class Notation(Protocol):
    """Reads what one rollout's policy writes; holds what it may refer to.

    Attributes:
        handles: short names that were shown so far, to names of candidates.
        refuses_repeats: the same question is not put to the same candidate twice.
    """

    @property
    def handles(self) -> Mapping[str, str]: ...

    @property
    def refuses_repeats(self) -> bool: ...

    def parse(self, text: str) -> Action:
        """The action of a generation, with handles and references resolved; never raises."""
        ...

    def cards_on(self, topic: str) -> str:
        """What a look-up of `topic` inserts."""
        ...

    def heard(self, ask: Ask | None, reply: Reply) -> str:
        """Take in a reply; gives what is inserted before its text."""
        ...

    def written(self, ask: Ask) -> str:
        """A call as the policy would write it."""
        ...


class PlainNotation:
    """Names and words, as published checkpoints write them."""

    refuses_repeats = False

    def __init__(self, cards: Sequence[Card]) -> None:
        self.handles: Mapping[str, str] = {}
        self._names = protocol.names_of(cards)

    def parse(self, text: str) -> Action:
        """See `Notation.parse`."""
        return protocol.parse_action(text, self._names)

    def cards_on(self, topic: str) -> str:
        """Nothing: there are no look-ups."""
        raise NotImplementedError(f"no look-up of {topic!r} can be parsed from plain text")

    def heard(self, ask: Ask | None, reply: Reply) -> str:  # noqa: ARG002 - nothing refers to it
        """See `Notation.heard`."""
        return ""

    def written(self, ask: Ask) -> str:
        """See `Notation.written`."""
        return f"{ask.name}: {ask.query}"


class ShortNotation:
    """The short form.

    Args:
        cards: of the pool that is called.
        shown: what look-ups show instead of `cards`; each name or alias must be one of the pool.
        seed: draws the handles and the order of a look-up.
        spend: level from 0 to `SPEND_LEVELS`, see `worth_their_price`.
        figures: name of a card -> its index on questions like this one; asked for by the first look-up of
            `@question`. None: such a look-up is one of an unknown topic.
        whole: references stand for the whole question and for whole replies, as they are.
    """

    refuses_repeats = True

    def __init__(
        self,
        cards: Sequence[Card],
        question: str,
        seed: str,
        *,
        shown: Sequence[Card] | None = None,
        spend: int = SPEND_LEVELS,
        figures: Callable[[], Mapping[str, float]] | None = None,
        whole: bool = False,
    ) -> None:
        self.handles: dict[str, str] = {}
        self._figures = figures
        self._whole = whole
        self._names = protocol.names_of(cards)
        self._cards = tuple(cards if shown is None else shown)
        self._question = question
        self._spend = spend
        self._random = Random(f"handles/{seed}")
        self._free = self._random.sample(range(1, HANDLES + 1), HANDLES)
        self._handle_of: dict[str, str] = {}
        self._replies: list[str | None] = []
        self._asked: dict[str, set[str]] = {}  # topic -> candidates asked since it was looked up
        self._topic = ""
        self._down: set[str] = set()

    def parse(self, text: str) -> Action:
        """See `Notation.parse`."""
        names = {**self._names, **self.handles, protocol.LOOK_UP: protocol.LOOK_UP}
        action = protocol.parse_action(text, names)
        if isinstance(action, Ask) and action.name == protocol.LOOK_UP:
            return LookUp(action.query)
        if isinstance(action, Answer):
            return self._answer(action)
        return self._call(action, text) if isinstance(action, Ask) else action

    def _answer(self, action: Answer) -> Answer | Malformed:
        found = _REFERENCE.fullmatch(action.text)
        if found is None:
            return action
        place = 0 if found[1].lower() == "question" else int(found[1])
        if not 1 <= place <= len(self._replies):
            return _no_reply(found[0])
        return Answer(self._replies[place - 1] or "", action.text)

    def _call(self, action: Ask, text: str) -> Ask | Malformed:
        for found in _REFERENCE.finditer(action.query):
            if self._resolved(found) is None:
                return _no_reply(found[0])
        # A small policy's tokens for references swallow the blank before them.
        query = _REFERENCE.sub(lambda found: f" {self._resolved(found)} ", action.query)
        query = _BEFORE_MARK.sub("", _BLANKS.sub(" ", query)).strip()
        query = recased(query, self._question)
        if self._whole and action.query.lower() == THE_QUESTION:
            query = self._question
        # The text between the tags, handle included.
        written = text.rstrip().removesuffix("</search>").rpartition("<search>")[2].strip()
        sent = f"{action.name}: {query}"
        return Ask(action.name, query, written if written != sent else None)

    def _resolved(self, found: re.Match[str]) -> str | None:
        if found[1].lower() == "question":
            return self._question
        place = int(found[1])
        return self._replies[place - 1] if place <= len(self._replies) else None

    def cards_on(self, topic: str) -> str:
        """The topic's best candidates in random order: price step, percent and handle of each.

        A second look-up of a topic leaves out the candidates that were asked after the first, and every
        look-up those that did not answer. Of the others those are offered that the spend level finds
        worth their price. Of an unknown topic the figures are means over all topics; for `@question`
        they are those of this question, where there are any.
        """
        self._topic = topic = topic.strip().lower()
        up = [card for card in self._cards if card.name not in self._down] or list(self._cards)
        passed = self._asked.get(topic, set())
        left = [card for card in up if card.name not in passed] or up
        shares = self._shares(left, topic)
        dearest_usd = max(map(usual_usd, self._cards), default=0.0)
        offered = worth_their_price(left, shares, self._spend, dearest_usd)
        best = sorted(offered, key=lambda card: (-shares[card.name], self._random.random()))[:SHOWN]
        entries = [
            f"${price_step(card)} {percent(shares[card.name])}% {self._handle(card)}"
            for card in self._random.sample(best, len(best))
        ]
        return " ".join(entries)

    def _shares(self, cards: Sequence[Card], topic: str) -> dict[str, float]:
        asked_for = topic == THE_QUESTION and self._figures is not None
        known = self._figures() if asked_for and self._figures is not None else {}
        return {card.name: known.get(card.name, figure_on(card, topic)) for card in cards}

    def _handle(self, card: Card) -> str:
        if card.name not in self._handle_of:
            number = self._free.pop() if self._free else len(self.handles) + 1
            self._handle_of[card.name] = handle = f"m{number}"
            self.handles[handle] = self._names.get(card.name.strip().lower(), card.name)
        return self._handle_of[card.name]

    def heard(self, ask: Ask | None, reply: Reply) -> str:
        """See `Notation.heard`: the reply's number, by which it is referred to."""
        said = None
        if ask is not None and reply.failure is None:
            whole = self._whole
            said = (
                protocol.escape(reply.text).strip()
                if whole
                else short_answer(ask.query, reply.text)
            )
        self._replies.append(said)
        if ask is not None:
            self._asked.setdefault(self._topic, set()).add(ask.name)
            if reply.failure == "unavailable":
                self._down.add(ask.name)
        return f"@{len(self._replies)} "

    def written(self, ask: Ask) -> str:
        """See `Notation.written`."""
        card = next((card for card in self._cards if card.name == ask.name), None)
        name = ask.name if card is None else self._handle(card)
        return f"{name}: {THE_QUESTION if ask.query == self._question else ask.query}"


def _no_reply(reference: str) -> Malformed:
    return Malformed(f"{reference} is no reply that could be referred to")


def percent(figure: float) -> int:
    """A share as the look-up shows it, in whole percent."""
    return round(100 * figure)


def price_step(card: Card) -> int:
    """The usual price of a call on a scale of five steps for every factor of ten; 0 below $0.1 per million calls.

    >>> price_step(Card("A", completion_usd_per_mtok=1.0)), price_step(Card("B"))
    (12, 0)
    """
    usd_per_mcall = usual_usd(card) * 1e6
    if usd_per_mcall <= 0:
        return 0
    return min(PRICE_STEPS, max(0, round(5 * math.log10(usd_per_mcall / _LOWEST_USD_PER_MCALL))))


def usual_usd(card: Card) -> float:
    """What a call with a short question costs by the card's prices."""
    asked, said = (
        _USUAL_TOKENS if tokens is None else tokens
        for tokens in (card.prompt_tokens, card.completion_tokens)
    )
    tokens_usd = card.prompt_usd_per_mtok * asked + card.completion_usd_per_mtok * said
    return tokens_usd / 1e6 + card.request_usd


def price_at(level: int) -> float:
    """What a call to the most expensive candidate is worth at a spend level, in shares of right answers.

    It is 0 at level 10, 0.05 at level 9, and 1.6 times as high with every level below. At level 0 it is
    so high that only the price counts.

    >>> [round(price_at(level), 2) for level in (10, 9, 5, 1, 0)]
    [0.0, 0.05, 0.33, 2.15, 1000.0]
    """
    if level <= 0:
        return 1000.0
    return 0.0 if level >= SPEND_LEVELS else 0.05 * 1.6 ** (SPEND_LEVELS - 1 - level)


def worth_their_price(
    cards: Sequence[Card], shares: Mapping[str, float], level: int, dearest_usd: float
) -> list[Card]:
    """The candidates that a spend level offers: none is dearer than the one most worth its price.

    A candidate's worth is its share less `price_at(level)` times its usual cost, as a share of
    `dearest_usd`. Level 10 offers all of `cards`, level 0 the cheapest.

    Args:
        shares: what a look-up shows of each candidate, by name, in [0, 1].

    >>> priced = [Card(str(usd), request_usd=usd) for usd in (1.0, 10.0, 100.0)]
    >>> shares = {"1.0": 0.5, "10.0": 0.7, "100.0": 0.9}
    >>> [
    ...     len(worth_their_price(priced, shares, level, 100.0))
    ...     for level in (0, 1, 5, 8, 10)
    ... ]
    [1, 2, 2, 3, 3]
    """
    price = price_at(level)
    if not price or dearest_usd <= 0:
        return list(cards)

    def worth(card: Card) -> tuple[float, float]:
        cost = usual_usd(card) / dearest_usd
        return shares[card.name] - price * cost, -cost

    most = usual_usd(max(cards, key=worth))
    return [card for card in cards if usual_usd(card) <= most]


def asking_index(right: float, unsure: float) -> float:
    """What ranks candidates that are asked one after the other until one is sure, in [0, 1].

    An answer ends the search, right or wrong; "I am not sure" costs a call and leaves `LEFT` of what can still be
    gained. Exchange two neighbours in an order: A before B is better exactly if A has the higher
    right / (1 - LEFT * unsure).

    Args:
        right: share of questions that a candidate answers right.
        unsure: share of those to which it says that it is not sure.

    >>> asking_index(0.6, 0.0), round(asking_index(0.4, 0.5), 2), asking_index(0.0, 1.0)
    (0.6, 0.76, 0.0)
    """
    return min(1.0, right / (1 - LEFT * unsure))


def figure_on(card: Card, topic: str) -> float:
    """What a look-up of a topic shows of a card: its index, from means over topics where the card does not name it.

    A topic of which the card has a share of right answers but none of "not sure" counts as one without "not sure".
    """
    right, unsure = (
        {name.lower(): share for name, share in shares.items()}
        for shares in (card.performance, card.unsure)
    )
    if topic in right:
        return asking_index(right[topic], unsure.get(topic, 0.0))
    return asking_index(_mean(right), _mean(unsure))


def _mean(by_topic: Mapping[str, float]) -> float:
    return sum(by_topic.values()) / len(by_topic) if by_topic else 0.0


def aimed_at(shown: str, rng: Random, without: Collection[str] = ()) -> tuple[int, str] | None:
    """A candidate of a look-up drawn at random, and a percent to which its own is nearest.

    Args:
        shown: what the look-up inserted.
        without: handles that are not drawn.

    Returns: None if no candidate is left.

    >>> aimed_at("$3 95% m2 $1 40% m7", Random(1), without={"m2"})
    (8, 'm7')
    """
    entries = [(int(figure), handle) for figure, handle in _ENTRY.findall(shown)]
    left = [entry for entry in entries if entry[1] not in without]
    if not left:
        return None
    own, handle = rng.choice(left)
    others = {figure for figure, _ in entries} - {own}
    near = [aim for aim in range(101) if all(abs(aim - own) < abs(aim - other) for other in others)]
    return rng.choice(near), handle


def named(text: str, handles: Mapping[str, str]) -> str:
    """`text` with the names that its handles stand for, for readers.

    >>> named("$7 95% m4", {"m4": "Atlas"})
    '$7 95% Atlas'
    """
    return _HANDLE.sub(lambda found: handles.get(found[0], found[0]), text)


def tidied(question: str) -> str:
    """A question without what changes nothing: case, width of characters, blanks, polite words, end marks.

    >>> tidied("Hello,  could you tell me what the Capital of  Peru is, please??")
    'what the capital of peru is'
    """
    text = _BLANKS.sub(" ", unicodedata.normalize("NFKC", question)).strip().lower()
    while (shorter := _POLITE.sub("", text.rstrip(" .,;:!?")).strip()) != text:
        text = shorter
    return text


def recased(query: str, question: str) -> str:
    """`query` with the words of `question` in the case that they have there.

    A small policy reads and writes lower case, and candidates may care: `cdg` is no airport.

    >>> recased("in which country is the airport cdg?", "What is the capital of the country of the airport CDG?")
    'in which country is the airport CDG?'
    """
    # The capital of the first word means nothing.
    words = _LETTERS.findall(question)[1:]
    cased = {word.lower(): word for word in reversed(words) if word != word.lower()}
    return _LETTERS.sub(lambda found: cased.get(found[0], found[0]), query)


def spend_of(question: Question) -> int:
    """What may be spent on a question, from 0 to `SPEND_LEVELS`; the most where nothing is said."""
    return int(question.metadata.get("spend", SPEND_LEVELS))


def takes_whole(question: Question) -> bool:
    """Whether an answer by reference is the whole reply, which its task then judges as one.

    Short answers are cut by rules of English and of facts. Questions of one's own (rule `text`) and other
    tasks than `short` may be neither.
    """
    return question.matching == "text" or question.metadata.get("task", "short") != "short"


def answers_with_reply(trajectory: Trajectory) -> bool:
    """Whether the answer is a candidate's whole reply that the policy referred to."""
    last = trajectory.turns[-1].action if trajectory.turns else None
    referred = isinstance(last, Answer) and last.written is not None
    return referred and takes_whole(trajectory.question)


def with_spend(question: Question, level: int) -> Question:
    """The question with a spend level, which the compact prompt shows."""
    return replace(question, metadata={**question.metadata, "spend": level})
