"""Targets: which URLs are well formed, and which addresses Horae may connect to.

A host name is checked at every new connection, after it was resolved, by `address_allowed`. When a job is defined, only
its text is checked. The tables are kept here, because `ipaddress.is_global` differs between releases of Python and
includes tunnels whose other end is unknown.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_LENGTH = 2048
_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(\.{_LABEL})*\.?\Z", re.ASCII)
_BRACKETS = re.compile(r"\[[0-9a-f:.]+\](:[0-9]*)?\Z", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z", re.ASCII)
_PORTS = {"http": 80, "https": 443}

# IANA's registry of special IPv4 addresses, and addresses at which clouds serve metadata although they look public.
_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(n)
    for n in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (CGNAT)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, reachable from its machines only
        "169.254.0.0/16",  # link-local, where clouds keep metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# For IPv6 the table is the other way round: one range is the public internet, except for the ranges below. Loopback,
# mapped and compatible forms, NAT64 (64:ff9b::/96), unique local, link-local, site-local and multicast addresses are
# outside it.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(n)
    for n in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


class InvalidTarget(ValueError):
    """The URL cannot be a target. The message says how to correct it."""


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """A checked URL. Lanes and limits use `host_port` (lower case). `address` is set if the URL holds an IP address."""

    url: str
    host_port: str
    address: IPAddress | None


@lru_cache(maxsize=8192)
def parse_target(url: str) -> TargetUrl:
    """Check the text of a URL. Raises `InvalidTarget`."""
    if not url or len(url) > MAX_URL_LENGTH:
        raise InvalidTarget(f"must have 1 to {MAX_URL_LENGTH} characters")
    if any(ord(c) <= 0x20 or ord(c) >= 0x7F or c == "\\" for c in url):
        raise InvalidTarget(
            "must be ASCII without spaces: percent-encode other characters, use punycode for host names"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise InvalidTarget(f"cannot be read as a URL: {exc}") from exc
    if parts.scheme not in _PORTS:
        raise InvalidTarget("must start with http:// or https://")
    if "@" in parts.netloc:
        raise InvalidTarget("must not contain a user or password; use auth or an Authorization header instead")
    if "#" in url:
        raise InvalidTarget("must not have a fragment (#...): fragments are never sent")
    if port == 0:
        raise InvalidTarget("the port must be 1 to 65535")
    host = (parts.hostname or "").lower()
    address = _literal(parts, host)
    if address is None and not _HOST.match(host):
        raise InvalidTarget("must contain a host, such as https://api.example.com/webhook")
    name = f"[{address}]" if address is not None and address.version == 6 else host
    return TargetUrl(url, f"{name}:{port or _PORTS[parts.scheme]}", address)


def host_of(url: str | None) -> str:
    """Host and port of a URL; empty if it is none that can be called."""
    try:
        return parse_target(url or "").host_port
    except InvalidTarget:
        return ""


def is_host(host_port: str, named: str) -> bool:
    """Whether a host with its port is the one that is named, with or without a port."""
    has_port = ":" in named.rpartition("]")[2]
    return host_port == named if has_port else host_port.rpartition(":")[0] == named


def _literal(parts: SplitResult, host: str) -> IPAddress | None:
    """The IP address, if the URL holds one instead of a host name. Raises `InvalidTarget` for an unusual spelling."""
    if "[" in parts.netloc or "]" in parts.netloc:
        try:
            if not _BRACKETS.match(parts.netloc):
                raise ValueError
            return ipaddress.IPv6Address(host)
        except ValueError as exc:
            raise InvalidTarget(f"'{parts.netloc}' is not an IPv6 address") from exc
    labels = host.removesuffix(".").split(".")
    # As browsers do: a host that ends in a number must be an address, because resolvers read it as one.
    if not _NUMBER.match(labels[-1]):
        return None
    address = inet_aton(host.removesuffix("."))
    if address is None:
        raise InvalidTarget(f"'{host}' ends in a number, but is not an IPv4 address")
    if str(address) != host:
        raise InvalidTarget(f"'{host}' is another spelling of {address}; write an IPv4 address as four decimal numbers")
    return address


def inet_aton(host: str) -> ipaddress.IPv4Address | None:
    """An IPv4 address in any spelling that the C library accepts: 127.1, 0x7f.1, 2130706433, 0177.0.0.1."""
    labels = host.split(".")
    if not 1 <= len(labels) <= 4 or not all(_NUMBER.match(label) for label in labels):
        return None
    try:
        *leading, last = (_number(label) for label in labels)
    except ValueError:
        return None
    if any(n > 255 for n in leading) or last >= 256 ** (5 - len(labels)):
        return None
    return ipaddress.IPv4Address(sum(n << (24 - 8 * i) for i, n in enumerate(leading)) + last)


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)


def address_allowed(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    """Whether Horae may connect to this address: it is public, or in one of the allowed networks."""
    if isinstance(address, ipaddress.IPv4Address):
        return _within(address, networks) or not _within(address, _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        # The kernel connects to the IPv4 address.
        return address_allowed(address.ipv4_mapped, networks)
    if _within(address, networks):
        # Allowing the NAT64 prefix allows the translation, not every IPv4 address behind it.
        return address not in _NAT64 or address_allowed(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF), networks)
    return address in _PUBLIC_6 and not _within(address, _NOT_PUBLIC_6)


def _within(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def check_target(url: str, networks: tuple[IPNetwork, ...]) -> TargetUrl:
    """`parse_target`, and an IP address in the URL must be allowed. Raises `InvalidTarget`."""
    target = parse_target(url)
    if target.address is not None and not address_allowed(target.address, networks):
        raise InvalidTarget(
            f"{target.address} is not a public address; the operator can allow it with HORAE_ALLOWED_NETWORKS"
        )
    return target
