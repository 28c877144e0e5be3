"""The one renderer of prompts: cards and question in, text out.

Two templates. `full` describes the protocol in words, for policies that follow instructions. `compact`
is for small policies that learn the protocol from examples: prices and latencies, then a list per topic
of who is how good at it, then the question. Both show name, price, latency and measured performance.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Literal, Protocol

from routerr1.types import Card, Question

Template = Literal["compact", "full"]

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


class Renderer(Protocol):
    """Cards and question to the policy's prompt."""

    def __call__(self, question: Question, cards: Sequence[Card]) -> str:
        """The text before the policy's first token."""
        ...


def renderer(template: Template, max_rounds: int) -> Renderer:
    """The renderer of `template`; `max_rounds` is told to policies that read instructions."""
    return partial(_render, template=template, max_rounds=max_rounds)


def _render(
    question: Question, cards: Sequence[Card], *, template: Template, max_rounds: int
) -> str:
    if template == "compact":
        topics = sorted({topic for card in cards for topic in card.performance})
        lists = [*map(_compact_price, cards), *(shortlist(topic, cards) for topic in topics)]
        return f"{';'.join(lists)}\nQuestion: {question.question}\n"
    lines = "\n".join(map(_full_line, cards))
    return _FULL.format(cards=lines, question=question.question, max_rounds=max_rounds)


def shortlist(topic: str, cards: Sequence[Card]) -> str:
    """The topic and its three best candidates, each behind its percent, in the order of `cards`.

    The compact prompt holds one per topic; small policies quote it in their thoughts before they choose.
    """
    able = [card for card in cards if topic in card.performance]
    best = sorted(able, key=lambda card: -card.performance[topic])[:3]
    figures = [f"{_percent(card.performance[topic])} {card.name}" for card in able if card in best]
    return " ".join(["", topic, *figures])


def _compact_price(card: Card) -> str:
    """Name, cents per million reply tokens, median milliseconds."""
    cents = round(card.completion_usd_per_mtok * 100)
    latency = [] if card.latency_s is None else [f"{round(card.latency_s, 1) * 1000:.0f}ms"]
    return " ".join(["", card.name, f"{cents}c", *latency])


def _full_line(card: Card) -> str:
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


def prompt_hash(template: Template, max_rounds: int) -> str:
    """Digest of what the renderer makes of a fixed question and card; changes when its wording does."""
    card = Card("Name", "text", (), 1.0, 2.0, 0.5, 1.0, {"a": 0.5, "b": 0.25}, 10.0)
    text = renderer(template, max_rounds)(Question("0", "d", "What?", ("x",), "test"), [card])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
