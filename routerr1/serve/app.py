"""The gateway's HTTP interface: OpenAI's endpoints, health, metrics and the page."""

import asyncio
import json
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from routerr1.pool.forward import Forwarded
from routerr1.registry.announce import HEADER, PATH, SECRET, is_signed
from routerr1.serve import chat, responses
from routerr1.serve.answers import Answer, about_of, call_body
from routerr1.serve.champion import Watch
from routerr1.serve.errors import ApiError, ErrorResponse, of_validation
from routerr1.serve.feedback import FeedbackRequest, FeedbackResponse, chat_id, take
from routerr1.serve.gateway import Asked, Gateway
from routerr1.serve.hearing import Event
from routerr1.serve.requests import ChatRequest, ResponsesRequest, budget_header
from routerr1.serve.store import Key
from routerr1.serve.transport import (
    ClientGone,
    EventStream,
    Guard,
    error_response,
    read_body,
    read_json,
    unless_gone,
)
from routerr1.serve.webpage import add_description, add_page

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_MOST_HOOK_BYTES = 10_000
_LAYOUT = "Errors have the form of OpenAI's protocol: `{error: {message, type, param, code}}`."


class Model(BaseModel):
    """One model that can be asked."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str


class ModelList(BaseModel):
    """The router and the candidates that may be asked by name."""

    object: str = "list"
    data: list[Model]


class Health(BaseModel):
    """The process answers."""

    status: str


class Ready(BaseModel):
    """Whether new requests are taken, and by what.

    Attributes:
        refused: a version that was not taken into service, and why.
    """

    status: str
    version: str
    router: str
    pool: str
    under_way: int
    refused: str | None = None


def build_app(gateway: Gateway, watches: Sequence[Watch] = (), *, page: bool = True) -> FastAPI:
    """The application of a gateway.

    Args:
        page: serve the page for people at `/`.
    """
    app = FastAPI(
        title="routerr1 gateway",
        description=f"A router of language models behind OpenAI's protocol. {_LAYOUT}",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    app.state.gateway = gateway
    params = gateway.params
    if params.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(params.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-budget-usd"],
        )
    app.add_middleware(
        Guard, max_header_bytes=params.max_header_bytes, max_requests=params.max_requests
    )
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientGone, _on_gone)
    app.add_exception_handler(Exception, _on_bug)
    _add_models(app, gateway)
    _add_chat(app, gateway)
    _add_responses(app, gateway)
    _add_feedback(app, gateway)
    _add_health(app, gateway, watches)
    _add_hook(app, watches)
    if page:
        add_page(app)
    add_description(app)
    _describe(app)
    return app


async def admitted(gateway: Gateway, request: Request) -> Key | None:
    """The key of a request; see `Keyring.admit`."""
    return await gateway.keyring.admit(request.headers.get("authorization"))


def _add_models(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/models", tags=["models"], response_model=ModelList)
    async def models(request: Request) -> ModelList:
        """The router, and every candidate that may be asked by name."""
        names = gateway.models(await admitted(gateway, request))
        return ModelList(data=[_model(gateway, name) for name in names])

    @app.get("/v1/models/{name:path}", tags=["models"], response_model=Model)
    async def model(request: Request, name: str) -> Model:
        """One of them."""
        if name not in gateway.models(await admitted(gateway, request)):
            raise ApiError(
                404, f"the model {name[:100]!r} does not exist", "model_not_found", "model"
            )
        return _model(gateway, name)


def _model(gateway: Gateway, name: str) -> Model:
    candidate = any(card.name == name for card in gateway.engine.cards)
    return Model(id=name, owned_by="candidate" if candidate else "routerr1")


def _add_chat(app: FastAPI, gateway: Gateway) -> None:
    @app.post(
        "/v1/chat/completions",
        tags=["chat"],
        response_model=chat.ChatCompletion,
        openapi_extra=_body_of(ChatRequest),
    )
    async def complete(request: Request) -> Response:
        """Answer a conversation; `stream` sends the answer as server-sent events."""
        key = await admitted(gateway, request)
        body = await read_json(request, gateway.params.max_body_bytes)
        asked = _asked(gateway, request, _validated(ChatRequest, body), key)
        headers = _headers(asked)
        if not gateway.is_router(asked):
            if asked.request.stream:
                return EventStream(_forwarded_events(gateway, asked, body), headers=headers)
            found = await unless_gone(request, gateway.forward(asked, body))
            return JSONResponse(_forwarded_body(asked, found), headers=headers)
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


def _add_responses(app: FastAPI, gateway: Gateway) -> None:
    @app.post(
        "/v1/responses",
        tags=["chat"],
        response_model=responses.ResponseBody,
        openapi_extra=_body_of(ResponsesRequest),
    )
    async def respond(request: Request) -> Response:
        """Answer a text, in the form of OpenAI's Responses API."""
        key = await admitted(gateway, request)
        body = await read_json(request, gateway.params.max_body_bytes)
        asked_for = _validated(ResponsesRequest, body)
        asked = _asked(gateway, request, asked_for.as_chat(), key)
        if not gateway.is_router(asked):
            raise ApiError(
                400,
                "model: candidates are asked at /v1/chat/completions",
                "unsupported_model",
                "model",
            )
        number = asked.id.replace("chatcmpl-", "resp_")
        headers = _headers(asked)
        if asked_for.stream:

            async def events() -> AsyncIterator[bytes]:
                for piece in responses.events(number, asked_for.model, await gateway.answer(asked)):
                    yield piece

            return EventStream(events(), headers=headers)
        answer = await unless_gone(request, gateway.answer(asked))
        whole = responses.response(number, asked_for.model, answer)
        return JSONResponse(whole.model_dump(), headers=headers)


def _add_feedback(app: FastAPI, gateway: Gateway) -> None:
    @app.post(
        "/v1/feedback",
        tags=["feedback"],
        status_code=201,
        response_model=FeedbackResponse,
        openapi_extra=_body_of(FeedbackRequest, budget=False),
    )
    async def feedback(request: Request) -> FeedbackResponse:
        """Say whether an answer is right, or what the right answer is."""
        key = await admitted(gateway, request)
        body = await read_json(request, gateway.params.max_body_bytes)
        said: FeedbackRequest = _validated(FeedbackRequest, body)
        await asyncio.to_thread(gateway.flush)
        request_row = await asyncio.to_thread(
            take, gateway.store, said, key, keep=gateway.params.keep
        )
        if gateway.on_score is not None and said.score is not None and request_row is not None:
            gateway.on_score(request_row.version, said.score)
        if gateway.tracer is not None:
            gateway.tracer.assess(chat_id(said.request_id), said)
        return FeedbackResponse(request_id=said.request_id)


def _add_hook(app: FastAPI, watches: Sequence[Watch]) -> None:
    @app.post(PATH, tags=["operation"], status_code=202, response_model=Health)
    async def champion(request: Request) -> Health:
        """A signed message of `routerr1 promote`: look for a new champion now."""
        secret = os.environ.get(SECRET)
        body = await read_body(request, _MOST_HOOK_BYTES)
        header = request.headers.get(HEADER, "")
        if not secret or not is_signed(secret, body, header, time.time()):
            raise ApiError(401, "the message is not signed", "invalid_signature")
        if not watches:
            raise ApiError(409, "no alias is watched here", "not_watching")
        for watch in watches:
            watch.look_now()
        return Health(status="looking")


def _add_health(app: FastAPI, gateway: Gateway, watches: Sequence[Watch]) -> None:
    @app.get("/healthz", tags=["operation"], response_model=Health)
    async def healthy() -> Health:
        """The process answers."""
        return Health(status="ok")

    @app.get("/readyz", tags=["operation"], response_model=Ready)
    async def ready() -> Response:
        """New requests are taken; status 503 while the gateway ends."""
        identity = gateway.engine.identity
        body = Ready(
            status="draining" if gateway.draining else "ready",
            version=identity.version,
            router=identity.router,
            pool=identity.pool,
            under_way=gateway.engine.under_way,
            refused=_refusal(watches),
        )
        return JSONResponse(body.model_dump(), 503 if gateway.draining else 200)

    @app.get("/metrics", tags=["operation"])
    async def metrics(request: Request) -> Response:
        """Counters and histograms for Prometheus; needs a key where there are keys."""
        await admitted(gateway, request)
        states = getattr(gateway.engine.pool, "breaker_states", None)
        content = await asyncio.to_thread(gateway.metrics.page, states)
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


def _refusal(watches: Sequence[Watch]) -> str | None:
    refused = (watch.refused for watch in watches)
    return next((f"version {each.version}: {each.why}" for each in refused if each), None)


def _asked(gateway: Gateway, request: Request, asked_for: ChatRequest, key: Key | None) -> Asked:
    parent = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    budget = budget_header(request.headers.get("x-budget-usd"))
    asked = gateway.asked(asked_for, key, budget, parent[1] if parent else None)
    request.state.asked = asked
    return asked


def _headers(asked: Asked) -> dict[str, str]:
    return {
        "x-request-id": asked.id,
        "x-routerr1-version": asked.engine.identity.version,
        "traceparent": f"00-{asked.trace_id}-{uuid.uuid4().hex[:16]}-01",
    }


async def _chat_events(gateway: Gateway, asked: Asked, chunks: chat.Chunks) -> AsyncIterator[bytes]:
    """The answer in chunks; thoughts and calls before it, if they are asked for."""
    if not asked.request.include_reasoning:
        answer = await gateway.answer(asked)
        yield chunks.start()
    else:
        started = False
        async for found in _told(lambda tell: gateway.answer(asked, tell)):
            if not started:
                started = True
                yield chunks.start()
            if isinstance(found, Answer):
                answer = found
            else:
                yield chunks.of_event(found)
    for piece in chunks.of_answer(answer):
        yield piece


async def _told(
    work: Callable[[Callable[[Event], None]], Awaitable[Answer]],
) -> AsyncIterator[Event | Answer]:
    """What `work` tells, from whatever thread, and its result last."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[Event | None] = asyncio.Queue()

    async def done() -> Answer:
        try:
            return await work(lambda event: _put(loop, heard, event))
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


def _put(loop: asyncio.AbstractEventLoop, to: "asyncio.Queue[Any]", value: object) -> None:
    loop.call_soon_threadsafe(to.put_nowait, value)


def _forwarded_body(asked: Asked, found: Forwarded) -> dict[str, Any]:
    """A candidate's response with our id, its name, and its price."""
    reply, identity = found.reply, asked.engine.identity
    about = about_of(
        [reply], identity, spend=asked.request.spend or 0.0, policy_tokens=0,
        seconds=_seconds(asked), trace_id=asked.trace_id,
    ).model_dump()  # fmt: skip
    usage = _forwarded_usage(found)
    if found.content:
        body: dict[str, Any] = json.loads(found.content)
        return {
            **body,
            "id": asked.id,
            "model": asked.request.model,
            "usage": usage,
            "routerr1": about,
        }
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        "id": asked.id,
        "object": "chat.completion",
        "created": chat.now(),
        "model": asked.request.model,
        "choices": [choice],
        "usage": usage,
        "routerr1": about,
    }


def _forwarded_usage(found: Forwarded) -> dict[str, Any]:
    call = call_body(found.reply)
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
        "cost": call.cost,
        "prompt_tokens_details": {"cached_tokens": found.reply.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": found.reply.reasoning_tokens},
    }


async def _forwarded_events(
    gateway: Gateway, asked: Asked, body: dict[str, Any]
) -> AsyncIterator[bytes]:
    """A candidate's own stream; its last chunk is replaced by one with the price."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def done() -> Forwarded:
        try:
            return await gateway.forward(asked, body, lambda piece: _put(loop, heard, piece))
        finally:
            # After all pieces, which come from another thread.
            loop.call_soon_threadsafe(heard.put_nowait, None)

    task = asyncio.ensure_future(done())
    last: dict[str, Any] = {"id": asked.id, "object": "chat.completion.chunk", "choices": []}
    try:
        passed = False
        while (piece := await heard.get()) is not None:
            chunk = _parsed(piece)
            if chunk is None or not chunk.get("choices"):
                continue
            asked.answered()
            passed = True
            yield chat.event({**chunk, "id": asked.id, "model": asked.request.model, "usage": None})
        found = await task
        if not passed:  # a pool that does not stream
            for choice in ({"role": "assistant", "content": found.reply.text}, {}):
                finish = None if choice else "stop"
                yield chat.event(
                    {
                        **last,
                        "created": chat.now(),
                        "model": asked.request.model,
                        "choices": [{"index": 0, "delta": choice, "finish_reason": finish}],
                    }
                )
        options = asked.request.stream_options
        if options is not None and options.include_usage:
            about = about_of(
                [found.reply], gateway.engine.identity, spend=asked.request.spend or 0.0,
                policy_tokens=0, seconds=_seconds(asked), trace_id=asked.trace_id,
            )  # fmt: skip
            yield chat.event(
                {
                    **last,
                    "created": chat.now(),
                    "model": asked.request.model,
                    "usage": _forwarded_usage(found),
                    "routerr1": about.model_dump(),
                }
            )
        yield chat.DONE
    finally:
        task.cancel()
        await asyncio.wait({task})


def _parsed(piece: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(piece)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _seconds(asked: Asked) -> float:
    return time.perf_counter() - asked.began


def _validated(kind: type[Any], body: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise of_validation(error) from None


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    asked = getattr(request.state, "asked", None)
    return error_response(error, _headers(asked) if asked is not None else {})


async def _on_bug(_: Request, __: Exception) -> Response:
    return error_response(ApiError(500, "the gateway failed; its log says why", "internal_error"))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: f"there is no {request.url.path[:100]}", 405: "this path takes another method"}
    message = words.get(error.status_code, str(error.detail))
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return error_response(ApiError(error.status_code, message, code))


async def _on_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # is read by no client


def _body_of(model: type[BaseModel], *, budget: bool = True) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": schema}}
    if not budget:
        return {"requestBody": {"required": True, "content": content}}
    header = {
        "name": "X-Budget-USD",
        "in": "header",
        "schema": {"type": "number", "minimum": 0},
        "description": "The most US dollars that this request may spend.",
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": [header]}


_SENT = (ChatRequest, ResponsesRequest, FeedbackRequest, ErrorResponse)


def _describe(app: FastAPI) -> None:
    """Put the requests, which are read by hand, and the errors into the OpenAPI description."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, found = models_json_schema(
                [(model, "validation") for model in _SENT],
                ref_template="#/components/schemas/{model}",
            )
            schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
            failed = {
                "description": "An error",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}
                },
            }
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = failed
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way
