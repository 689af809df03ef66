"""The address guard checks every new connection, because a job may name a host that only this machine can reach.

It checks twice:

1. When a name is resolved: the name is denied if one of its addresses (of the first 64) is. The connection goes to the
   checked addresses; the name is still used for Host, SNI and the certificate.
2. When a socket is created, for the one address that it will be connected to. This is the check that counts: it covers
   literal addresses, unexpected spellings, and every answer of a name server however old.
"""

from __future__ import annotations

import ipaddress
import socket

from cluster.core.targets import IPNetwork, address_allowed, inet_aton
from cluster.outbound.errors import ConnectionDenied


def require_allowed(host: str, address: str, networks: tuple[IPNetwork, ...]) -> None:
    """Raise `ConnectionDenied` unless connections to the address are allowed. `host` is what the user wrote."""
    if not address_allowed(ipaddress.ip_address(address), networks):
        subject = f"{address} is" if host == address else f"{host} resolves to {address}, which is"
        raise ConnectionDenied(f"{subject} not a public address")


def literal_address(host: str) -> str | None:
    """The address that a host is, in any spelling that the C library accepts; None for a name."""
    text = host.partition("%")[0].removesuffix(".")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        address = inet_aton(text)
        return None if address is None else str(address)


def allowed_addresses(host: str, found: list[str], networks: tuple[IPNetwork, ...]) -> list[str]:
    """The addresses of a name, all of which must be allowed. Raises `ConnectionDenied`.

    `localhost` alone means one machine by two addresses, of which one is enough.
    """
    if is_localhost(host):
        allowed = [a for a in found if address_allowed(ipaddress.ip_address(a), networks)]
        if allowed:
            return allowed
    for address in found:
        require_allowed(host, address, networks)
    return found


def is_localhost(host: str) -> bool:
    """Whether a name is reserved for this machine (RFC 6761)."""
    name = host.removesuffix(".").lower()
    return name == "localhost" or name.endswith(".localhost")


class GuardedSockets:
    """The second check, when a socket is created."""

    def __init__(self, networks: tuple[IPNetwork, ...]) -> None:
        self._networks = networks

    def __call__(self, address: str) -> socket.socket:
        """A socket that will be connected to `address` and to nothing else. Raises `ConnectionDenied`."""
        require_allowed(address, address, self._networks)
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(0)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
