"""The address guard checks every new connection, because a job may name a host that only this machine can reach.

It checks twice:

1. Names are resolved here. A name is denied if one of its addresses is. aiohttp then connects to the checked addresses
   only; the name is still used for Host, SNI and the certificate.
2. Every socket is created here, and its address is checked again. This covers literal addresses, unexpected spellings, and
   changes of aiohttp that would bypass the first check.
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
    """Raise `ConnectionDenied` unless connections to the address are allowed. `host` is what the user wrote."""
    if not address_allowed(ipaddress.ip_address(address), networks):
        subject = f"{address} is" if host == address else f"{host} resolves to {address}, which is"
        raise ConnectionDenied(f"{subject} not a public address")


class SystemResolver(AbstractResolver):
    """The resolver of the system, in threads of its own, so that a name server that hangs delays nothing but look-ups."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As `AbstractResolver.resolve`; raises an `OSError` if there is no address."""
        loop = asyncio.get_running_loop()
        addresses = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no usable address")
        return addresses

    async def close(self) -> None:
        """Cancel the look-ups that have not started."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    try:
        answers = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_ADDRCONFIG)
    except UnicodeError as exc:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from exc
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        # A zone ("fe80::1%eth0") is dropped: only link-local addresses have one, and those are denied anyway.
        ResolveResult(
            hostname=host, host=str(at[0]).partition("%")[0], port=port, family=kind, proto=proto, flags=flags
        )
        for kind, _, proto, _, at in answers
    ]


class GuardedResolver(AbstractResolver):
    """The first check, on the answers of any resolver."""

    def __init__(self, networks: tuple[IPNetwork, ...], inner: AbstractResolver) -> None:
        self._networks = networks
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As `AbstractResolver.resolve`; raises `ConnectionDenied` if any address is denied."""
        addresses = await self._inner.resolve(host, port, family)
        for result in addresses:
            require_allowed(host, result["host"], self._networks)
        return addresses

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


class GuardedSockets:
    """The second check, when a socket is created."""

    def __init__(self, networks: tuple[IPNetwork, ...]) -> None:
        self._networks = networks

    def __call__(self, info: AddrInfoType) -> socket.socket:
        """A socket that will be connected to the address of `info`. Raises `ConnectionDenied`."""
        family, kind, protocol, _, address = info
        require_allowed(str(address[0]), str(address[0]), self._networks)
        return socket.socket(family, kind, protocol)
