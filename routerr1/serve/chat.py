"""`/v1/chat/completions`: the objects of OpenAI's protocol, whole and in chunks."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from routerr1.serve.answers import AboutBody, Answer, CallBody, UsageBody, call_body
from routerr1.serve.hearing import Called, Replied, Thought

_PIECES = re.compile(r"\s*\S+|\s+\Z")


class AssistantMessage(BaseModel):
    """What the router answers."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: AssistantMessage
    finish_reason: str
    logprobs: None = None


class ChatCompletion(BaseModel):
    """The response of a chat that is not streamed.

    Attributes:
        system_fingerprint: name and version of the router.
    """

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageBody
    system_fingerprint: str
    routerr1: AboutBody


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def completion(number: str, model: str, fingerprint: str, answer: Answer) -> ChatCompletion:
    """An answer as a whole."""
    return ChatCompletion(
        id=number,
        created=now(),
        model=model,
        choices=[
            Choice(message=AssistantMessage(content=answer.text), finish_reason=answer.finish)
        ],
        usage=answer.usage,
        system_fingerprint=fingerprint,
        routerr1=answer.about,
    )


class Chunks:
    """The chunks of one streamed answer, as server-sent events."""

    def __init__(self, number: str, model: str, fingerprint: str, *, usage: bool) -> None:
        self._usage = usage
        self._base: dict[str, Any] = {
            "id": number,
            "object": "chat.completion.chunk",
            "created": now(),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def start(self) -> bytes:
        """The first chunk, which names the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def of_event(self, event: Thought | Called | Replied) -> bytes:
        """A thought, a call or a reply, in words as `reasoning_content` and in figures as `routerr1`."""
        match event:
            case Thought():
                text = _thought(event.text)
                told: dict[str, Any] = {"event": "thought", "text": text, "seconds": event.seconds}
                words = f"{text}\n" if text else ""
            case Called():
                told = {
                    "event": "call",
                    "number": event.number,
                    "model": event.candidate,
                    "query": event.query,
                }
                words = f"{event.candidate}: {event.query}\n"
            case Replied():
                call: CallBody = call_body(event.reply)
                text = event.reply.text if event.reply.failure is None else "no reply"
                told = {"event": "reply", "number": event.number, "text": text, **call.model_dump()}
                words = f"{text}\n"
        return self._chunk({"reasoning_content": words}, routerr1=told)

    def words(self, text: str) -> bytes:
        """A part of the answer."""
        return self._chunk({"content": text})

    def of_answer(self, answer: Answer, sent: str = "") -> Iterator[bytes]:
        """The answer word by word, its end, and the usage if it is asked for.

        Args:
            sent: the beginning of the answer that was sent already.
        """
        for piece in _PIECES.findall(answer.text[len(sent) :]):
            yield self.words(piece)
        yield self.end(answer.finish, answer.about)
        if self._usage:
            yield self.usage(answer.usage, answer.about)
        yield DONE

    def end(self, finish: str, about: AboutBody) -> bytes:
        """The chunk that names the reason of the end."""
        return self._chunk({}, finish, routerr1=about.model_dump())

    def usage(self, usage: UsageBody, about: AboutBody) -> bytes:
        """The last chunk, which has no choice."""
        last = {**self._base, "choices": [], "usage": usage.model_dump()}
        return event({**last, "routerr1": about.model_dump()})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage: dict[str, Any] = {"usage": None} if self._usage else {}
        return event({**self._base, "choices": [choice], **usage, **more})


DONE = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def put_threadsafe(
    loop: asyncio.AbstractEventLoop, to: "asyncio.Queue[Any]", value: object
) -> None:
    """Put something into a queue of `loop`, from whatever thread."""
    loop.call_soon_threadsafe(to.put_nowait, value)


def _thought(text: str) -> str:
    """The thought of a generation, without the tags and what follows them."""
    before, _, _ = text.partition("</think>")
    return before.replace("<think>", "").strip()
