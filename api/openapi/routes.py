"""`/openapi.json`: the API reference as JSON. `/docs` is the page that shows it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import orjson

from api.openapi.document import openapi_document

if TYPE_CHECKING:
    from falcon.asgi import Request, Response


@cache
def _encoded(server: str) -> bytes:
    return orjson.dumps({**openapi_document(), "servers": [{"url": server}]})


class OpenApiDocument:
    """`/openapi.json`."""

    def __init__(self, path_prefix: str = "") -> None:
        self._document = _encoded(path_prefix or "/")

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The OpenAPI document."""
        resp.content_type = "application/json"
        resp.data = self._document
