"""The endpoints that answer: `/v1/chat/completions` and `/v1/responses`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from routerr1.serve import chat, responses
from routerr1.serve.answers import Answer
from routerr1.serve.asked import Asked
from routerr1.serve.errors import ApiError
from routerr1.serve.gateway import Gateway
from routerr1.serve.hearing import Event, Wrote
from routerr1.serve.incoming import headers_of, read_question
from routerr1.serve.openapi import body_of
from routerr1.serve.passing import forwarded_body, forwarded_events
from routerr1.serve.requests import ChatRequest, ResponsesRequest
from routerr1.serve.transport import EventStream, unless_gone


def add_chat(app: FastAPI, gateway: Gateway) -> None:
    """Add `/v1/chat/completions`."""

    @app.post(
        "/v1/chat/completions",
        tags=["chat"],
        response_model=chat.ChatCompletion,
        openapi_extra=body_of(ChatRequest),
    )
    async def complete(request: Request) -> Response:
        """Answer a conversation; `stream` sends the answer as server-sent events."""
        _, body, asked = await read_question(gateway, request, ChatRequest)
        headers = headers_of(asked)
        if not gateway.is_router(asked):
            if asked.request.stream:
                return EventStream(forwarded_events(gateway, asked, body), headers=headers)
            found = await unless_gone(request, gateway.forward(asked, body))
            return JSONResponse(forwarded_body(asked, found), headers=headers)
        label = asked.engine.identity.label
        if asked.request.stream:
            options = asked.request.stream_options
            chunks = chat.Chunks(
                asked.id, asked.request.model, label,
                usage=options is not None and options.include_usage,
            )  # fmt: skip
            return EventStream(_chat_events(gateway, asked, chunks), headers=headers)
        answer = await unless_gone(request, gateway.answer(asked))
        whole = chat.completion(asked.id, asked.request.model, label, answer)
        return JSONResponse(whole.model_dump(), headers=headers)


def add_responses(app: FastAPI, gateway: Gateway) -> None:
    """Add `/v1/responses`."""

    @app.post(
        "/v1/responses",
        tags=["chat"],
        response_model=responses.ResponseBody,
        openapi_extra=body_of(ResponsesRequest),
    )
    async def respond(request: Request) -> Response:
        """Answer a text, in the form of OpenAI's Responses API."""
        asked_for, _, asked = await read_question(gateway, request, ResponsesRequest)
        if not gateway.is_router(asked):
            raise ApiError(
                400,
                "model: candidates are asked at /v1/chat/completions",
                "unsupported_model",
                "model",
            )
        number = asked.id.replace("chatcmpl-", "resp_")
        headers = headers_of(asked)
        if asked_for.stream:

            async def events() -> AsyncIterator[bytes]:
                for piece in responses.events(number, asked_for.model, await gateway.answer(asked)):
                    yield piece

            return EventStream(events(), headers=headers)
        answer = await unless_gone(request, gateway.answer(asked))
        whole = responses.response(number, asked_for.model, answer)
        return JSONResponse(whole.model_dump(), headers=headers)


async def _chat_events(gateway: Gateway, asked: Asked, chunks: chat.Chunks) -> AsyncIterator[bytes]:
    """The answer in chunks; thoughts and calls before it, if they are asked for.

    Where a reply is the answer whatever it says, its words are sent while the candidate writes.
    """
    wanted = asked.request
    live = asked.engine.answers_with_reply and wanted.limit is None and not wanted.stops
    if not wanted.include_reasoning and not live:
        answer = await gateway.answer(asked)
        yield chunks.start()
        for piece in chunks.of_answer(answer):
            yield piece
        return
    started, sent = False, ""
    async for found in _told(lambda tell: gateway.answer(asked, tell, live=live)):
        shown = isinstance(found, Wrote | Answer) or wanted.include_reasoning
        if shown and not started:
            started = True
            yield chunks.start()
        match found:
            case Wrote():
                asked.answered()
                sent += found.text
                yield chunks.words(found.text)
            case Answer():
                if not found.text.startswith(sent):
                    raise ApiError(
                        502, "the reply is not the one whose words were sent", "stream_mismatch"
                    )
                for piece in chunks.of_answer(found, sent):
                    yield piece
            case _ if shown:
                yield chunks.of_event(found)


async def _told(
    work: Callable[[Callable[[Event], None]], Awaitable[Answer]],
) -> AsyncIterator[Event | Answer]:
    """What `work` tells, from whatever thread, and its result last."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[Event | None] = asyncio.Queue()

    async def done() -> Answer:
        try:
            return await work(lambda event: chat.put_threadsafe(loop, heard, event))
        finally:
            loop.call_soon(heard.put_nowait, None)

    task = asyncio.ensure_future(done())
    try:
        while (event := await heard.get()) is not None:
            yield event
        yield await task
    finally:
        task.cancel()
        await asyncio.wait({task})
