"""The one renderer of prompts: cards and question in, text out.

Three templates. `full` describes the protocol in words of our own, for policies that follow instructions;
`file` does so in the words of a file of the user's, which is how a checkpoint trained elsewhere is played
with the prompt it knows. `compact` is for small policies that learn the protocol from examples: prices and
latencies, then a list per topic of who is how good at it, then the question. What is said of a candidate is
its name, price, latency and measured performance.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from routerr1.errors import ConfigError
from routerr1.notation import (
    Figures,
    Notation,
    PlainNotation,
    ShortNotation,
    spend_of,
    takes_whole,
    tidied,
)
from routerr1.protocol import INSERTED, handles
from routerr1.types import Card, Question, Reply

Template = Literal["compact", "full", "file"]

PUBLISHED = Path("prompts/router-r1.txt")
_WHERE_PUBLISHED = (
    "; the prompt of the published checkpoints is PROMPT_TEMPLATE_QWEN in data_process/prompt_pool.py of "
    "github.com/ulab-uiuc/Router-R1, and prompts/README.md has the command that copies it here"
)
# How a reply is inserted; the last two as the published checkpoints read it in training.
_REPLIES: dict[Template, str] = {
    "compact": INSERTED,
    "full": "\n\n<information>{}</information>\n\n",
    "file": "\n\n<information>{}</information>\n\n",
}
_MOST_CHARS = 200  # of a question that a policy looks up
_PLACEHOLDER = re.compile(r"\{(cards|names|question|max_rounds)\}")

_FULL = """\
Answer the question below. You can ask other language models for help.

Write your reasoning between <think> and </think>, always before you do anything else. When you lack a \
fact, ask one model one self-contained question, like this:
<search>LLM-Name:Your-Query</search>
with the model's exact name before the colon and your own question after it. Its reply comes back between \
<information> and </information>. Models can be wrong, so weigh what they say. Break a question that needs \
several facts into parts and ask for one part at a time; choose for each part the model that is likely to \
know it, and prefer the cheaper of two that are equally good. You may ask at most {max_rounds} times.

When you know enough, write only the final answer, in as few words as possible, between <answer> and \
</answer>.

Models you can ask:
{cards}

Question: {question}
"""


@dataclass(frozen=True, slots=True)
class Renderer:
    """What the policy reads.

    Attributes:
        prompt: cards and question to the text before the policy's first token.
        reply: how a reply is inserted, with `{}` for its text.
        short: the policy writes the short form (`notation.ShortNotation`).
        shown: what look-ups show, in place of the pool's cards; None for these.
        figures: what look-ups by question show; None where there are no such look-ups. The policy then calls
            with the question as it is and answers with whole replies.
    """

    prompt: Callable[[Question, Sequence[Card]], str]
    reply: str = INSERTED
    short: bool = False
    shown: Sequence[Card] | None = None
    figures: Figures | None = None

    def __call__(self, question: Question, cards: Sequence[Card]) -> str:
        """The text before the policy's first token, with the candidates by their handles."""
        shown = handles(cards)
        return self.prompt(question, [replace(card, name=shown[card.name]) for card in cards])

    def notation(
        self,
        question: Question,
        cards: Sequence[Card],
        seed: int,
        behind: Callable[[str], str] = str,
    ) -> Notation:
        """What reads the policy's calls in one rollout on a pool with `cards`.

        Args:
            seed: draws the handles.
            behind: see `Pool.behind_name`.
        """
        if not self.short:
            return PlainNotation(cards)
        own = f"{question.dataset}/{question.question}/{seed}"
        figures = self.figures

        def shares() -> dict[str, float]:
            measured = figures(question.question) if figures is not None else {}
            behind_each = {card.name: behind(card.name) for card in cards}
            return {name: measured[real] for name, real in behind_each.items() if real in measured}

        return ShortNotation(
            cards,
            question.question,
            own,
            shown=self.shown,
            spend=spend_of(question),
            figures=None if figures is None or self.shown is not None else shares,
            whole=figures is not None or takes_whole(question),
        )


def renderer(template: Template, max_rounds: int, file: Path | None = None) -> Renderer:
    """The renderer of `template`; policies that read instructions see `max_rounds`.

    Args:
        file: of the template `file`. In its text {question} stands for the question, {cards} for what is
            said of the candidates, {names} for their names, {max_rounds} for the number of calls.

    Raises: ConfigError naming the file if it cannot be read or lacks {question}; when rendering, if it
        neither holds {cards} nor names every candidate.
    """
    if template == "compact":
        return Renderer(_compact, _REPLIES[template], short=True)
    text = _wording(template, file)
    rendered = partial(_filled, text=text, max_rounds=max_rounds, file=file)
    return Renderer(rendered, _REPLIES[template])


def _wording(template: Template, file: Path | None) -> str:
    """The text of a template in words."""
    if template == "full":
        return _FULL
    if file is None:
        raise ConfigError("params.yaml: prompt.file: template file needs one")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        where = _WHERE_PUBLISHED if file == PUBLISHED else ""
        raise ConfigError(f"{file}: cannot be read ({error.strerror}){where}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8") from None
    if "{question}" not in text:
        raise ConfigError(f"{file}: holds no {{question}}, the place of the question")
    return text


def _filled(
    question: Question, cards: Sequence[Card], *, text: str, max_rounds: int, file: Path | None
) -> str:
    if "{cards}" not in text:
        for card in cards:
            if card.name not in text:
                raise ConfigError(
                    f"{file}: holds no {{cards}} and does not name {card.name}, which the pool offers; put "
                    "{cards} where it describes the candidates"
                )
    values = {
        "cards": "\n".join(map(_line, cards)),
        "names": ", ".join(card.name for card in cards),
        "question": question.question,
        "max_rounds": str(max_rounds),
    }
    # In one pass: a question may hold what looks like a placeholder.
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _compact(question: Question, cards: Sequence[Card]) -> str:  # noqa: ARG001 - look-ups show them
    return f"spend {spend_of(question)}: {tidied(question.question)}\n"


def looking_up(figures: Figures) -> Renderer:
    """The compact template for a policy that looks questions up, which reads no more than how one begins.

    It refers to the question and writes nothing of it, so a long one would only cost time and room.
    """
    return Renderer(_beginning, _REPLIES["compact"], short=True, figures=figures)


def _beginning(question: Question, cards: Sequence[Card]) -> str:
    return _compact(replace(question, question=question.question[:_MOST_CHARS]), cards)


def _line(card: Card) -> str:
    prices = f"${card.prompt_usd_per_mtok:g} in, ${card.completion_usd_per_mtok:g} out per million tokens"
    facts = [card.description.rstrip(".")] if card.description else []
    facts.append(prices)
    if card.latency_s is not None:
        facts.append(f"{card.latency_s:.1f} s median latency")
    if card.performance:
        shares = ", ".join(
            f"{topic} {_percent(share)}%" for topic, share in sorted(card.performance.items())
        )
        facts.append(f"right on {shares}")
    return f"- {card.name}: {'; '.join(facts)}."


def _percent(share: float) -> int:
    """Whole percent in steps of five: finer figures would be noise, and small policies read few numbers."""
    return 5 * round(share * 20)


def prompt_hash(template: Template, max_rounds: int, file: Path | None = None) -> str:
    """Digest of all that a policy is shown: the wording, what is said of cards, and how replies are inserted.

    Raises: ConfigError as `renderer` does.
    """
    # More candidates than a shortlist has places, and cards that lack what others have.
    cards = (
        Card("One", "text.", (), 1.0, 2.0, 0.5, 1.0, {"a": 0.5, "b": 0.25, "c": 1.0}, 10.0),
        Card("Two", "", ("2",), 0.1, 0.25, 1.25, None, {"a": 0.75, "b": 0.5}),
        Card("Three", "more", (), 3.0, 15.0, None, None, {"a": 0.25, "b": 0.93, "c": 0.0}),
        Card("Four", performance={"a": 0.5, "b": 0.5}),
    )
    if template == "compact":
        question = Question("0", "d", "What?", ("x",), "test")
        notation = ShortNotation(cards, question.question, "0")
        shown = [_compact(question, cards), *map(notation.cards_on, ("a", "c", "d"))]
        shown.append(notation.heard(None, Reply("", "")))
    else:
        wording = _wording(template, file).replace("{max_rounds}", str(max_rounds))
        shown = [wording, *map(_line, cards)]
    text = json.dumps([_REPLIES[template], *shown])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
