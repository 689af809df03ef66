"""Writing responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.documents.json_source import fragment

if TYPE_CHECKING:
    from falcon.asgi import Response


def send_json(resp: Response, value: Any, status: int = 200) -> None:
    """A JSON response."""
    resp.status = status
    resp.content_type = "application/json"
    resp.data = orjson.dumps(value, default=fragment)


def etag(revision: int) -> str:
    """The strong ETag of a job: its revision in quotes."""
    return f'"{revision}"'
