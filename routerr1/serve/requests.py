"""What clients send: the parts of OpenAI's requests that the gateway reads."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from routerr1.answers.verifiers import verifiers
from routerr1.data.conversation import as_question
from routerr1.pool.wire import clean
from routerr1.serve.errors import ApiError, invalid

Spend = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
_MOST_DEPTH = 32  # of the request's JSON; deeper ones are made to harm


class StreamOptions(BaseModel):
    """`include_usage` adds a last chunk with the usage of the whole request."""

    include_usage: bool = False

    @field_validator("include_usage", mode="before")
    @classmethod
    def _null_is_false(cls, value: object) -> object:
        return False if value is None else value


class Message(BaseModel):
    """One message of a conversation; other fields are read where the request is passed through."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, JsonValue]] | None = None

    @property
    def text(self) -> str:
        """The text of the message.

        Raises: ApiError for an image, a sound or a file.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        texts: list[str] = []
        for part in self.content:
            if part.get("type") not in ("text", "input_text", "output_text"):
                raise invalid(
                    f"the router reads text only, and a message holds {part.get('type')!r}; ask a "
                    "candidate by name for it",
                    "messages",
                    "unsupported_content",
                )
            texts.append(str(part.get("text") or ""))
        return "\n".join(texts)


class Common(BaseModel):
    """Fields that both endpoints have; others are accepted, and heeded where a request is passed through.

    Attributes:
        spend: what a call may cost, from 0 to 10; see `notation.affordable`.
        include_reasoning: stream thoughts and calls as they happen.
    """

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=512)
    stream: bool = False
    user: str | None = Field(default=None, max_length=512)
    metadata: dict[str, JsonValue] | None = None
    spend: Spend | None = None
    include_reasoning: bool = False
    temperature: float | None = Field(default=None, ge=0, le=2)

    @field_validator("stream", "include_reasoning", mode="before")
    @classmethod
    def _null_is_false(cls, value: object) -> object:
        return False if value is None else value


class ChatRequest(Common):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    n: int | None = Field(default=None, ge=1)

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        """Texts at which the answer is cut."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in found if stop]


_OF_BOTH = ("tools", "tool_choice", "top_logprobs")  # fields that mean the same in both endpoints
_NOT_KEPT = {
    "previous_response_id": "no response is kept to go on from; send the whole conversation as input",
    "conversation": "no conversation is kept; send the whole conversation as input",
    "prompt": "no prompts are kept; send the text as input",
    "background": "the answer comes with the response; leave it out",
}


class ResponsesRequest(Common):
    """`POST /v1/responses`, for text."""

    input: str | list[Message] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)

    @field_validator("input", mode="before")
    @classmethod
    def _without_reasoning(cls, value: object) -> object:
        """Clients send back the thoughts of earlier answers, which say nothing to a router."""
        if not isinstance(value, list):
            return value
        return [
            item
            for item in value
            if not (isinstance(item, dict) and item.get("type") == "reasoning")
        ]

    def as_chat(self) -> ChatRequest:
        """The same request as a chat.

        Raises: ApiError for a field that asks for what the gateway does not keep.
        """
        spoken = self.input
        messages = [Message(role="user", content=spoken)] if isinstance(spoken, str) else spoken
        if self.instructions:
            messages = [Message(role="system", content=self.instructions), *messages]
        extra = self.model_extra or {}
        for name in _NOT_KEPT:
            if extra.get(name):
                raise invalid(f"{name}: {_NOT_KEPT[name]}", name, "unsupported_parameter")
        shape = extra.get("text")
        return ChatRequest(
            response_format=shape.get("format") if isinstance(shape, dict) else None,
            **{name: getattr(self, name) for name in Common.model_fields},
            **{name: extra[name] for name in _OF_BOTH if name in extra},
            messages=messages,
            max_tokens=self.max_output_tokens,
        )


_REFUSED = {
    "tools": "tools",
    "functions": "functions",
    "logprobs": "log probabilities",
    "top_logprobs": "log probabilities",
    "audio": "audio",
    "response_format": "a response format",
}


def refuse_unsupported(request: ChatRequest) -> None:
    """Refuse what a router cannot do; a request that is passed through may hold it.

    Raises: ApiError naming the field.
    """
    extra = request.model_extra or {}
    for name, words in _REFUSED.items():
        value = extra.get(name)
        plain = isinstance(value, dict) and value.get("type") == "text"
        if value and not plain and not (name == "tools" and extra.get("tool_choice") == "none"):
            raise invalid(
                f"{name}: the router does not take {words}; ask a candidate by name for it",
                name,
                "unsupported_parameter",
            )
    if (request.n or 1) != 1:
        raise invalid("n: the router gives one answer", "n", "unsupported_parameter")


def question_of(messages: list[Message]) -> str:
    """The conversation as one question.

    A single message of a user stays as it is; otherwise each message is a line behind its role.

    Raises: ApiError if nothing is asked, or not in text.
    """
    spoken = [(message.role, clean(message.text).strip()) for message in messages]
    asked = [text for role, text in spoken if role == "user"]
    if not asked or not _is_visible(asked[-1]):
        raise invalid(
            "messages: the last message of the user is empty", "messages", "empty_question"
        )
    said = [(role, text) for role, text in spoken if text]
    return as_question(said)


def _is_visible(text: str) -> bool:
    r"""Whether anything of a text is seen: marks of width 0 and control characters are not.

    >>> _is_visible("a"), _is_visible(" \u200b\ufeff\n")
    (True, False)
    """
    return any(char.isprintable() and not char.isspace() for char in text)


def budget_header(value: str | None) -> float | None:
    """The amount of X-Budget-USD.

    Raises: ApiError if it is no amount.
    """
    if value is None:
        return None
    try:
        amount = float(value)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < 1e6:
        raise invalid("X-Budget-USD: must be an amount of US dollars, at least 0", "X-Budget-USD")
    return amount


def refuse_deep(value: object) -> None:
    """Refuse JSON that is nested deeper than any request needs.

    Raises: ApiError.
    """
    layer = [value]
    for _ in range(_MOST_DEPTH):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return
    raise ApiError(400, "the request is nested too deeply", "invalid_json")


def metadata_of(request: ChatRequest) -> dict[str, JsonValue]:
    """What the question carries beside its text."""
    found: dict[str, JsonValue] = {"spend": request.spend}
    task = (request.metadata or {}).get("task")
    if isinstance(task, str) and task in verifiers():
        found["task"] = task
    if len(request.messages) > 1:
        found["messages"] = [
            {"role": message.role, "content": message.text} for message in request.messages
        ]
    return found
