"""The pages at `/` and `/docs`, which load nothing from elsewhere."""

from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

_FOLDER = Path(__file__).parent / "page"
_KINDS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> None:
    """Serve the page and its files."""
    for name, kind in _KINDS.items():
        path = "/" if name == "index.html" else f"/{name}"
        app.add_api_route(path, _sender(name, kind), include_in_schema=False)


def add_description(app: FastAPI) -> None:
    """Serve the paths and objects of the OpenAPI description as a page at `/docs`."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"

    @app.get("/docs", include_in_schema=False)
    async def description() -> Response:
        page = _described(app.openapi(), style)
        headers = {"content-security-policy": policy}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)


def _described(api: Mapping[str, Any], style: str) -> str:
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(api['info']['title'])}</title><style>{style}</style></head><body>",
        f"<h1>{escape(api['info']['title'])}</h1><p>{escape(api['info']['description'])}</p>",
        '<p><a href="openapi.json">openapi.json</a></p>',
    ]
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            about = operation.get("description") or operation["summary"]
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(about)}</p>")
    for name, schema in sorted(api["components"]["schemas"].items()):
        about = schema.get("description", "").partition("\n\nAttributes:")[0]
        parts.append(f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{escape(about)}</p><ul>')
        for field, value in schema.get("properties", {}).items():
            kind = escape(json_type(value))
            parts.append(f"<li><code>{escape(field)}</code>: {kind}</li>")
        parts.append("</ul>")
    return "".join([*parts, "</body></html>"])


def json_type(schema: Mapping[str, Any]) -> str:
    """The type of a JSON schema in words.

    >>> json_type({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]})
    'list of string or null'
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(json_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {json_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _sender(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = (_FOLDER / name).read_bytes()

    async def send() -> Response:
        headers = {"content-security-policy": _POLICY}
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)

    return send
