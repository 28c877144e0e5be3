"""A response body as choices, counts and an error, whatever the server's shape.

The shapes are OpenAI's chat completions, what calls itself compatible with them, and the forms of their own
that Ollama, Bedrock, Anthropic, Gemini, Cloudflare and TGI send through thin gateways.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from routerr1.pool.wire import ends_in_order, is_event_stream, parse_text, parse_values, read_events

_MOST_CHOICES = 128  # OpenAI's own limit of `n`
_DEEPEST = 8  # parts within parts; no server nests more than three
_WRAPPERS = ("data", "result", "response", "body")  # of gateways around the body
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "reasoning_details", "thinking_blocks")  # fmt: skip
_IN_PART = ("thinking", "reasoning", "reasoning_content", "reasoningContent", "reasoningText")
_TEXT_IN_PART = ("text", "content", "value", "refusal", "summary", "parts")
_COMPLAINTS = ("message", "msg", "error_msg", "Message")
_CODES = ("code", "status", "status_code")


@dataclass(slots=True)
class Choice:
    """One choice, put together from a message or from the deltas of a stream.

    Attributes:
        finish: why the server stopped, in lower case.
    """

    said: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    finish: str | None = None
    calls_tool: bool = False

    def add(self, message: Mapping[str, object]) -> None:
        """A message, or one delta of it."""
        for said, thought in _parts(message.get("content")):
            self.said.append(said)
            self.thought.append(thought)
        audio = message.get("audio")
        if message.get("content") is None and isinstance(audio, Mapping):
            self.said += [said for said, _ in _parts(audio.get("transcript"))]
        for key in _THOUGHTS:
            if found := "".join(thought or said for said, thought in _parts(message.get(key))):
                self.thought.append(found)
                break  # servers that rename the field send it under both names
        self.refusal += [said for said, _ in _parts(message.get("refusal"))]
        self.calls_tool |= bool(message.get("tool_calls") or message.get("function_call"))


@dataclass(slots=True)
class Body:
    """All that a body says.

    Attributes:
        usage: as the server sends it.
        error: the error object, or its words; None if there is none.
        streamed: it is a stream of events, of JSON lines or of the chunks in a list.
        readable: it has a shape in which text can be.
        whole: false for a stream of events that ends before its last event.
    """

    usage: object = None
    error: object = None
    streamed: bool = False
    readable: bool = False
    whole: bool = True
    _choices: dict[tuple[int, int], Choice] = field(default_factory=dict)
    _complaint: object = None

    @property
    def choices(self) -> tuple[Choice, ...]:
        """In the order of their index."""
        return tuple(choice for _, choice in sorted(self._choices.items()))

    def add(self, body: Mapping[str, object]) -> None:
        """One body, or one event of a stream."""
        body = _unwrapped(body)
        self.usage = _usage(body) or self.usage
        self.error = self.error or _error(body)
        choices = _choices(body)
        if choices is None:
            # Not yet an error: a stream may hold events that only inform.
            if any(body.get(key) for key in _COMPLAINTS):
                self._complaint = body
            return
        self.readable = True
        for place, choice in enumerate(choices[:_MOST_CHOICES]):
            if isinstance(choice, str):
                choice = {"message": choice}
            if isinstance(choice, Mapping):
                self._add_choice(choice, place)

    def close(self) -> "Body":
        """End the stream; without text, a complaint is an error."""
        if not self.readable:
            self.error = self.error or self._complaint
        return self

    def _add_choice(self, choice: Mapping[str, object], place: int) -> None:
        index, delta = choice.get("index"), choice.get("delta")
        index = index if isinstance(index, int) else place
        # Some servers give every choice of a body the index 0. The deltas of a stream belong together,
        # and so does the last chunk, which has no delta in some streams.
        streamed = isinstance(delta, Mapping) or (index, -1) in self._choices
        key = (index, -1 if streamed else place)
        if key not in self._choices and len(self._choices) >= _MOST_CHOICES:
            return
        found = self._choices.setdefault(key, Choice())
        self.error = self.error or choice.get("error")
        message = choice.get("message")
        if isinstance(delta, Mapping):
            found.add(delta)
        if streamed and any(found.said):
            message = None  # all that was said so far, once more
        if isinstance(message, str):
            message = {"content": message}
        if isinstance(message, Mapping):
            found.add(message)
        text = choice.get("text")
        if isinstance(text, str) and ("message" not in choice or not any(found.said)):
            found.said.append(text)
        finish = choice.get("finish_reason") or choice.get("done_reason")
        if isinstance(finish, str):
            found.finish = finish.lower()


def read_body(content: bytes) -> Body:
    """What a body says; never raises, whatever the bytes are."""
    body = Body(streamed=is_event_stream(content))
    if body.streamed:
        for event in read_events(content):
            body.add(event)
        finished = any(choice.finish for choice in body.choices)
        body.whole = finished or ends_in_order(content)
        return body.close()
    for number, value in enumerate(_chunks(content)):
        body.streamed = number > 0
        body.add(value)
    return body.close()


def _chunks(content: bytes) -> Iterator[Mapping[str, object]]:
    """The objects of a body that is no event stream: one, one a line, or those of a list."""
    for value in parse_values(content):
        if isinstance(value, str):  # written out twice
            value = parse_text(value)
        # Gemini's endpoint sends its chunks, and its errors, in a list. TGI's list has whole replies.
        listed = value if isinstance(value, list) else [value]
        for place, chunk in enumerate(listed):
            if isinstance(chunk, Mapping) and not (place and "generated_text" in chunk):
                yield chunk


def _unwrapped(body: Mapping[str, object]) -> Mapping[str, object]:
    for key in _WRAPPERS:
        inner = body.get(key)
        if isinstance(inner, str) and "choices" not in body and inner.lstrip().startswith("{"):
            inner = parse_text(inner)  # of a gateway that passes the body on as a text
        if isinstance(inner, Mapping) and _choices(inner) is not None:
            return inner
    return body


def _choices(body: Mapping[str, object]) -> Sequence[object] | None:
    """The choices of any shape as those of a chat completion; None if the body has no known shape."""
    choices, output, candidates = body.get("choices"), body.get("output"), body.get("candidates")
    if isinstance(choices, Mapping):
        return list(choices.values())
    if isinstance(choices, list):
        return choices
    if isinstance(body.get("message"), Mapping):  # Ollama's own form
        return [body]
    if isinstance(output, Mapping) and isinstance(output.get("message"), Mapping):  # Bedrock's
        return [{**output, "finish_reason": body.get("stopReason")}]
    if isinstance(output, list):  # OpenAI's responses
        return [_choice(output, body.get("status"))]
    if body.get("type") == "message" and "content" in body:  # Anthropic's
        return [{"message": body, "finish_reason": body.get("stop_reason")}]
    if isinstance(candidates, list):  # Gemini's
        return [
            _choice(_of(each.get("content"), "parts"), each.get("finishReason"))
            for each in candidates
            if isinstance(each, Mapping)
        ]
    for key in ("response", "generated_text"):  # Ollama's `generate` and Cloudflare's; TGI's
        if isinstance(body.get(key), str):
            finish = body.get("done_reason") or _of(body.get("details"), "finish_reason")
            return [_choice(body[key], finish)]
    return None


def _choice(content: object, finish: object) -> Mapping[str, object]:
    return {"message": {"content": content}, "finish_reason": finish}


def _of(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else None


def _usage(body: Mapping[str, object]) -> object:
    if "eval_count" in body:  # Ollama's own forms
        return body
    found = body.get("usage") or body.get("usageMetadata") or _of(body.get("x_groq"), "usage")
    if found:
        return found
    choices = body.get("choices")
    last = choices[-1] if isinstance(choices, list) and choices else None
    return _of(last, "usage") or _of(_of(last, "message"), "usage")  # Moonshot's


def _error(body: Mapping[str, object]) -> object:
    """The error object of a body, with a code that is beside it; None if it is no error."""
    error = body.get("error") or body.get("errors") or body.get("fault")
    if isinstance(error, str):
        kind = body.get("error_type")
        error = parse_text(error) or {
            "message": error,
            "type": f"{kind} {error}" if kind else error,
        }
    if isinstance(error, Mapping) and error:
        return {key: body[key] for key in _CODES if key in body} | {**error}
    if error:
        return error
    if body.get("object") == "error" or (body.get("type") == "error" and "message" in body):
        return body
    state = body.get("base_resp")
    if isinstance(state, Mapping) and state.get("status_code") and not body.get("choices"):
        return {"message": state.get("status_msg"), "type": state.get("status_msg")}  # MiniMax's
    if "choices" not in body and "detail" in body:
        return body["detail"]
    return None


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
    for key in _IN_PART:
        if key in part:
            inner = _parts(part[key], depth + 1)
            yield "", "".join(said + thought for said, thought in inner)
            return
    text = next((part[key] for key in _TEXT_IN_PART if key in part), None)
    thinks = part.get("type") in ("thinking", "reasoning", "thought") or part.get("thought") is True
    for said, thought in _parts(text, depth + 1):
        yield ("", said + thought) if thinks else (said, thought)
