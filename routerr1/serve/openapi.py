"""The OpenAPI description: requests are read by hand, so FastAPI does not know them."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from routerr1.serve.errors import ErrorResponse
from routerr1.serve.feedback import FeedbackRequest
from routerr1.serve.requests import ChatRequest, ResponsesRequest


def body_of(model: type[BaseModel], *, budget: bool = True) -> dict[str, Any]:
    """What FastAPI is told of a request's body; `budget` adds the header X-Budget-USD."""
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


def describe(app: FastAPI) -> None:
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
