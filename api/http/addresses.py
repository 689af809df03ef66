"""Whose request it is: the address of the client, also behind proxies, and the name under which limits count it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from config.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from falcon.asgi import Request

    from cluster.core.targets import IPNetwork

MAX_HOPS = 32
"""More proxies than this are not followed."""
SUBSCRIBER_BITS = 64
"""One subscriber of IPv6 has at least a /64, so that limits on single addresses would not limit anybody."""
FORWARDED_FOR, FORWARDED_PROTO = "X-FORWARDED-FOR", "X-FORWARDED-PROTO"
_NAMED = frozenset(
    {"VIA", "CDN-LOOP", "SURROGATE-CAPABILITY", "X-NGINX-PROXY", "X-VARNISH", "X-REQUEST-START"}
    | {"X-SCHEME", "X-URL-SCHEME", "X-HTTPS", "X-SSL", "FRONT-END-HTTPS"}
)
_PREFIXES = ("X-ORIGINAL-", "X-PROXY", "PROXY-", "CDN-")
_PREFIXES_OF_PROVIDERS = (
    *("CF-", "X-ENVOY-", "X-AZURE-", "X-ARR-", "FASTLY-", "FLY-", "X-VERCEL-", "AKAMAI-", "X-AKAMAI-", "CLOUDFRONT-"),
    *(
        "X-AMZN-",
        "X-AMZ-CF-",
        "X-CLOUD-TRACE-",
        "X-GOOG-",
        "X-APPENGINE-",
        "TAILSCALE-",
        "X-SUCURI-",
        "INCAP-",
        "X-NF-",
    ),
)
_PARTS = ("FORWARD", "CLIENT-IP", "CLIENTIP", "REAL-IP", "CONNECTING-IP", "REMOTE-IP", "REMOTE-ADDR")
"""`X-Forwarded-For`, `Z-Forwarded-For`, `X-Client-IP`, `Ali-CDN-Real-IP`, `DO-Connecting-IP`: they name who was there before."""


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`. None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_among(address: str, networks: Iterable[IPNetwork]) -> bool:
    """Whether the address is in one of the networks."""
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def limit_name(address: str) -> str:
    """What limits count: an address of IPv4, or the /64 of an address of IPv6."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, SUBSCRIBER_BITS), strict=False))
    return address if parsed is None else str(parsed)


def client_address(req: Request, trusted: Sequence[IPNetwork]) -> str:
    """The address of the client: the peer, unless that is a trusted proxy and names another one.

    Each proxy appends the address that it was called from, so the list is read from its end: the first one that is not a
    trusted proxy is the client. What stands before it may be made up. A word that is no address ends the list too.
    """
    peer = str(req.remote_addr)
    if not is_among(peer, trusted):
        return peer
    client = peer
    for hop in _forwarded_for(req):
        parsed = _parse(hop)
        if parsed is None:
            return client
        client = str(parsed)
        if not is_among(client, trusted):
            return client
    return client


def _forwarded_for(req: Request) -> Iterator[str]:
    """The addresses in `X-Forwarded-For`, nearest first."""
    rest = req.get_header(FORWARDED_FOR) or ""
    for _ in range(MAX_HOPS):
        if not rest:
            return
        rest, _, hop = rest.rpartition(",")
        yield hop


def came_from_elsewhere(req: Request, trusted: Sequence[IPNetwork]) -> bool:
    """Whether a proxy forwarded the request for another machine, or may have.

    A proxy on this machine makes every request look local. Only a trusted one is believed that it was called from here.
    """
    forwarding = {name for name in map(str.upper, req.headers) if _is_forwarding(name)}
    if not forwarding:
        return False
    if not is_among(str(req.remote_addr), trusted) or not forwarding <= {FORWARDED_FOR, FORWARDED_PROTO}:
        return True
    hops = (req.get_header(FORWARDED_FOR) or "").split(",")
    return len(hops) > MAX_HOPS or not all((p := _parse(h)) is not None and is_loopback(str(p)) for h in hops)


def _is_forwarding(name: str) -> bool:
    name = name.replace("_", "-")
    named = name in _NAMED or name.endswith("-VIA") or name.startswith((*_PREFIXES, *_PREFIXES_OF_PROVIDERS))
    return named or any(part in name for part in _PARTS)
