"""The server of desks: an OpenAI-compatible front that puts notes before a model.

A request names a desk as its model. The desk looks its question up in its book, puts the passages it
found into the prompt, and asks the llama.cpp server of its model. Tokens are those that the model's
server counted, so a desk's notes are paid for.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from routerr1.errors import PoolError
from routerr1.laptop.books import Notes, passages, read_facts
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.pool.servers import Desk

NO_NOTES = "(none on this)"


class Message(BaseModel):
    """One message of a request."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """What is read of a chat request; other keys are passed over."""

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int = Field(default=32, ge=1)
    temperature: float = Field(default=0.0, ge=0)

    @property
    def question(self) -> str:
        """The last message."""
        return self.messages[-1].content


class Usage(BaseModel):
    """Tokens, as the model's server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


@dataclass(frozen=True)
class OpenDesk:
    """A desk that is ready to answer.

    Attributes:
        base_url: of the model's server.
        model: what the request calls the model; llama.cpp ignores it, Ollama and vLLM need it.
    """

    desk: Desk
    notes: Notes | None
    base_url: str
    model: str

    def found(self, question: str) -> list[str]:
        """The notes on a question."""
        book = self.desk.book
        if self.notes is None or book is None:
            return []
        return self.notes.search(question, book.notes, book.least_score)

    def refuses(self, found: Sequence[str]) -> bool:
        """True if the book holds nothing on the question, so that the model need not be asked."""
        return self.desk.book is not None and self.desk.book.least_score > 0 and not found

    def request(self, asked: ChatRequest, found: Sequence[str]) -> tuple[str, dict[str, object]]:
        """(path, body) of the call to the model's server."""
        body: dict[str, object] = {
            "model": self.model,
            "max_tokens": asked.max_tokens,
            "temperature": asked.temperature,
        }
        notes = ""
        if self.desk.book is not None:
            notes = "Notes:\n" + ("\n".join(f"- {text}" for text in found) or NO_NOTES) + "\n"
        if self.desk.form == "complete":
            prompt = f"{self.desk.examples.strip()}\n\n{notes}Question: {asked.question}\nAnswer:"
            return "/completions", {**body, "prompt": prompt, "stop": ["\n"]}
        messages = [
            {
                "role": "user",
                "content": f"{notes}Question: {asked.question}" if notes else asked.question,
            }
        ]
        if self.desk.instruction:
            messages.insert(0, {"role": "system", "content": self.desk.instruction})
        return "/chat/completions", {**body, "messages": messages}


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> str:
        return (self.text if self.message is None else self.message.content) or ""


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Usage


def build_app(
    desks: Mapping[str, OpenDesk],
    *,
    timeout_s: float = 120.0,
    transport: httpx.AsyncBaseTransport | None = None,
) -> FastAPI:
    """The application.

    Args:
        timeout_s: longest wait for a model's server.
        transport: in place of the network.
    """

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            timeout=timeout_s, transport=transport, trust_env=False
        ) as client:
            app.state.client = client
            yield

    app = FastAPI(title="routerr1 desks", docs_url=None, redoc_url=None, lifespan=opened)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        data = [{"id": name, "object": "model", "owned_by": "routerr1"} for name in sorted(desks)]
        return {"object": "list", "data": data}

    @app.post("/v1/chat/completions")
    async def complete(asked: ChatRequest) -> dict[str, object]:
        if asked.model not in desks:
            raise HTTPException(404, f"there is no desk {asked.model!r}")
        desk = desks[asked.model]
        found = await asyncio.to_thread(desk.found, asked.question)
        if desk.refuses(found):
            return _reply(asked.model, desk.desk.refusal, "stop", Usage())
        path, body = desk.request(asked, found)
        try:
            answer = await app.state.client.post(desk.base_url + path, json=body)
        except httpx.TransportError as error:
            raise HTTPException(
                503, f"the model's server does not answer ({type(error).__name__})"
            ) from None
        if answer.status_code != 200:
            raise HTTPException(502, f"the model's server answers with status {answer.status_code}")
        answered = _Completion.model_validate_json(answer.content)
        choice = answered.choices[0]
        return _reply(asked.model, choice.said.strip(), choice.finish_reason, answered.usage)

    return app


def _reply(model: str, text: str, finish_reason: str | None, usage: Usage) -> dict[str, object]:
    return {
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage.model_dump(),
    }


def open_desks(file: PoolFile, name: str) -> dict[str, OpenDesk]:
    """The desks of server `name` of a pool file, with their books.

    Raises: PoolError if the file has no such server, or its facts are missing or damaged.
    """
    if file.servers is None or name not in file.servers.desks:
        raise PoolError(f"{file.path}: servers.desks has no {name!r}")
    servers = file.servers
    server = servers.desks[name]
    facts = read_facts(file.path.parent / server.facts)
    return {
        key: OpenDesk(
            desk,
            Notes(passages(desk.book, facts)) if desk.book else None,
            file.endpoints[desk.model].base_url,
            servers.model_id(desk.model),
        )
        for key, desk in server.desks.items()
    }


def main() -> None:
    """Entry point of the process: `python -m routerr1.laptop.desks POOL_FILE SERVER`."""
    import uvicorn

    path, name = sys.argv[1:]
    file = read_pool_file(Path(path), max_reply_tokens=1)
    address = urlsplit(file.endpoints[name].base_url)
    assert address.hostname is not None  # Endpoint sees to it
    uvicorn.run(
        build_app(open_desks(file, name)),
        host=address.hostname,
        port=address.port or 80,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
