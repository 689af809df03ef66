"""An httpx transport with aiohttp's connections and parser below: httpx is the interface, aiohttp the engine.

The pools of stock httpx cost milliseconds of CPU a request at 100 connections. Here a request borrows a connection
from aiohttp's connector, is written to it in one piece, and is answered by aiohttp's parser; what `ClientSession` does
besides (cookies, redirects, retries, proxies, decompression, a task to write the body) is not wanted and so not paid for.

A request is never repeated here, not even when a kept connection turns out to have been closed by the target: whether
it had acted on the request cannot be known, and a second delivery that nobody recorded is worse than a failed attempt
that is retried and on record. What makes it rare is to keep connections for less time than targets do.
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

ANSWER_LIMIT = 64 * 1024
"""So many bytes of an answer's body are read; the connection of a longer one is closed."""
KEEPALIVE_SECONDS = 1.5
"""Long enough for a job of every second; less than the 2 s (gunicorn) or 5 s (Node, uvicorn, Apache) after which targets
close idle connections, which a job of every 2 or 5 s would meet again and again."""
MAX_IDLE_HOSTS = 512
"""Connections of more hosts than this are not kept, so that many targets do not use up the file descriptors."""
_DNS_SECONDS = 10
_FORGETFUL = 4096
_EXACT = 1e9  # aiohttp rounds long time-outs up to whole seconds unless told from which length on


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests over aiohttp's connections.

    Durations come from the request's `timeout` extension, in seconds: `connect` for a new connection (name, TCP and
    TLS) and `total` for everything until the last byte that is read. `networks` may be connected to although they are
    not public.
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
        """The connector belongs to the running loop, so it is made by the first request."""
        self._resolver = GuardedResolver(self._networks, self._make_resolver())
        self._connector = aiohttp.TCPConnector(
            limit=0,  # the dispatcher's slots are the limit
            resolver=self._resolver,
            ttl_dns_cache=_DNS_SECONDS,
            socket_factory=GuardedSockets(self._networks),
            keepalive_timeout=self._keepalive,
            ssl=self._ssl if self._ssl is not None else True,
        )
        return self._connector

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's exceptions, or one of `faults` for what they do not tell apart."""
        wire = _head(request) + await request.aread()
        timeout: dict[str, Any] = request.extensions.get("timeout", {})
        total = timeout.get("total")
        connection: Connection | None = None
        try:
            async with asyncio.timeout(total):
                connection = await self._connect(request, timeout.get("connect"))
                message, content = await _exchange(connection, wire)
        except TimeoutError as exc:
            if connection is None:
                raise httpx.ConnectTimeout("no connection in time", request=request) from exc
            if exc.errno is None:
                raise httpx.ReadTimeout(f"no complete answer within {total:g} s", request=request) from exc
            raise to_httpx_error(exc, request) from exc
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as exc:
            raise to_httpx_error(exc, request) from exc
        except httpx.HTTPError as exc:
            exc.request = request
            raise
        finally:
            if connection is not None:
                self._give_back(connection)
        return httpx.Response(
            message.code,
            headers=message.raw_headers,
            stream=httpx.ByteStream(content),
            request=request,
            extensions={"reason_phrase": message.reason.encode("latin-1", "replace")},
        )

    async def _connect(self, request: httpx.Request, seconds: float | None) -> Connection:
        """A connection from the pool or a new one, to an address that was checked."""
        connector = self._connector or self._open()
        url = request.url
        key = (url.raw_scheme, url.raw_host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            # The connector wants a request of aiohttp's, of which it looks at the origin alone: one serves them all.
            at = URL(str(url.copy_with(raw_path=b"/")), encoded=True)
            origin = self._origins[key] = aiohttp.ClientRequest("POST", at, loop=asyncio.get_running_loop())
            if len(self._origins) > _FORGETFUL:
                self._origins.popitem(last=False)
        return await connector.connect(origin, [], _connect_within(seconds))

    def _give_back(self, connection: Connection) -> None:
        """Keep the connection if the answer was read to its end, else close it."""
        connector = self._connector
        if connector is None or len(connector._conns) > MAX_IDLE_HOSTS:  # noqa: SLF001 - how many hosts have idle ones
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
    # A line break inside a value would be a header, or a request, that nobody meant.
    if head.count(b"\n") != len(headers) or head.count(b"\r") != len(headers) or b"\0" in head:
        raise httpx.LocalProtocolError("a header holds a line break or a NUL", request=request)
    return head + b"\r\n\r\n"


async def _exchange(connection: Connection, wire: bytes) -> tuple[Any, bytes]:
    """Write the request, read the answer. The connection is fit for another one if its protocol thinks so."""
    protocol = connection.protocol
    transport = connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise ConnectionResetError
    if protocol.should_close:
        # Bytes that came before anything was asked must not be taken for the answer.
        raise httpx.ReadError("the target spoke before it was asked")
    protocol.set_response_params(
        read_until_eof=True, auto_decompress=False, read_bufsize=ANSWER_LIMIT, timeout_ceil_threshold=_EXACT
    )
    try:
        transport.write(wire)
        message, payload = await protocol.read()
        while message.code < 200:
            if message.code == 101:
                raise httpx.RemoteProtocolError("101: the target changed to a protocol that nobody asked for")
            message, payload = await protocol.read()
        content = await _body(payload)
        if not payload.at_eof():
            _spoil(protocol)
        return message, content
    except BaseException:
        _spoil(protocol)
        raise


def _spoil(protocol: ResponseHandler) -> None:
    """Whatever is still to come on this connection is not for the next request."""
    protocol.force_close()


async def _body(payload: aiohttp.StreamReader) -> bytes:
    """At most `ANSWER_LIMIT` bytes."""
    if payload.at_eof():
        return b""
    pieces: list[bytes] = []
    size = 0
    while size < ANSWER_LIMIT:
        piece = await payload.read(ANSWER_LIMIT - size)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
