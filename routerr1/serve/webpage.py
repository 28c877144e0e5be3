"""The page at `/`: three files of this package, which load nothing from elsewhere."""

from collections.abc import Awaitable, Callable
from pathlib import Path

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


def _sender(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = (_FOLDER / name).read_bytes()

    async def send() -> Response:
        headers = {"content-security-policy": _POLICY}
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)

    return send
