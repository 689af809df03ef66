"""Metrics of requests to the API: Falcon middleware, two dictionary updates per request."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cluster.core.histogram import COARSE_MS, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from falcon.asgi import Request, Response

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts requests by method, route and status, and measures their durations. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._requests: Counter[str] = Counter()
        self._times: dict[str, Histogram] = {}

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Record the start time."""
        req.context.started_at = self._monotonic()

    async def process_response(self, req: Request, resp: Response, _resource: object, _ok: bool) -> None:  # noqa: FBT001 - Falcon's signature
        """Count the request under its route. Its path would make one series per job."""
        route = req.uri_template or "none"
        method = req.method if req.method in METHODS else "OTHER"
        self._requests[f"{method} {route} {resp.status_code}"] += 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = Histogram(bounds=COARSE_MS)
        times.add((self._monotonic() - req.context.started_at) * 1000)

    def readings(self) -> dict[str, Any]:
        """The numbers so far, in the form of `cluster.metrics`. Durations are in ms."""
        return {
            "api_requests": dict(self._requests),
            "api_times": {route: {"counts": list(h.counts), "sum": h.sum} for route, h in self._times.items()},
        }
