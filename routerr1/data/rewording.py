"""The embedded questions as people type them: typos, case, blanks, politeness, other phrasings.

The phrasings are made from the noun that a question asks for, so they exist for questions of one and of two
facts. Training meets the first group only; the second is for evaluation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from routerr1.data.embedded import RELATIONS
from routerr1.types import Question

TRAINING_PHRASINGS = (
    "What's {}?",
    "{}?",
    "Tell me {}.",
    "Do you know {}?",
    "I want to know {}.",
    "Say {}.",
)
UNSEEN_PHRASINGS = ("I need {}.", "{}: which is it?", "Can you find {} for me?", "Remind me of {}.",
                    "Looking for {}.", "{} is what?")  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Reworded:
    """A question in other words.

    Attributes:
        fixes: misspelt word -> the word that was meant, both in lower case.
    """

    question: Question
    original: str
    fixes: Mapping[str, str] = field(default_factory=dict)


Reword = Callable[[Question, Random], Reworded]


def noun_of(question: Question) -> str:
    """What an embedded question asks for, e.g. "the capital of France".

    >>> noun_of(Question("x", "embedded", "?", (), "test", 1, {"group": "airport:CDG/capital:France"}))
    'the capital of the country of the airport CDG'
    """
    nouns = {relation.name: relation.noun for relation in RELATIONS}
    steps = [step.partition(":") for step in str(question.metadata["group"]).split("/")]
    described = steps[0][2]
    for relation, _, _ in steps:
        described = nouns[relation].format(described)
    return described


def phrased(phrasings: tuple[str, ...]) -> Reword:
    """A question in one of `phrasings`."""

    def reword(question: Question, rng: Random) -> Reworded:
        text = rng.choice(phrasings).format(noun_of(question))
        return _said(question, text[0].upper() + text[1:])

    return reword


def with_typo(question: Question, rng: Random) -> Reworded:
    """One letter of one word of four letters or more is missing, doubled, wrong, or in its neighbour's place."""
    words = question.question.split(" ")
    long = [place for place, word in enumerate(words) if sum(map(str.isalpha, word)) >= 4]
    if not long:
        return _said(question, question.question)
    place = rng.choice(long)
    right = words[place]
    letters = [at for at, char in enumerate(right) if char.isalpha()]
    while words[place] == right:
        words[place] = _misspelt(right, letters, rng)
    fixes = {words[place].strip(".,?!").lower(): right.strip(".,?!").lower()}
    return _said(question, " ".join(words), fixes)


def _misspelt(word: str, letters: list[int], rng: Random) -> str:
    at = rng.choice(letters[:-1])
    match rng.randrange(4):
        case 0:
            return word[:at] + word[at + 1 :]
        case 1:
            return word[:at] + word[at] + word[at:]
        case 2:
            return word[:at] + rng.choice(_LETTERS) + word[at + 1 :]
        case _:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def lower_case(question: Question, rng: Random) -> Reworded:  # noqa: ARG001 - as its siblings
    """All in lower case, without the mark at the end."""
    return _said(question, question.question.lower().rstrip(".?"))


def upper_case(question: Question, rng: Random) -> Reworded:  # noqa: ARG001 - as its siblings
    """All in capitals."""
    return _said(question, question.question.upper())


def more_blanks(question: Question, rng: Random) -> Reworded:
    """A few blanks are two."""
    words = question.question.split(" ")
    return _said(question, "".join(word + " " * rng.choice((1, 2)) for word in words))


def more_marks(question: Question, rng: Random) -> Reworded:
    """Other marks at the end."""
    return _said(
        question, question.question.rstrip(".?") + rng.choice(("", "??", " ?", "?!", "..."))
    )


def politely(question: Question, rng: Random) -> Reworded:
    """With greeting and thanks."""
    before = rng.choice(("Hello! ", "Hi, ", "Please: ", "Good morning. ", ""))
    after = rng.choice((" Thanks!", " Thank you.", " Please.", ""))
    return _said(question, before + question.question + after)


WORDINGS: Mapping[str, Reword] = {
    "lower_case": lower_case,
    "upper_case": upper_case,
    "more_blanks": more_blanks,
    "more_marks": more_marks,
    "politely": politely,
    "one_typo": with_typo,
    "other_phrasing": phrased(UNSEEN_PHRASINGS),
}
"""How evaluation words questions, by the name of the change."""


def as_typed(question: Question, rng: Random) -> Reworded:
    """A training question as one of many people would type it: half of them as it is."""
    if rng.random() < 0.5:
        return _said(question, question.question)
    worded = phrased(TRAINING_PHRASINGS)(question, rng) if rng.random() < 0.6 else None
    if worded is not None and rng.random() < 0.7:
        return worded
    spelt = with_typo(question if worded is None else worded.question, rng)
    return replace(spelt, original=question.question)


def _said(question: Question, text: str, fixes: Mapping[str, str] | None = None) -> Reworded:
    return Reworded(replace(question, question=text), question.question, fixes or {})
