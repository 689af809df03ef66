"""`/healthz` and `/readyz`: available without a key, so they reveal nothing beyond the state of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.http.problems import write_problem
from api.http.responses import send_json

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services


class Healthz:
    """Whether this process responds."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        """200 while the event loop runs."""
        send_json(resp, {"status": "ok"})


class Readyz:
    """Whether this node can serve requests: the database is available and the node is not draining or stopping."""

    def __init__(self, services: Services) -> None:
        self._ready = services.is_ready
        self._unready = services.unready_reason

    async def on_get(self, _req: Request, resp: Response) -> None:
        """200 or 503."""
        if self._ready():
            send_json(resp, {"status": "ready"})
        else:
            why = self._unready() or "the database is unavailable, or this node is starting or stopping"
            write_problem(resp, 503, "not-ready", "Not ready", why)
