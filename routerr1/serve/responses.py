"""`/v1/responses` for text: the objects and events of OpenAI's newer protocol."""

import json
import time
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from routerr1.serve.answers import AboutBody, Answer, UsageBody


class OutputText(BaseModel):
    """A text of the answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[str] = []


class OutputMessage(BaseModel):
    """The answer."""

    type: Literal["message"] = "message"
    id: str
    status: str
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class ResponseUsage(BaseModel):
    """See `UsageBody`, in the words of this endpoint."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost: float
    input_tokens_details: dict[str, int]
    output_tokens_details: dict[str, int]


class Incomplete(BaseModel):
    """Why an answer is cut."""

    reason: str


class ResponseBody(BaseModel):
    """The response as a whole."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: str
    error: None = None
    incomplete_details: Incomplete | None = None
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool = False
    tool_choice: str = "none"
    tools: list[str] = []
    usage: ResponseUsage | None = None
    routerr1: AboutBody | None = None


def response(number: str, model: str, answer: Answer) -> ResponseBody:
    """An answer as a whole."""
    whole = answer.finish == "stop"
    return ResponseBody(
        id=number,
        created_at=int(time.time()),
        status="completed" if whole else "incomplete",
        incomplete_details=None if whole else Incomplete(reason="max_output_tokens"),
        model=model,
        output=[
            OutputMessage(
                id=number.replace("resp_", "msg_"),
                status="completed" if whole else "incomplete",
                content=[OutputText(text=answer.text)],
            )
        ],
        usage=_usage(answer.usage),
        routerr1=answer.about,
    )


def events(number: str, model: str, answer: Answer) -> Iterator[bytes]:
    """The events of a streamed answer."""
    done = response(number, model, answer)
    (message,) = done.output
    begun = done.model_copy(
        update={"status": "in_progress", "output": [], "usage": None, "routerr1": None}
    )
    empty = {**message.model_dump(), "status": "in_progress", "content": []}
    place: dict[str, Any] = {"item_id": message.id, "output_index": 0, "content_index": 0}
    part = message.content[0].model_dump()
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun.model_dump()}),
        ("response.in_progress", {"response": begun.model_dump()}),
        ("response.output_item.added", {"output_index": 0, "item": empty}),
        ("response.content_part.added", {**place, "part": {**part, "text": ""}}),
        ("response.output_text.delta", {**place, "delta": answer.text, "logprobs": []}),
        ("response.output_text.done", {**place, "text": answer.text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": message.model_dump()}),
        (f"response.{done.status}", {"response": done.model_dump()}),
    ]
    for sequence, (kind, body) in enumerate(told):
        value = json.dumps({"type": kind, "sequence_number": sequence, **body}, ensure_ascii=False)
        yield f"event: {kind}\ndata: {value}\n\n".encode()


def _usage(usage: UsageBody) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cost=usage.cost,
        input_tokens_details=usage.prompt_tokens_details.model_dump(),
        output_tokens_details=usage.completion_tokens_details.model_dump(),
    )
