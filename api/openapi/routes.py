"""`/openapi.json` and `/docs`: the API reference as JSON and as a page. The page loads nothing from other servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from api.openapi.document import openapi_document

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

PAGE = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
)


class OpenApiDocument:
    """`/openapi.json`."""

    def __init__(self) -> None:
        self._document = orjson.dumps(openapi_document())

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The OpenAPI document."""
        resp.content_type = "application/json"
        resp.data = self._document


class DocsAsset:
    """One file of the page `/docs`."""

    def __init__(self, name: str) -> None:
        file = PAGE / name
        self._type = TYPES[file.suffix]
        self._content = file.read_bytes()

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The file, with a policy that forbids loading anything from other servers."""
        resp.content_type = self._type
        resp.data = self._content
        resp.set_header("Content-Security-Policy", POLICY)
