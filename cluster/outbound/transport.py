"""An httpx transport on connections and parser of aiohttp: httpx is the interface, aiohttp does the work.

The connection pool of stock httpx costs milliseconds of CPU for each request at 100 connections. This transport takes a
connection from aiohttp's connector, writes the request to it in one piece and reads the response with aiohttp's parser. The
rest of `ClientSession` (cookies, redirects, retries, proxies, decompression, a task that writes the body) is left out.

A request is never repeated here, not even if the target has closed a kept connection meanwhile. Whether the target acted on
the request cannot be known, and a second delivery without a record is worse than a failed attempt with one, which is
retried. Connections are kept for less time than targets keep them, which makes this rare.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from cluster.outbound.address_guard import GuardedResolver, GuardedSockets, SystemResolver
from cluster.outbound.errors import to_httpx_error

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from aiohttp.abc import AbstractResolver
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

    from cluster.core.targets import IPNetwork

RESPONSE_LIMIT = 64 * 1024
"""So many bytes of a response body are read; after a longer body the connection is closed."""
KEEPALIVE_SECONDS = 1.5
"""Long enough for a job that runs every second. Less than the 2 s (gunicorn) or 5 s (Node, uvicorn, Apache) after which
targets close idle connections, because jobs that run every 2 or 5 s would often use a connection just as it is closed."""
MAX_IDLE_HOSTS = 512
"""While so many hosts have idle connections, no further ones are kept, which bounds the number of file descriptors."""
_DNS_SECONDS = 10
_MAX_ORIGINS = 4096
_EXACT = 1e9  # aiohttp rounds time-outs longer than this up to whole seconds


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests over connections of aiohttp.

    The `timeout` extension of a request, in seconds: `connect` for a new connection (name, TCP and TLS), `total` until the
    last byte is read. Connections to addresses in `networks` are allowed although they are not public.
    """

    def __init__(
        self,
        networks: tuple[IPNetwork, ...] = (),
        *,
        ssl_context: ssl.SSLContext | None = None,
        resolver: Callable[[], AbstractResolver] = SystemResolver,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
    ) -> None:
        self._networks = networks
        self._ssl = ssl_context
        self._make_resolver = resolver
        self._keepalive = keepalive_seconds
        self._connector: aiohttp.TCPConnector | None = None
        self._resolver: GuardedResolver | None = None
        self._origins: OrderedDict[tuple[bytes, bytes, int | None], aiohttp.ClientRequest] = OrderedDict()

    def _open(self) -> aiohttp.TCPConnector:
        """Create the connector. It belongs to the running event loop, so the first request creates it."""
        self._resolver = GuardedResolver(self._networks, self._make_resolver())
        self._connector = aiohttp.TCPConnector(
            limit=0,  # the dispatcher limits the number of requests
            resolver=self._resolver,
            ttl_dns_cache=_DNS_SECONDS,
            socket_factory=GuardedSockets(self._networks),
            keepalive_timeout=self._keepalive,
            ssl=self._ssl if self._ssl is not None else True,
        )
        return self._connector

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises exceptions of httpx, or their subclasses in `errors`."""
        wire = _head(request) + await request.aread()
        timeout: dict[str, Any] = request.extensions.get("timeout", {})
        total = timeout.get("total")
        connection: Connection | None = None
        try:
            async with asyncio.timeout(total):
                connection = await self._connect(request, timeout.get("connect"))
                message, content = await _exchange(connection, request, wire)
        except TimeoutError as exc:
            if connection is None:
                raise httpx.ConnectTimeout("no connection in time", request=request) from exc
            if exc.errno is None:
                raise httpx.ReadTimeout(f"no complete response within {total:g} s", request=request) from exc
            raise to_httpx_error(exc, request) from exc
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as exc:
            raise to_httpx_error(exc, request) from exc
        finally:
            if connection is not None:
                self._keep_or_close(connection)
        return httpx.Response(
            message.code,
            headers=message.raw_headers,
            stream=httpx.ByteStream(content),
            request=request,
            extensions={"reason_phrase": message.reason.encode("latin-1", "replace")},
        )

    async def _connect(self, request: httpx.Request, seconds: float | None) -> Connection:
        """A kept connection or a new one, to an address that the guard allows."""
        connector = self._connector or self._open()
        url = request.url
        key = (url.raw_scheme, url.raw_host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            # The connector takes a request of aiohttp, but reads only its origin: one is enough for each origin.
            origin_url = URL(str(url.copy_with(raw_path=b"/")), encoded=True)
            origin = self._origins[key] = aiohttp.ClientRequest("POST", origin_url, loop=asyncio.get_running_loop())
            if len(self._origins) > _MAX_ORIGINS:
                self._origins.popitem(last=False)
        return await connector.connect(origin, [], _connect_within(seconds))

    def _keep_or_close(self, connection: Connection) -> None:
        """Keep the connection if the response was read to its end, else close it."""
        connector = self._connector
        if connector is None or len(connector._conns) > MAX_IDLE_HOSTS:  # noqa: SLF001 - the number of hosts with idle connections
            connection.close()
        else:
            connection.release()

    async def aclose(self) -> None:
        """Close every connection."""
        connector, self._connector = self._connector, None
        self._origins.clear()
        if connector is not None:
            await connector.close()
        if self._resolver is not None:
            await self._resolver.close()


@lru_cache(maxsize=64)
def _connect_within(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds, ceil_threshold=_EXACT)


def _head(request: httpx.Request) -> bytes:
    """The request line and headers as they go over the wire. Raises `httpx.LocalProtocolError`."""
    headers = request.headers.raw
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in headers]
    head = b"\r\n".join(lines)
    # A line break inside a value would inject a header or a second request.
    if head.count(b"\n") != len(headers) or head.count(b"\r") != len(headers) or b"\0" in head:
        raise httpx.LocalProtocolError("a header contains a line break or a NUL character", request=request)
    return head + b"\r\n\r\n"


async def _exchange(connection: Connection, request: httpx.Request, wire: bytes) -> tuple[Any, bytes]:
    """Write the request and read the response: its head and its body. Afterwards the protocol knows whether the connection
    can be used again.
    """
    protocol = connection.protocol
    transport = connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise ConnectionResetError
    if protocol.should_close:
        # Bytes that were received before the request must not be read as its response.
        raise httpx.ReadError("the target sent data before the request", request=request)
    protocol.set_response_params(
        read_until_eof=True, auto_decompress=False, read_bufsize=RESPONSE_LIMIT, timeout_ceil_threshold=_EXACT
    )
    try:
        transport.write(wire)
        message, payload = await protocol.read()
        while message.code < 200:
            if message.code == 101:
                raise httpx.RemoteProtocolError(
                    "101: the target switched to a protocol that was not asked for", request=request
                )
            message, payload = await protocol.read()
        content = await _body(payload)
        if not payload.at_eof():
            _close_after(protocol)
        return message, content
    except BaseException:
        _close_after(protocol)
        raise


def _close_after(protocol: ResponseHandler) -> None:
    """Let the connection be closed, because the rest of this response must not be read as the next one."""
    protocol.force_close()


async def _body(payload: aiohttp.StreamReader) -> bytes:
    """The first `RESPONSE_LIMIT` bytes of the body at most."""
    if payload.at_eof():
        return b""
    pieces: list[bytes] = []
    size = 0
    while size < RESPONSE_LIMIT:
        piece = await payload.read(RESPONSE_LIMIT - size)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
