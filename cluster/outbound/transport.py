"""An httpx transport on connections of its own: httpx is the interface, `httptools` reads the responses.

The connection pool of stock httpx costs milliseconds of CPU for each request at 100 connections, and every general client
carries what is not wanted here: cookies, redirects, retries, proxies, decompression, a task that writes the body.

A request is never repeated here, not even if the target has closed a kept connection meanwhile. Whether the target acted on
the request cannot be known, and a second delivery without a record is worse than a failed attempt with one, which is
retried.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import httpx

from cluster.outbound.errors import NotSent
from cluster.outbound.messages import CONFIRM, PreparedRequest, ReadResponse, origin_of, wire_head
from cluster.outbound.name_servers import SystemResolver
from cluster.outbound.names import Names
from cluster.outbound.pool import KEEPALIVE_SECONDS, Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.targets import IPNetwork
    from cluster.outbound.connection import Connection
    from cluster.outbound.name_servers import Resolver

CHECK_SECONDS = 0.02
"""How often deadlines are looked at, while requests are under way. A timer for each request would cost more than its write."""
NO_DEADLINE = 1e9


class HttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests over kept connections.

    The `timeout` extension of a request, in seconds: `connect` for a new connection (name, TCP and TLS), `total` until the
    last byte is read. The `confirm` extension is asked when a new connection is there, which may have taken a while; if it
    says no, nothing is written and `NotSent` is raised. Connections to addresses in `networks` are allowed although they are not public.
    """

    def __init__(
        self,
        networks: tuple[IPNetwork, ...] = (),
        *,
        ssl_context: ssl.SSLContext | None = None,
        resolver: Callable[[], Resolver] = SystemResolver,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
    ) -> None:
        self.names = Names(resolver())
        self.pool = Pool(networks, self.names, ssl_context or _system_tls(), keepalive_seconds)
        self._active: set[Connection] = set()
        self._checking: asyncio.TimerHandle | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises exceptions of httpx, or their subclasses in `errors`."""
        if isinstance(request, PreparedRequest):
            wire, origin = request.wire, request.origin
        else:
            wire, origin = wire_head(request) + await request.aread(), origin_of(request.url)
        if wire is None:
            raise httpx.LocalProtocolError("a header contains a line break or a NUL character", request=request)
        timeout: dict[str, Any] = request.extensions.get("timeout", {})
        total = timeout.get("total") or NO_DEADLINE
        deadline = time.monotonic() + total
        connection = self.pool.take(origin)
        if connection is None:
            try:
                async with asyncio.timeout(min(timeout.get("connect") or NO_DEADLINE, total)):
                    connection = await self.pool.connect(origin)
            except TimeoutError as exc:
                raise httpx.ConnectTimeout("no connection in time", request=request) from exc
            confirm = request.extensions.get(CONFIRM)
            try:
                confirmed = confirm is None or await confirm()
            except BaseException:
                connection.abort()
                raise
            if not confirmed:
                connection.close()
                raise NotSent
        self._active.add(connection)
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check_deadlines)
        try:
            read = await connection.begin(wire, deadline, total)
        except BaseException:
            # Also if this is cancelled: the response must not be read as the next one.
            connection.abort()
            raise
        finally:
            connection.end()
            self._active.discard(connection)
        response = ReadResponse(read.status or 0, read.headers, read.content, request)
        self.pool.keep(origin, connection)
        return response

    def in_flight(self) -> int:
        """How many connections carry a request."""
        return len(self._active)

    def _check_deadlines(self) -> None:
        self._checking = None
        if not self._active:
            return
        now = time.monotonic()
        for connection in [c for c in self._active if c.deadline <= now]:
            connection.expire()
        self._checking = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check_deadlines)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
        self.pool.close()
        for connection in self._active:
            connection.abort()
        await self.names.close()


@lru_cache(maxsize=1)
def _system_tls() -> ssl.SSLContext:
    """The authorities of the system. Reading them takes some ten milliseconds, so it is done once, before any request."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
