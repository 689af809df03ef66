"""Asking name servers: by c-ares, so that a look-up that hangs holds no thread and delays no other look-up.

c-ares reads what the system's resolver reads: `/etc/resolv.conf` (search domains included) and `/etc/hosts`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Protocol

import pycares
import pycares.errno as ares

from cluster.outbound.address_guard import is_localhost
from cluster.outbound.errors import NameNotFound, NameServersFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_SECONDS = 1.0
"""So long the first server has for its first answer; later tries get twice as long each."""
TRIES = 3
CHANNEL_SECONDS = 10.0
"""After so long c-ares starts anew: it reads its files again, and forgets the answers that it kept, among them that a name
does not exist, which it would keep for up to an hour."""
LOCALHOST = ["127.0.0.1", "::1"]
_NOT_FOUND = frozenset({ares.ARES_ENOTFOUND, ares.ARES_ENODATA, ares.ARES_EBADNAME})
_MAX_NAME = 253


class Resolver(Protocol):
    """Finds the addresses of names."""

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a name, the best first. Raises `NameNotFound` or `NameServersFailed`."""
        ...

    async def close(self) -> None:
        """Give up all look-ups."""
        ...


class SystemResolver:
    """The system's hosts file and name servers, or `servers` (`address:port`) in their place."""

    def __init__(self, servers: Sequence[str] | None = None) -> None:
        self._servers = servers
        self._channel: pycares.Channel | None = None
        self._made_at = 0.0
        self._pending: dict[pycares.Channel, int] = {}

    async def resolve(self, host: str) -> list[str]:
        """As `Resolver.resolve`. Without a deadline of its own; a cancelled look-up ends by itself."""
        if is_localhost(host):
            return LOCALHOST
        try:
            name = host.encode("ascii") if host.isascii() else host.encode("idna")
        except UnicodeError as exc:
            raise NameNotFound("not a host name") from exc
        if len(name) > _MAX_NAME or any(len(label) > 63 for label in name.split(b".")):
            raise NameNotFound("not a host name")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        channel = self._open_channel(loop.time())

        def answered(result: Any, error: int | None) -> None:
            # Called by a thread of c-ares, or within the call below.
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits for the answer
                loop.call_soon_threadsafe(self._answered, channel, answer, result, error)

        self._pending[channel] += 1
        channel.getaddrinfo(name.decode(), None, callback=answered, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        return await answer

    async def close(self) -> None:
        """As `Resolver.close`."""
        self._channel = None
        for channel in list(self._pending):
            channel.close()
        self._pending.clear()

    def _open_channel(self, now: float) -> pycares.Channel:
        if self._channel is None or now - self._made_at > CHANNEL_SECONDS:
            old = self._channel
            self._channel = pycares.Channel(timeout=ANSWER_SECONDS, tries=TRIES, servers=self._servers)
            self._made_at = now
            self._pending[self._channel] = 0
            if old is not None:
                self._close_unused(old)
        return self._channel

    def _close_unused(self, channel: pycares.Channel) -> None:
        """Close a channel that was replaced once its last look-up has ended."""
        if channel is not self._channel and self._pending.get(channel) == 0:
            del self._pending[channel]
            channel.close()

    def _answered(
        self, channel: pycares.Channel, answer: asyncio.Future[list[str]], result: Any, error: int | None
    ) -> None:
        if channel in self._pending:
            self._pending[channel] -= 1
            self._close_unused(channel)
        if answer.done():
            return
        if error is None:
            # A zone ("fe80::1%eth0") is dropped: only link-local addresses have one, and those are denied anyway.
            found = dict.fromkeys(node.addr[0].decode().partition("%")[0] for node in result.nodes)
            if found:
                answer.set_result(list(found))
                return
        if error is None or error in _NOT_FOUND:
            answer.set_exception(NameNotFound("the name does not exist or has no address"))
        else:
            answer.set_exception(NameServersFailed(pycares.errno.strerror(error).lower()))
