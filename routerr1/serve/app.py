"""The gateway's HTTP interface: OpenAI's endpoints, health, metrics and the page."""

import asyncio
import os
import time
from collections.abc import Sequence

from fastapi import FastAPI, Request
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from routerr1.registry.announce import HEADER, PATH, SECRET, is_signed
from routerr1.serve.champion import Watch
from routerr1.serve.completions import add_chat, add_responses
from routerr1.serve.errors import ApiError, no_database
from routerr1.serve.feedback import FeedbackRequest, FeedbackResponse, chat_id, take
from routerr1.serve.gateway import Gateway
from routerr1.serve.incoming import admitted, headers_of, read_as
from routerr1.serve.openapi import body_of, describe
from routerr1.serve.transport import ClientGone, Guard, error_response, read_body
from routerr1.serve.webpage import add_description, add_page

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
        reads_spend: the router heeds the spend level of a request.
        refused: a version that was not taken into service, and why.
    """

    status: str
    version: str
    router: str
    pool: str
    under_way: int
    reads_spend: bool
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
    app.add_exception_handler(SQLAlchemyError, _on_no_database)
    app.add_exception_handler(ClientGone, _on_gone)
    app.add_exception_handler(Exception, _on_bug)
    _add_models(app, gateway)
    add_chat(app, gateway)
    add_responses(app, gateway)
    _add_feedback(app, gateway)
    _add_health(app, gateway, watches)
    _add_hook(app, watches)
    if page:
        add_page(app)
    add_description(app)
    describe(app)
    return app


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


def _add_feedback(app: FastAPI, gateway: Gateway) -> None:
    @app.post(
        "/v1/feedback",
        tags=["feedback"],
        status_code=201,
        response_model=FeedbackResponse,
        openapi_extra=body_of(FeedbackRequest, budget=False),
    )
    async def feedback(request: Request) -> FeedbackResponse:
        """Say whether an answer is right, or what the right answer is."""
        said, _, key = await read_as(gateway, request, FeedbackRequest)
        await asyncio.to_thread(gateway.flush)
        request_row = await asyncio.to_thread(
            take, gateway.store, said, key, keep=gateway.params.keep
        )
        if gateway.on_score is not None and said.score is not None and request_row is not None:
            gateway.on_score(request_row, said.score)
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
            reads_spend=identity.reads_spend,
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


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    asked = getattr(request.state, "asked", None)
    return error_response(error, headers_of(asked) if asked is not None else {})


async def _on_no_database(_: Request, error: Exception) -> Response:
    assert isinstance(error, SQLAlchemyError)
    return error_response(no_database(error))


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
