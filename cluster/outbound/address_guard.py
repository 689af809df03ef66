"""The guard: which addresses a connection may go to, asked for every new connection.

Two walls, since jobs are written by people who may want to reach what only this machine can reach:

1. Names are resolved here, and one denied address among many refuses the name. aiohttp then connects to the addresses
   that were checked and to no other; the name stays for Host, SNI and the certificate.
2. Every socket is made here, and its address is checked once more. That is the wall for literal addresses, and for
   whatever a change of aiohttp, or a spelling nobody thought of, would lead past the first.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from cluster.core.targets import IPNetwork, address_allowed
from cluster.outbound.errors import ConnectionDenied

if TYPE_CHECKING:
    from aiohttp import AddrInfoType

RESOLVER_THREADS = 32


def require_allowed(host: str, address: str, networks: tuple[IPNetwork, ...]) -> None:
    """Raise `Denied` unless a connection to the address may be made. `host` is what the user wrote."""
    if not address_allowed(ipaddress.ip_address(address), networks):
        what = f"{address} is" if host == address else f"{host} resolves to {address}, which is"
        raise ConnectionDenied(f"{what} not a public address")


class SystemResolver(AbstractResolver):
    """The system's resolver, in threads of its own: a name server that hangs must hold up nothing but look-ups."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As `AbstractResolver.resolve`; raises an `OSError` if there is no address."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no usable address")
        return found

    async def close(self) -> None:
        """Forget what is still being looked up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_ADDRCONFIG)
    except UnicodeError as exc:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from exc
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        # A zone ("fe80::1%eth0") is dropped: it means a link, and those are denied anyhow.
        ResolveResult(
            hostname=host, host=str(at[0]).partition("%")[0], port=port, family=kind, proto=proto, flags=flags
        )
        for kind, _, proto, _, at in found
    ]


class GuardedResolver(AbstractResolver):
    """The first wall, in front of any resolver."""

    def __init__(self, networks: tuple[IPNetwork, ...], below: AbstractResolver) -> None:
        self._networks = networks
        self._below = below

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As `AbstractResolver.resolve`; raises `Denied` if any address is denied."""
        found = await self._below.resolve(host, port, family)
        for result in found:
            require_allowed(host, result["host"], self._networks)
        return found

    async def close(self) -> None:
        """Close the resolver below."""
        await self._below.close()


class GuardedSockets:
    """The second wall: makes the sockets."""

    def __init__(self, networks: tuple[IPNetwork, ...]) -> None:
        self._networks = networks

    def __call__(self, info: AddrInfoType) -> socket.socket:
        """A socket that is about to be connected to `info`'s address. Raises `Denied`."""
        family, kind, protocol, _, address = info
        require_allowed(str(address[0]), str(address[0]), self._networks)
        return socket.socket(family, kind, protocol)
