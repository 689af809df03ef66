"""Connections to targets: opened to addresses that the guard allows, and kept between requests.

Connections are kept for less time than targets keep theirs, so that a request rarely meets one that is just being closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

from cluster.outbound.address_guard import GuardedSockets, allowed_addresses, literal_address
from cluster.outbound.errors import connect_error
from cluster.outbound.tls_connection import TlsConnection, connection_maker

if TYPE_CHECKING:
    import ssl

    from cluster.core.targets import IPNetwork
    from cluster.outbound.connection import Connection
    from cluster.outbound.names import Names

KEEPALIVE_SECONDS = 1.5
"""Long enough for a job that runs every second. Less than the 2 s (gunicorn) or 5 s (Node, uvicorn, Apache) after which
targets close idle connections, because jobs that run every 2 or 5 s would often use a connection just as it is closed."""
MAX_IDLE_HOSTS = 512
"""While so many hosts have idle connections, no further ones are kept, which bounds the number of file descriptors."""
MAX_IDLE_PER_HOST = 256
MAX_DISCARDED = 32
"""So many connections of complete responses may stay open while their targets read on, each with the rest of a request."""
MAX_ADDRESSES = 16
"""So many addresses of a name are tried for one connection: a name server may list a thousand that do not answer, each of
which would take up a file descriptor meanwhile."""
NEXT_ADDRESS_SECONDS = 0.25
"""So long one address has for its connection before the next one is tried beside it (RFC 8305)."""


class Origin(NamedTuple):
    """Where a connection goes to, and what it may be used for."""

    tls: bool
    host: str
    port: int


class Pool:
    """The connections of one node."""

    def __init__(
        self, networks: tuple[IPNetwork, ...], names: Names, tls: ssl.SSLContext, keepalive_seconds: float
    ) -> None:
        self._networks = networks
        self._sockets = GuardedSockets(networks)
        self._names = names
        self._tls = tls
        self._keepalive = keepalive_seconds
        self._idle: dict[Origin, list[tuple[float, Connection]]] = {}
        self._discarded: list[Connection] = []
        """Complete responses whose targets may still be reading the request, the oldest first."""
        self._cleaning: asyncio.TimerHandle | None = None

    def take(self, origin: Origin) -> Connection | None:
        """A kept connection, the one that was used last; None if there is none."""
        kept = self._idle.get(origin)
        if kept is None:
            return None
        oldest = time.monotonic() - self._keepalive
        while kept:
            since, connection = kept.pop()
            if not kept:
                del self._idle[origin]
            if since > oldest and connection.is_open():
                return connection
            connection.close()
        return None

    def keep(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection whose response was read to its end; close any other."""
        if not connection.reusable():
            if connection.discard():
                self._remember_discarded(connection)
            return
        kept = self._idle.get(origin)
        if kept is None:
            if len(self._idle) >= MAX_IDLE_HOSTS:
                connection.close()
                return
            kept = self._idle[origin] = []
        elif len(kept) >= MAX_IDLE_PER_HOST:
            connection.close()
            return
        kept.append((time.monotonic(), connection))
        if self._cleaning is None:
            self._cleaning = asyncio.get_running_loop().call_later(self._keepalive, self._clean)

    def _remember_discarded(self, connection: Connection) -> None:
        """Bound what targets hold that respond early and read slowly: the oldest one is closed."""
        self._discarded = [c for c in self._discarded if not c.lost()]
        if len(self._discarded) >= MAX_DISCARDED:
            self._discarded.pop(0).abort()
        self._discarded.append(connection)

    def idle(self) -> int:
        """How many connections are kept that neither side has closed."""
        return sum(connection.is_open() for kept in self._idle.values() for _, connection in kept)

    def close(self) -> None:
        """Close every kept connection."""
        if self._cleaning is not None:
            self._cleaning.cancel()
            self._cleaning = None
        idle, self._idle = self._idle, {}
        for kept in idle.values():
            for _, connection in kept:
                connection.close()
        for connection in self._discarded:
            connection.abort()
        self._discarded.clear()

    def _clean(self) -> None:
        """Close what was kept for too long."""
        self._cleaning = None
        oldest = time.monotonic() - self._keepalive
        for origin, kept in list(self._idle.items()):
            young = [(since, c) for since, c in kept if since > oldest and c.is_open()]
            for since, connection in kept:
                if since <= oldest or not connection.is_open():
                    connection.close()
            if young:
                self._idle[origin] = young
            else:
                del self._idle[origin]
        if self._idle:
            self._cleaning = asyncio.get_running_loop().call_later(self._keepalive, self._clean)

    async def connect(self, origin: Origin) -> Connection:
        """A new connection, its TLS session included. Raises errors of httpx; without a deadline of its own."""
        loop = asyncio.get_running_loop()
        try:
            literal = literal_address(origin.host)
            if literal is None:
                found = await self._names.addresses(origin.host)
                addresses = allowed_addresses(origin.host, found, self._networks)
            else:
                addresses = [literal]
            connection = await self._first_connected(loop, origin, addresses)
        except (OSError, ValueError) as exc:  # a ValueError: TLS knows no such name
            raise connect_error(exc, origin.host) from exc
        if isinstance(connection, TlsConnection):
            await connection.handshake()
        return connection

    async def _first_connected(
        self, loop: asyncio.AbstractEventLoop, origin: Origin, addresses: list[str]
    ) -> Connection:
        """The connection to the first address that takes one. Addresses are tried one after another, and beside one
        another when one does not answer soon. Raises the `OSError` of the last one, or a denial.
        """
        if len(addresses) == 1:
            return await self._connect_to(loop, origin, addresses[0])
        untried = _interleaved(addresses)[:MAX_ADDRESSES]
        trying: set[asyncio.Task[Connection]] = set()
        error: OSError = OSError("no address")
        try:
            while untried or trying:
                if untried:
                    trying.add(loop.create_task(self._connect_to(loop, origin, untried.pop(0))))
                patience = NEXT_ADDRESS_SECONDS if untried else None
                ended, trying = await asyncio.wait(trying, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    failure = task.exception()
                    if failure is None:
                        trying |= ended - {task}
                        return task.result()
                    if not isinstance(failure, OSError):
                        raise failure
                    error = failure
            raise error
        finally:
            await _give_up(trying)

    async def _connect_to(self, loop: asyncio.AbstractEventLoop, origin: Origin, address: str) -> Connection:
        """A TCP connection to one address. Raises an `OSError`."""
        sock = self._sockets(address)
        try:
            await loop.sock_connect(sock, (address, origin.port))
            context = self._tls if origin.tls else None
            _, protocol = await loop.create_connection(
                connection_maker(loop, context, origin.host.removesuffix(".")), sock=sock
            )
        except BaseException:
            sock.close()
            raise
        return protocol


async def _give_up(attempts: set[asyncio.Task[Connection]]) -> None:
    """Cancel connections that are not wanted any more, and close those that exist already."""
    for attempt in attempts:
        attempt.cancel()
    for attempt in attempts:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            (await attempt).abort()


def _interleaved(addresses: list[str]) -> list[str]:
    """The best first, then by turns one of the other family and one of the same."""
    first = [a for a in addresses if (":" in a) == (":" in addresses[0])]
    other = [a for a in addresses if (":" in a) != (":" in addresses[0])]
    turns = [a for pair in zip(first, other, strict=False) for a in pair]
    return turns + first[len(other) :] + other[len(first) :]
