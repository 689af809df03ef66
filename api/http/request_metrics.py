"""Counting requests to the API: Falcon middleware, two dictionary additions per request."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cluster.core.histogram import COARSE_MS, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from falcon.asgi import Request, Response

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Requests by method, route and status, and how long each route took. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._requests: Counter[str] = Counter()
        self._times: dict[str, Histogram] = {}

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Note when it came."""
        req.context.came = self._monotonic()

    async def process_response(self, req: Request, resp: Response, _resource: object, _ok: bool) -> None:  # noqa: FBT001 - Falcon's signature
        """Count it under its route, never under its path: that would be a series per job."""
        route = req.uri_template or "none"
        method = req.method if req.method in METHODS else "OTHER"
        self._requests[f"{method} {route} {resp.status_code}"] += 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = Histogram(bounds=COARSE_MS)
        times.add((self._monotonic() - req.context.came) * 1000)

    def readings(self) -> dict[str, Any]:
        """Plain numbers, as `cluster.metrics` has them."""
        return {
            "api_requests": dict(self._requests),
            "api_times": {route: {"counts": list(h.counts), "sum": h.sum} for route, h in self._times.items()},
        }
