"""The tag protocol: what the policy reads, what it may write, and what a pool model may not.

    <think>..</think> <search>Name: sub-question</search> <information>reply</information> ..
    <think>..</think> <answer>..</answer>

Compatible with the published Router-R1 checkpoints (arXiv 2506.09033). The prompt is in `prompt.py`.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from routerr1.types import Action, Answer, Ask, Card, Malformed

TAGS = ("think", "search", "information", "answer")
STOPS = ("</search>", "</answer>")
INSERTED = "<information> {}</information>"
LOOK_UP = (
    "cards"  # in place of a name: asks for the cards of a topic, where the notation has look-ups
)

IN_CALL = re.compile(r"[:<>]")
"""Not in the name of a call: the first colon ends it, and brackets are the protocol's."""
IN_KEY = re.compile(r"[^\w. -]|^[. -]|[. -]$")
"""Not in a metric of MLflow, a column, a file or a CSS class."""
_LONGEST_NAME = 64

_TAG = re.compile(r"<(/?)(think|search|information|answer)>")
_PLACEHOLDERS = ("llm-name", "your-query")
# Opening brackets a reader could take for "<": full-width, small, angle quotation marks, entities.
_LOOKALIKE_OPEN = r"(?:<|＜|﹤|〈|〈|⟨|‹|❮|˂|ᐸ|&(?:lt|LT|#0*60|#[xX]0*3[cC]);?)"
_LOOKALIKE_CLOSE = r"(?:>|＞|﹥|〉|〉|⟩|›|❯|˃|ᐳ|&(?:gt|GT|#0*62|#[xX]0*3[eE]);?)"
_TAG_LIKE = re.compile(
    rf"{_LOOKALIKE_OPEN}(?=\s*+/?+\s*+(?:think|search|information|answer)\b)"
    rf"|(?<=think|earch|ation|nswer){_LOOKALIKE_CLOSE}"
    rf"|(?<=think\s|earch\s|ation\s|nswer\s){_LOOKALIKE_CLOSE}",
    re.IGNORECASE,
)


_ROUNDS = 8  # of decoding; text that was not escaped to do harm takes two or three
_MOST_MARKS = 30  # combining marks in a row: no language has more, and sorting them is slow


class _Block(NamedTuple):
    tag: str
    body: str


def names_of(cards: Iterable[Card], shown: Mapping[str, str] | None = None) -> dict[str, str]:
    """Every handle and alias in lower case, to the canonical name.

    Args:
        shown: handles that look-ups showed in a trajectory; if there are any, `LOOK_UP` is known too.
    """
    offered = list(cards)
    known = {alias.strip().lower(): card.name for card in offered for alias in card.aliases}
    known |= {handle.lower(): name for name, handle in handles(offered).items()}
    return {**known, **shown, LOOK_UP: LOOK_UP} if shown else known


def fit_names(names: Iterable[str], unfit: re.Pattern[str]) -> dict[str, str]:
    """Each name -> its form where `unfit` characters are not allowed.

    A name that fits stays as it is. Two results always differ in more than case, so that files and
    databases that ignore case keep them apart; a number tells equal ones apart.

    >>> fit_names(["Atlas", "Goliath (big)", "goliath big", "Qwen/Qwen2.5-7B:free"], IN_KEY)
    {'Atlas': 'Atlas', 'Goliath (big)': 'Goliath -big', 'goliath big': 'goliath big', 'Qwen/Qwen2.5-7B:free': 'Qwen-Qwen2.5-7B-free'}
    >>> fit_names(["gpt", "GPT", "<b>", "🦙"], IN_KEY)
    {'gpt': 'gpt', 'GPT': 'GPT-2', '<b>': 'model b', '🦙': 'model'}
    """
    given = list(dict.fromkeys(names))
    wanted = {name: _fit_name(name, unfit) for name in given}
    found: dict[str, str] = {}
    taken: set[str] = set()
    # Names that fit come first: no other name takes theirs.
    for name in sorted(given, key=lambda name: wanted[name] != name):
        fit, number = wanted[name], 1
        while fit.casefold() in taken:
            number += 1
            fit = f"{wanted[name]}-{number}"
        taken.add(fit.casefold())
        found[name] = fit
    return {name: found[name] for name in given}


def _fit_name(name: str, unfit: re.Pattern[str]) -> str:
    if len(name) <= _LONGEST_NAME and name.isprintable() and not unfit.search(name):
        return name
    plain = unicodedata.normalize("NFKC", name)
    visible = "".join(char if char.isprintable() else "-" for char in plain)
    joined = re.sub(r"--+", "-", unfit.sub("-", visible))[:_LONGEST_NAME].strip(" .-")
    # A question that holds the name of its model breaks the format, and one may hold any short word.
    return joined if len(joined) > 3 else f"model {joined}".strip()


def handles(cards: Iterable[Card]) -> dict[str, str]:
    """Canonical name -> the name by which a call names the candidate: the same, if a call can hold it."""
    return fit_names((card.name for card in cards), IN_CALL)


def parse_action(text: str, names: Mapping[str, str]) -> Action:
    """What one generation asks for; never raises.

    Args:
        text: one generation, up to and including its stop tag.
        names: from `names_of`; a name is known if it equals one of these, ignoring case.

    Returns: the action of the block the text ends with; the text before it is thought.
    """
    text = text.rstrip()
    for tag in ("search", "answer"):
        if text.endswith(f"</{tag}>"):
            body, opened = _after_last(text[: -len(f"</{tag}>")], f"<{tag}>")
            if not opened:
                return Malformed(f"</{tag}> without <{tag}>")
            return Answer(body.strip()) if tag == "answer" else _parse_call(body, names)
    return Malformed("no action")


def _after_last(text: str, mark: str) -> tuple[str, bool]:
    _, found, after = text.rpartition(mark)
    return after, bool(found)


def _parse_call(body: str, names: Mapping[str, str]) -> Ask | Malformed:
    # Only the first colon ends the name: a query may hold a time or a URL.
    name, colon, query = body.partition(":")
    name, query = name.strip(), query.strip()
    if not colon:
        return Malformed("a call is written as Name: question")
    if name.lower() not in names:
        return Malformed(f"there is no model named {name!r}", "unknown_model")
    if not query:
        return Malformed("the question is empty")
    return Ask(names[name.lower()], query)


def check(text: str, names: Iterable[str]) -> bool:
    """Does a whole trajectory keep the format? Never raises.

    Args:
        text: everything after the prompt, replies included.
        names: the names and aliases a call may use; compared ignoring case.

    Tags are balanced and never nested; the text begins with `<think>` and ends with `</answer>`;
    exactly one answer; at least one think, none empty or `...`; as many replies as calls; every call
    has a known name and a query that is not empty, no placeholder, and does not hold the name again.
    """
    text = text.strip()
    blocks = _blocks(text)
    if blocks is None or not text.startswith("<think>") or not text.endswith("</answer>"):
        return False
    bodies = {tag: [block.body.strip() for block in blocks if block.tag == tag] for tag in TAGS}
    known = {name.strip().lower() for name in names}
    return (
        len(bodies["answer"]) == 1
        and len(bodies["think"]) >= 1
        and all(body not in ("", "...") for body in bodies["think"])
        and len(bodies["search"]) == len(bodies["information"])
        and all(_is_call(body, known) for body in bodies["search"])
    )


def _blocks(text: str) -> list[_Block] | None:
    """The flat sequence of tagged blocks, or None if a tag is nested, unopened or left open."""
    blocks: list[_Block] = []
    open_tag, start = "", 0
    for match in _TAG.finditer(text):
        closing, tag = match[1] == "/", match[2]
        if closing != bool(open_tag) or (closing and tag != open_tag):
            return None
        if closing:
            blocks.append(_Block(tag, text[start : match.start()]))
            open_tag = ""
        else:
            open_tag, start = tag, match.end()
    return None if open_tag else blocks


def _is_call(body: str, known: set[str]) -> bool:
    name, _, query = body.partition(":")
    name, query = name.strip().lower(), query.strip().lower()
    return (
        name in known
        and bool(query)
        and name not in query
        and not any(placeholder in query for placeholder in _PLACEHOLDERS)
    )


def extract_answer(text: str) -> str | None:
    """The content of the last `<answer>` block, stripped; None without one. Never raises."""
    closed = (piece.partition("<answer>") for piece in text.split("</answer>")[:-1])
    found = [after for _, opened, after in closed if opened]
    return found[-1].strip() if found else None


def escape(text: str) -> str:
    """Make pool text inert: nothing in it can be read as a protocol tag. Never raises; takes linear time.

    Control and invisible format characters are dropped, because they can hide a tag. Then the brackets of
    anything that looks like a tag become square ones, in any case, spacing or look-alike bracket. Text
    that holds one only once entities and width variants are resolved is shown resolved. All other
    text, `3 < 4` included, stays. `escape(escape(text)) == escape(text)`.
    """
    visible = _visible(text)
    plain = _resolved(visible)
    chosen = plain if _TAG_LIKE.search(plain) else visible
    return _TAG_LIKE.sub(lambda match: "[" if _opens(match[0]) else "]", chosen)


def _visible(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for char in text:
        if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co"):
            continue
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= _MOST_MARKS:
            kept.append(char)
    return "".join(kept)


def _resolved(text: str) -> str:
    """Entities decoded and width variants folded, until nothing changes."""
    rounds = 0
    while True:
        if rounds == _ROUNDS:
            # Nested on purpose, to take as many rounds as there are characters: no entity is left without "&".
            text = text.replace("&", "+")
        further = _visible(unicodedata.normalize("NFKC", _unescaped(text)))
        if further == text:
            return text
        text, rounds = further, rounds + 1


def _unescaped(text: str) -> str:
    """`html.unescape`, which raises ValueError for a number of several thousand digits."""
    text = re.sub(r"&#0+(?=[0-9])", "&#", text)
    return html.unescape(re.sub(r"&#[0-9]{8,};?", "\ufffd", text))


def _opens(bracket: str) -> bool:
    return re.fullmatch(_LOOKALIKE_OPEN, bracket) is not None


def information(text: str, form: str = INSERTED) -> str:
    """A reply as it is inserted; `text` is escaped here.

    Args:
        form: with `{}` for the text; what the policy's template makes of a reply (`prompt.Renderer`).
    """
    return form.format(escape(text).strip())


def is_information(text: str) -> bool:
    """Is this one reply as `information` makes it: closed, and inert inside?"""
    text = text.strip()
    inside = text.removeprefix("<information>").removesuffix("</information>")
    return text == f"<information>{inside}</information>" and escape(inside) == inside
