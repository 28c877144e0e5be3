"""A response body as text, tokens and money, or as the failure that it reports.

`bodies.py` finds what a body says in any shape; here it becomes a reply or a failure. A whole text is
never lost for its bookkeeping: what is missing is estimated by length, and a note says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from routerr1.pool.bodies import Choice, read_body
from routerr1.pool.failures import TryError, failure_of, status_of, words_of
from routerr1.pool.thoughts import split_thoughts
from routerr1.pool.usage import estimated, read_usage, reported_cost_usd
from routerr1.pool.wire import clean
from routerr1.types import Usage

Thoughts = Literal["drop", "keep"]

# Why servers stop, in lower case.
_LENGTH = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
_FILTERED = frozenset(
    {"content_filter", "content_filtered", "guardrail_intervened", "safety", "recitation"}
)
_INTERRUPTED = frozenset({"insufficient_system_resource", "incomplete", "abort", "cancelled"})
_BROKEN = frozenset({"error", "failed", "malformed_function_call"})
_ENDED = _LENGTH | {
    "stop", "complete", "completed", "end_turn", "eos", "stop_sequence", "eos_token", "eos_token_id"
}  # fmt: skip
_NOTES = (
    (_LENGTH, "cut at the token limit"),
    (_FILTERED, "cut by the server's content filter"),
    (_INTERRUPTED, "interrupted by the server"),
)
_UNKNOWN_STATUS = 502  # an error without a code: the provider behind the server failed


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply that can be used.

    Attributes:
        usage: tokens to be billed, estimated where the server reports none.
        cost_usd: what the server says the call costs; None where it does not say.
        thoughts: what the model thought, where the server says it; not part of `text` unless asked for.
        plain: the text is what the model said, as it said it: it held no thoughts, and none were added.
        notes: what a reader of the record must know.
    """

    text: str
    usage: Usage
    cost_usd: float | None = None
    thoughts: str = ""
    plain: bool = True
    notes: tuple[str, ...] = ()


def read_completion(
    content: bytes,
    query: str,
    *,
    headers: Mapping[str, str] | None = None,
    thoughts: Thoughts = "drop",
    stream: bool = False,
) -> Completion:
    """The first choice with text of a chat completion.

    Args:
        query: what was asked; its tokens are estimated if the server does not report them.
        headers: of the response, names in lower case; some gateways state the price there.
        thoughts: whether the thoughts become part of the text.
        stream: one was asked for.

    Raises: TryError if there is no text, with what the server reports about tokens and price.
    """
    body = read_body(content)
    reported = read_usage(body.usage)
    cost = reported_cost_usd(body.usage, headers or {})
    spoken = [(choice, *_text_and_thoughts(choice, thoughts)) for choice in body.choices]
    found = next((entry for entry in spoken if entry[1].strip()), None)
    broken = any(choice.finish in _BROKEN for choice in body.choices)
    if (body.error or broken) and (found is None or found[0].finish not in _ENDED):
        # What was already said is billed, whether its usage is known or not.
        partial = found is not None and reported.whole is None
        status = status_of(body.error) or _UNKNOWN_STATUS
        raise failure_of(
            status, words_of(body.error), usage=reported.whole, cost_usd=cost, billable=partial
        )
    if not body.readable:
        raise TryError("the body is no chat completion", said=_beginning(content), billable=True)
    if found is None:
        raise TryError(
            _why_empty([choice for choice, _, _ in spoken]),
            usage=reported.whole,
            cost_usd=cost,
            billable=reported.whole is None,
        )
    choice, text, thought = found
    usage, notes = estimated(reported, query, text, thought if thoughts == "drop" else "")
    notes += [note for finishes, note in _NOTES if choice.finish in finishes]
    if body.streamed and not stream:
        notes.append("read from an event stream that was not asked for")
    if not body.whole:
        notes.append("the event stream ended before its last event")
    plain = text == clean("".join(choice.said))
    return Completion(text, usage, cost, thought, plain, tuple(notes))


def read_forwarded(content: bytes, query: str, headers: Mapping[str, str]) -> Completion:
    """The bill of a completion that is passed on as it is; it may hold no text, only calls of tools.

    Raises: TryError if the body is an error or no completion.
    """
    body = read_body(content)
    reported = read_usage(body.usage)
    cost = reported_cost_usd(body.usage, headers)
    if body.error:
        status = status_of(body.error) or _UNKNOWN_STATUS
        raise failure_of(status, words_of(body.error), usage=reported.whole, cost_usd=cost)
    if not body.readable:
        raise TryError("the body is no chat completion", said=_beginning(content), billable=True)
    said = "".join(part for choice in body.choices for part in choice.said)
    thought = "".join(part for choice in body.choices for part in choice.thought)
    usage, notes = estimated(reported, query, said, thought)
    return Completion(said, usage, cost, thought, notes=tuple(notes))


def _text_and_thoughts(choice: Choice, keep: Thoughts) -> tuple[str, str]:
    """Both as plain text; `keep` puts the thoughts before the reply, without their marks."""
    said, inside = split_thoughts(clean("".join(choice.said)), cut=choice.finish in _LENGTH)
    thought = "\n".join(filter(str.strip, (clean("".join(choice.thought)).strip(), inside)))
    if not said.strip():
        said = clean("".join(choice.refusal))
    if keep == "keep" and thought:
        said = f"{thought}\n\n{said}" if said.strip() else thought
    return said, thought


def _why_empty(choices: Sequence[Choice]) -> str:
    if any(choice.calls_tool for choice in choices):
        return "the reply calls a tool and says nothing"
    if any(choice.finish in _FILTERED for choice in choices):
        return "the server's content filter left nothing of the reply"
    thought = any(
        "".join(choice.thought).strip() or "".join(choice.said).strip() for choice in choices
    )
    if thought and any(choice.finish in _LENGTH for choice in choices):
        return "the thoughts took all tokens of the reply; raise max_reply_tokens"
    if thought:
        return "the reply holds thoughts alone; `thoughts: keep` takes them for the reply"
    return "the reply is empty"


def _beginning(content: bytes) -> str:
    return words_of(None, content[:5000].decode("utf-8", "replace"))
