"""Writing responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.documents.json_source import fragment

if TYPE_CHECKING:
    from falcon.asgi import Request, Response


API_POLICY = "default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
SAFETY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", API_POLICY),
    ("Cache-Control", "no-store"),
)


class SafetyHeaders:
    """Falcon middleware: no response is framed, guessed to be of another type, or kept by a cache.

    A browser may show any response: jobs name internal addresses, and a description may contain markup. A resource that
    is a page sets its own policy.
    """

    async def process_response(self, _req: Request, resp: Response, _resource: object, _ok: bool) -> None:  # noqa: FBT001 - Falcon's signature
        """Add the headers, also to errors."""
        for name, value in SAFETY_HEADERS:
            if resp.get_header(name) is None:
                resp.set_header(name, value)


def send_json(resp: Response, value: Any, status: int = 200) -> None:
    """A JSON response."""
    resp.status = status
    resp.content_type = "application/json"
    resp.data = orjson.dumps(value, default=fragment)


def etag(revision: int) -> str:
    """The strong ETag of a job: its revision in quotes."""
    return f'"{revision}"'
