"""A response body as text, tokens and money: the one place that knows the shapes that servers send.

The shapes are those of OpenAI's chat completions and of what calls itself compatible with them. A whole
text is never lost for its bookkeeping: what is missing is estimated by length, and a note says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from routerr1.pool.failures import TryError, failure_of, status_of, words_of
from routerr1.pool.thoughts import split_thoughts
from routerr1.pool.usage import estimated, read_usage, reported_cost_usd
from routerr1.pool.wire import clean, is_event_stream, parse_values, read_events
from routerr1.types import Usage

Thoughts = Literal["drop", "keep"]

_LENGTH = frozenset({"length", "max_tokens", "MAX_TOKENS"})
_FILTERED = frozenset({"content_filter", "content_filtered", "guardrail_intervened", "SAFETY"})
_ENDED = frozenset(
    {"stop", "length", "completed", "end_turn", "eos", "max_tokens", "stop_sequence", "eos_token"}
)
_NOTES = {
    "length": "cut at the token limit",
    "filtered": "cut by the server's content filter",
}
_MOST_CHOICES = 128  # OpenAI's own limit of `n`
_DEEPEST = 8  # parts within parts; no server nests more than three
_WRAPPERS = ("data", "result", "response")  # of gateways around the body
_UNKNOWN_STATUS = 502  # an error without a code: the provider behind the server failed


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply that can be used.

    Attributes:
        usage: tokens to be billed, estimated where the server reports none.
        cost_usd: what the server says the call costs; None where it does not say.
        thoughts: what the model thought, where the server says it; not part of `text` unless asked for.
        notes: what a reader of the record must know.
    """

    text: str
    usage: Usage
    cost_usd: float | None = None
    thoughts: str = ""
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Choice:
    """One choice, put together from a message or from the deltas of a stream."""

    said: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    finish: str | None = None
    calls_tool: bool = False

    def add(self, message: Mapping[str, object]) -> None:
        for said, thought in _parts(message.get("content")):
            self.said.append(said)
            self.thought.append(thought)
        for key in ("reasoning_content", "reasoning", "thinking"):
            if found := "".join(thought or said for said, thought in _parts(message.get(key))):
                self.thought.append(found)
                break  # servers that rename the field send it under both names
        self.refusal += [said for said, _ in _parts(message.get("refusal"))]
        self.calls_tool |= bool(message.get("tool_calls") or message.get("function_call"))


@dataclass(slots=True)
class _Body:
    choices: dict[int, _Choice] = field(default_factory=dict)
    usage: object = None
    error: object = None
    streamed: bool = False
    readable: bool = False

    def add(self, body: Mapping[str, object]) -> None:
        """One body, or one event of a stream."""
        for key in _WRAPPERS:
            inner = body.get(key)
            if isinstance(inner, Mapping) and "choices" in inner:
                body = inner
        self.usage = body.get("usage") or self.usage
        self.error = self.error or _error(body)
        choices = body.get("choices")
        output = body.get("output")
        if isinstance(choices, Mapping):
            choices = list(choices.values())
        if isinstance(choices, list):
            self.readable = True
            for place, choice in enumerate(choices[:_MOST_CHOICES]):
                if isinstance(choice, Mapping):
                    self._add_choice(choice, place)
        elif isinstance(body.get("message"), Mapping):  # Ollama's own form
            self.readable = True
            self.usage = body if "eval_count" in body else self.usage or body
            self._add_choice(body, 0)
        elif isinstance(output, Mapping) and isinstance(
            output.get("message"), Mapping
        ):  # Bedrock's
            self.readable = True
            self._add_choice({**output, "finish_reason": body.get("stopReason")}, 0)
        elif isinstance(output, list):  # OpenAI's responses
            self.readable = True
            self._add_choice(
                {"message": {"content": output}, "finish_reason": body.get("status")}, 0
            )
        elif body.get("type") == "message" and "content" in body:  # Anthropic's own
            self.readable = True
            self._add_choice({"message": body, "finish_reason": body.get("stop_reason")}, 0)

    def _add_choice(self, choice: Mapping[str, object], place: int) -> None:
        index = choice.get("index")
        index = index if isinstance(index, int) else place
        if index not in self.choices and len(self.choices) >= _MOST_CHOICES:
            return
        found = self.choices.setdefault(index, _Choice())
        self.error = self.error or choice.get("error")
        for key in ("message", "delta"):
            if isinstance(message := choice.get(key), Mapping):
                found.add(message)
        text = choice.get("text")
        if isinstance(text, str) and ("message" not in choice or not any(found.said)):
            found.said.append(text)
        finish = choice.get("finish_reason") or choice.get("done_reason")
        if isinstance(finish, str):
            found.finish = finish


def read_completion(
    content: bytes,
    query: str,
    *,
    headers: Mapping[str, str] | None = None,
    thoughts: Thoughts = "drop",
) -> Completion:
    """The first choice with text of a chat completion.

    Args:
        query: what was asked; its tokens are estimated if the server does not report them.
        headers: of the response, names in lower case; some gateways state the price there.
        thoughts: whether the thoughts become part of the text.

    Raises: TryError if there is no text, with what the server reports about tokens and price.
    """
    body = _read(content)
    reported = read_usage(body.usage)
    cost = reported_cost_usd(body.usage, headers or {})
    spoken = [
        (choice, *_text_and_thoughts(choice, thoughts))
        for _, choice in sorted(body.choices.items())
    ]
    found = next((entry for entry in spoken if entry[1].strip()), None)
    if body.error and (found is None or found[0].finish not in _ENDED):
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
    if choice.finish in _LENGTH:
        notes.append(_NOTES["length"])
    elif choice.finish in _FILTERED:
        notes.append(_NOTES["filtered"])
    if body.streamed:
        notes.append("read from an event stream that was not asked for")
    return Completion(text, usage, cost, thought, tuple(notes))


def read_forwarded(content: bytes, query: str, headers: Mapping[str, str]) -> Completion:
    """The bill of a completion that is passed on as it is; it may hold no text, only calls of tools.

    Raises: TryError if the body is an error or no completion.
    """
    body = _read(content)
    reported = read_usage(body.usage)
    cost = reported_cost_usd(body.usage, headers)
    if body.error:
        status = status_of(body.error) or _UNKNOWN_STATUS
        raise failure_of(status, words_of(body.error), usage=reported.whole, cost_usd=cost)
    if not body.readable:
        raise TryError("the body is no chat completion", said=_beginning(content), billable=True)
    said = "".join(part for choice in body.choices.values() for part in choice.said)
    thought = "".join(part for choice in body.choices.values() for part in choice.thought)
    usage, notes = estimated(reported, query, said, thought)
    return Completion(said, usage, cost, thought, tuple(notes))


def _read(content: bytes) -> _Body:
    body = _Body(streamed=is_event_stream(content))
    if body.streamed:
        for event in read_events(content):
            body.add(event)
        return body
    for number, value in enumerate(parse_values(content)):
        if isinstance(value, list) and value:  # Gemini's endpoint wraps its errors in a list
            value = value[0]
        if isinstance(value, Mapping):
            body.streamed = number > 0
            body.add(value)
    return body


def _error(body: Mapping[str, object]) -> object:
    """The error object of a body; None if it is no error."""
    if error := body.get("error") or body.get("errors"):
        return error
    if body.get("object") == "error" or (body.get("type") == "error" and "message" in body):
        return body
    if "choices" not in body and "detail" in body:
        return body["detail"]
    return None


def _text_and_thoughts(choice: _Choice, keep: Thoughts) -> tuple[str, str]:
    """Both as plain text; `keep` puts the thoughts before the reply, without their marks."""
    said, inside = split_thoughts(clean("".join(choice.said)), cut=choice.finish in _LENGTH)
    thought = "\n".join(filter(str.strip, (clean("".join(choice.thought)).strip(), inside)))
    if not said.strip():
        said = clean("".join(choice.refusal))
    if keep == "keep" and thought:
        said = f"{thought}\n\n{said}" if said.strip() else thought
    return said, thought


def _why_empty(choices: Sequence[_Choice]) -> str:
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


def _parts(content: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Text and thoughts of a content: a string, or a list of parts that may hold parts."""
    if isinstance(content, str):
        yield content, ""
    elif isinstance(content, int | float) and not isinstance(content, bool) and not depth:
        yield str(content), ""
    elif isinstance(content, list) and depth < _DEEPEST:
        for part in content:
            yield from _parts(part, depth + 1)
    elif isinstance(content, Mapping) and depth < _DEEPEST:
        yield from _part(content, depth)


def _part(part: Mapping[str, object], depth: int) -> Iterator[tuple[str, str]]:
    for key in ("thinking", "reasoning", "reasoning_content", "reasoningContent", "reasoningText"):
        if key in part:
            inner = _parts(part[key], depth + 1)
            yield "", "".join(said + thought for said, thought in inner)
            return
    text = part.get("text", part.get("content", part.get("value")))
    thinks = part.get("type") in ("thinking", "reasoning", "thought") or part.get("thought") is True
    for said, thought in _parts(text, depth + 1):
        yield ("", said + thought) if thinks else (said, thought)


def _beginning(content: bytes) -> str:
    return words_of(None, content[:5000].decode("utf-8", "replace"))
