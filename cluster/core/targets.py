"""Where a job may send: which URLs are well formed, and which addresses may be connected to.

Names are judged after they were resolved, at every new connection, by `allowed`; here at creation only what can be
seen without asking anybody.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_URL = 2048
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?\Z", re.ASCII)
_PORTS = {"http": 80, "https": 443}
# Ranges that reach something other than the public internet although `is_global` says otherwise.
_TUNNELS = tuple(ipaddress.ip_network(n) for n in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96"))


class BadTarget(ValueError):
    """The URL cannot be a target; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """A checked URL: `host_port` (lower case) is what lanes and limits go by; `address` is set for a literal one."""

    url: str
    host_port: str
    address: IPAddress | None


@lru_cache(maxsize=8192)
def parse_target(url: str) -> TargetUrl:
    """Check a URL as far as text can tell. Raises `BadTarget`."""
    if not url or len(url) > LONGEST_URL:
        raise BadTarget(f"must have 1 to {LONGEST_URL} characters")
    if any(ord(c) <= 0x20 or ord(c) >= 0x7F or c == "\\" for c in url):
        raise BadTarget("must be ASCII without blanks: write other characters percent-encoded, host names as punycode")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise BadTarget(f"cannot be read as a URL: {exc}") from exc
    if parts.scheme not in _PORTS:
        raise BadTarget("must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise BadTarget("must not carry a user or password; put an Authorization header instead")
    if parts.fragment or "#" in url:
        raise BadTarget("must not have a fragment (#...); it would never be sent")
    if port == 0:
        raise BadTarget("the port must be 1 to 65535")
    host = (parts.hostname or "").lower()
    address = _literal(parts, host)
    if address is None and not _HOST.match(host):
        raise BadTarget("must name a host, such as https://api.example.com/webhook")
    name = f"[{host}]" if address is not None and address.version == 6 else host
    return TargetUrl(url, f"{name}:{port or _PORTS[parts.scheme]}", address)


def _literal(parts: SplitResult, host: str) -> IPAddress | None:
    if "[" in parts.netloc:
        try:
            return ipaddress.IPv6Address(host)
        except ValueError as exc:
            raise BadTarget(f"'{host}' is not an IPv6 address") from exc
    return _spelled(host)


def _spelled(host: str) -> ipaddress.IPv4Address | None:
    """An IPv4 address in any spelling that `inet_aton` reads: 127.1, 0x7f.1, 2130706433, 0177.0.0.1."""
    labels = host.removesuffix(".").split(".")
    if not 1 <= len(labels) <= 4 or not labels[-1][:1].isdigit():
        return None
    numbers = []
    for label in labels:
        try:
            octal = len(label) > 1 and label[0] == "0" and label[1].isdigit()
            numbers.append(int(label, 8 if octal else 0))
        except ValueError:
            return None
    *leading, last = numbers
    if any(n > 255 for n in leading) or last >= 256 ** (5 - len(labels)):
        return None
    return ipaddress.IPv4Address(sum(n << (24 - 8 * i) for i, n in enumerate(leading)) + last)


def allowed(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    """Whether a connection to this address may be made: it is public, or in one of the allowed networks."""
    if any(address in network for network in networks if network.version == address.version):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return allowed(address.ipv4_mapped, networks)
        if address.scope_id is not None or any(address in tunnel for tunnel in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def check_target(url: str, networks: tuple[IPNetwork, ...]) -> TargetUrl:
    """`parse_target`, and a literal address must be one that may be connected to. Raises `BadTarget`."""
    target = parse_target(url)
    if target.address is not None and not allowed(target.address, networks):
        raise BadTarget(
            f"{target.address} is not a public address; an operator can allow it with HORAE_ALLOWED_NETWORKS"
        )
    return target
