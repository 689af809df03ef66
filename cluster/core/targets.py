"""Where a job may send: which URLs are well formed, and which addresses may be connected to.

Names are judged after they were resolved, at every new connection, by `allowed`; here at creation only what can be
seen without asking anybody. The tables are our own, because what `ipaddress` calls global differs between releases of
Python and includes tunnels that end anywhere.
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

# IANA's registries of special addresses for IPv4, and what clouds answer at on addresses that look public.
_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(n)
    for n in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (CGNAT)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, reachable from its machines alone
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
# For IPv6 it is the other way round: one range is the public internet, with holes in it. Outside it lie loopback,
# mapped and compatible forms, NAT64 (64:ff9b::/96), unique local, link-local, site-local and multicast addresses.
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
    if not url or len(url) > MAX_URL_LENGTH:
        raise InvalidTarget(f"must have 1 to {MAX_URL_LENGTH} characters")
    if any(ord(c) <= 0x20 or ord(c) >= 0x7F or c == "\\" for c in url):
        raise InvalidTarget(
            "must be ASCII without blanks: write other characters percent-encoded, host names as punycode"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise InvalidTarget(f"cannot be read as a URL: {exc}") from exc
    if parts.scheme not in _PORTS:
        raise InvalidTarget("must begin with http:// or https://")
    if "@" in parts.netloc:
        raise InvalidTarget("must not carry a user or password; put an Authorization header instead")
    if "#" in url:
        raise InvalidTarget("must not have a fragment (#...); it would never be sent")
    if port == 0:
        raise InvalidTarget("the port must be 1 to 65535")
    host = (parts.hostname or "").lower()
    address = _literal(parts, host)
    if address is None and not _HOST.match(host):
        raise InvalidTarget("must name a host, such as https://api.example.com/webhook")
    name = f"[{address}]" if address is not None and address.version == 6 else host
    return TargetUrl(url, f"{name}:{port or _PORTS[parts.scheme]}", address)


def _literal(parts: SplitResult, host: str) -> IPAddress | None:
    """The address, if the URL holds one instead of a name. Raises `BadTarget` for one in an odd spelling."""
    if "[" in parts.netloc or "]" in parts.netloc:
        try:
            if not _BRACKETS.match(parts.netloc):
                raise ValueError
            return ipaddress.IPv6Address(host)
        except ValueError as exc:
            raise InvalidTarget(f"'{parts.netloc}' is not an IPv6 address") from exc
    labels = host.removesuffix(".").split(".")
    # As browsers do: what ends in a number is an address or nothing, since resolvers would read it as one.
    if not _NUMBER.match(labels[-1]):
        return None
    address = inet_aton(host.removesuffix("."))
    if address is None:
        raise InvalidTarget(f"'{host}' ends in a number and is not an IPv4 address")
    if str(address) != host:
        raise InvalidTarget(f"'{host}' is another spelling of {address}: only four decimal numbers are accepted")
    return address


def inet_aton(host: str) -> ipaddress.IPv4Address | None:
    """An IPv4 address in any spelling that the C library reads: 127.1, 0x7f.1, 2130706433, 0177.0.0.1."""
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
    """Whether a connection to this address may be made: it is public, or in one of the allowed networks."""
    if isinstance(address, ipaddress.IPv4Address):
        return _within(address, networks) or not _within(address, _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        # What the kernel would do with it: it is the IPv4 address.
        return address_allowed(address.ipv4_mapped, networks)
    if _within(address, networks):
        # Whoever allows NAT64 means the way, not every place that it leads to.
        return address not in _NAT64 or address_allowed(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF), networks)
    return address in _PUBLIC_6 and not _within(address, _NOT_PUBLIC_6)


def _within(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def check_target(url: str, networks: tuple[IPNetwork, ...]) -> TargetUrl:
    """`parse_target`, and a literal address must be one that may be connected to. Raises `BadTarget`."""
    target = parse_target(url)
    if target.address is not None and not address_allowed(target.address, networks):
        raise InvalidTarget(
            f"{target.address} is not a public address; an operator can allow it with HORAE_ALLOWED_NETWORKS"
        )
    return target
